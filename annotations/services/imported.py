"""Labels that come in files: demonstrations, rankings and judgments, many at a time. They have no task."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID, uuid5

from django.db import transaction
from django.utils import timezone

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Response
from annotations.services.labels import valid_flags, valid_ratings, valid_strength, whole_ranking
from annotations.services.prompts import Messages, add_prompts, add_responses, digest_of
from webapp.accounts.models import Project, User
from webapp.errors import BadInput
from webapp.text import clean_text

IMPORTED: Final = UUID("6f5f2a6e-2f0f-5a52-9c55-0d5f6c1f6d10")  # names the tokens of imported rows
BATCH: Final = 2000
MAX_ANNOTATOR: Final = 200
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What every imported label carries. `annotator` is who gave it, as the file names them; `split` is "heldout" where
    the file says that nothing may learn from the row, and empty if the project decides."""

    annotator: str = ""
    weight: float = 1.0
    split: str = ""
    created_at: datetime | None = None
    active_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ImportedDemonstration(Imported):
    """`messages` ends with the user's turn that `reply` answers; `masked_turns` are indices of assistant messages that
    are context only."""

    messages: Messages
    reply: str
    source_ref: str = ""
    masked_turns: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ImportedRanking(Imported):
    """`groups` holds indices into `replies`, best group first; ratings and flags are by the same indices."""

    messages: Messages
    replies: Sequence[str]
    groups: Sequence[Sequence[int]]
    strength: float | None = None
    source_ref: str = ""
    ratings: dict[int, int] = field(default_factory=dict)
    flags: dict[int, list[str]] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ImportedJudgment(Imported):
    """One reply, called good or bad."""

    messages: Messages
    reply: str
    good: bool
    source_ref: str = ""


AnyImported = ImportedDemonstration | ImportedRanking | ImportedJudgment


@transaction.atomic
def import_demonstrations(
    *, project: Project, author: User, rows: Sequence[ImportedDemonstration], now: datetime | None = None
) -> int:
    """Keep demonstrations, accepted as they are; rows that were imported before are passed over. Returns how many."""
    now = now or timezone.now()
    tokens: dict[UUID, ImportedDemonstration] = {}
    for row in rows:
        _check(row, row.reply)
        masked = sorted(set(row.masked_turns))
        if any(not 0 <= i < len(row.messages) or row.messages[i]["role"] != "assistant" for i in masked):
            raise BadInput(f"{row.source_ref or 'A demonstration'}: only turns of the assistant can be masked.")
        tokens[_token(project, row, [row.reply], {"masked": masked})] = row
    fresh = _not_yet(Demonstration, author, tokens)
    replies = _single_replies(project, author, fresh.values(), now)
    created = Demonstration.objects.bulk_create(
        (
            Demonstration(
                response=reply,
                state=Demonstration.State.ACCEPTED,
                masked_turns=sorted(set(row.masked_turns)),
                **_label_fields(row, reply.prompt, author, token, now),
            )
            for (token, row), reply in zip(fresh.items(), replies, strict=True)
        ),
        batch_size=BATCH,
    )
    return len(created)


@transaction.atomic
def import_judgments(
    *, project: Project, author: User, rows: Sequence[ImportedJudgment], now: datetime | None = None
) -> int:
    """Keep verdicts on single replies; rows that were imported before are passed over. Returns how many."""
    now = now or timezone.now()
    tokens: dict[UUID, ImportedJudgment] = {}
    for row in rows:
        _check(row, row.reply)
        tokens[_token(project, row, [row.reply, "good" if row.good else "bad"])] = row
    fresh = _not_yet(Judgment, author, tokens)
    replies = _single_replies(project, author, fresh.values(), now)
    created = Judgment.objects.bulk_create(
        (
            Judgment(response=reply, good=row.good, **_label_fields(row, reply.prompt, author, token, now))
            for (token, row), reply in zip(fresh.items(), replies, strict=True)
        ),
        batch_size=BATCH,
    )
    return len(created)


@transaction.atomic
def import_rankings(
    *, project: Project, author: User, rows: Sequence[ImportedRanking], now: datetime | None = None
) -> int:
    """Keep rankings and the replies they order; rows that were imported before are passed over. Returns how many."""
    now = now or timezone.now()
    tokens: dict[UUID, ImportedRanking] = {}
    for row in rows:
        _check_ranking(row)
        groups = json.dumps([sorted(g) for g in row.groups])
        tokens[_token(project, row, [*row.replies, groups])] = row
    fresh = _not_yet(Ranking, author, tokens)
    prompts = _prompts(project, author, fresh.values())
    replies = iter(
        add_responses(
            responses=[
                Response(prompt=prompt, text=text, created_at=now)
                for prompt, row in zip(prompts, fresh.values(), strict=True)
                for text in row.replies
            ]
        )
    )
    rankings = []
    for prompt, (token, row) in zip(prompts, fresh.items(), strict=True):
        ids = [next(replies).pk for _ in row.replies]
        rankings.append(
            Ranking(
                groups=[[ids[i] for i in group] for group in row.groups if group],
                order_shown=ids,
                strength=row.strength,
                ratings={str(ids[i]): rating for i, rating in row.ratings.items()},
                flags={str(ids[i]): flags for i, flags in row.flags.items()},
                reason=clean_text(row.reason),
                **_label_fields(row, prompt, author, token, now),
            )
        )
    return len(Ranking.objects.bulk_create(rankings, batch_size=BATCH))


def _check(row: AnyImported, reply: str) -> None:
    """Raise BadInput, naming where the row stands, for what no label may be."""
    if not clean_text(reply).strip():
        raise BadInput(f"{row.source_ref or 'A label'}: the reply is empty.")
    if not (math.isfinite(row.weight) and row.weight >= 0):
        raise BadInput(f"{row.source_ref or 'A label'}: a weight is a number, 0 or above.")


def _check_ranking(row: ImportedRanking) -> None:
    indices = range(len(row.replies))
    try:
        whole_ranking(row.groups, indices)
        valid_strength(row.strength)
        valid_ratings(row.ratings, indices)
        valid_flags(row.flags, indices)
    except BadInput as error:
        raise BadInput(f"{row.source_ref or 'A ranking'}: {error.message}") from error
    if not (math.isfinite(row.weight) and row.weight >= 0):
        raise BadInput(f"{row.source_ref or 'A ranking'}: a weight is a number, 0 or above.")


def _label_fields(row: AnyImported, prompt: Prompt, author: User, token: UUID, now: datetime) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "author": author,
        "token": token,
        "annotator": row.annotator[:MAX_ANNOTATOR],
        "weight": row.weight,
        "source_ref": row.source_ref[:300],
        "created_at": row.created_at or now,
        "active_seconds": row.active_seconds,
    }


def _single_replies(
    project: Project, author: User, rows: Iterable[ImportedDemonstration | ImportedJudgment], now: datetime
) -> list[Response]:
    rows = list(rows)
    prompts = _prompts(project, author, rows)
    return add_responses(
        responses=[
            Response(prompt=prompt, text=row.reply, created_at=now) for prompt, row in zip(prompts, rows, strict=True)
        ]
    )


def _token(project: Project, row: AnyImported, texts: Sequence[str], extras: dict[str, Any] | None = None) -> UUID:
    """The same for the same row of the same project, so that a second import adds nothing. Equal labels of two people
    are two rows. What is unusual enters by name, so that usual rows keep the tokens they had before it existed."""
    unusual = {name: value for name, value in (extras or {}).items() if value}
    if row.annotator:
        unusual["annotator"] = row.annotator
    if row.weight != 1.0:
        unusual["weight"] = row.weight
    identity = [project.pk, digest_of(row.messages), *texts, *([unusual] if unusual else [])]
    return uuid5(IMPORTED, json.dumps(identity))


def _not_yet(model: type[Demonstration | Ranking | Judgment], author: User, rows: dict[UUID, R]) -> dict[UUID, R]:
    existing = set(model._default_manager.filter(author=author, token__in=rows).values_list("token", flat=True))
    return {token: row for token, row in rows.items() if token not in existing}


def _prompts(project: Project, author: User, rows: Iterable[AnyImported]) -> list[Prompt]:
    rows = list(rows)
    return add_prompts(
        project=project,
        conversations=[row.messages for row in rows],
        source=Prompt.Source.IMPORT,
        by=author,
        source_refs=[row.source_ref for row in rows],
        splits=[row.split for row in rows],
    )
