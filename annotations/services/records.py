"""Labels that come without a task: imported ones, and those that people give in passing, in a chat."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID, uuid5

from django.db import transaction
from django.utils import timezone

from annotations.models import Demonstration, Prompt, Ranking, Response
from annotations.services.labels import valid_strength, whole_ranking
from annotations.services.prompts import Messages, add_prompts, add_responses, digest_of
from annotations.services.reviews import call_for_review
from webapp.accounts.models import Project, User
from webapp.accounts.selectors import current_guidelines
from webapp.errors import BadInput, Conflict
from webapp.text import clean_text

IMPORTED: Final = UUID("6f5f2a6e-2f0f-5a52-9c55-0d5f6c1f6d10")  # names the tokens of imported rows
BATCH: Final = 2000
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ImportedDemonstration:
    """`messages` ends with the user's turn that `reply` answers."""

    messages: Messages
    reply: str
    source_ref: str = ""


@dataclass(frozen=True, slots=True)
class ImportedRanking:
    """`groups` holds indices into `replies`, best group first."""

    messages: Messages
    replies: Sequence[str]
    groups: Sequence[Sequence[int]]
    strength: float | None = None
    source_ref: str = ""


@transaction.atomic
def import_demonstrations(
    *, project: Project, author: User, rows: Sequence[ImportedDemonstration], now: datetime | None = None
) -> int:
    """Keep demonstrations, accepted as they are; rows that were imported before are passed over. Returns how many."""
    now = now or timezone.now()
    for row in rows:
        if not clean_text(row.reply).strip():
            raise BadInput(f"{row.source_ref or 'A demonstration'}: the reply is empty.")
    fresh = _not_yet(Demonstration, author, {_token(project, row.messages, [row.reply]): row for row in rows})
    prompts = _prompts(project, author, fresh.values())
    replies = add_responses(
        responses=[
            Response(prompt=prompt, text=row.reply.strip(), created_at=now)
            for prompt, row in zip(prompts, fresh.values(), strict=True)
        ]
    )
    made = Demonstration.objects.bulk_create(
        (
            Demonstration(
                prompt=reply.prompt,
                response=reply,
                author=author,
                token=token,
                state=Demonstration.State.ACCEPTED,
                source_ref=row.source_ref[:300],
                created_at=now,
            )
            for (token, row), reply in zip(fresh.items(), replies, strict=True)
        ),
        batch_size=BATCH,
    )
    return len(made)


@transaction.atomic
def import_rankings(
    *, project: Project, author: User, rows: Sequence[ImportedRanking], now: datetime | None = None
) -> int:
    """Keep rankings and the replies they order; rows that were imported before are passed over. Returns how many."""
    now = now or timezone.now()
    tokens: dict[UUID, ImportedRanking] = {}
    for row in rows:
        try:
            whole_ranking(row.groups, range(len(row.replies)))
            valid_strength(row.strength)
        except BadInput as error:
            raise BadInput(f"{row.source_ref or 'A ranking'}: {error.message}") from error
        tokens[_token(project, row.messages, [*row.replies, json.dumps([sorted(g) for g in row.groups])])] = row
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
                prompt=prompt,
                author=author,
                token=token,
                groups=[[ids[i] for i in group] for group in row.groups if group],
                order_shown=ids,
                strength=row.strength,
                source_ref=row.source_ref[:300],
                created_at=now,
            )
        )
    return len(Ranking.objects.bulk_create(rankings, batch_size=BATCH))


def _token(project: Project, messages: Messages, rest: Sequence[str]) -> UUID:
    """The same for the same row of the same project, so that a second import adds nothing."""
    return uuid5(IMPORTED, json.dumps([project.pk, digest_of(messages), *rest]))


def _not_yet(model: type[Demonstration | Ranking], author: User, rows: dict[UUID, R]) -> dict[UUID, R]:
    known = set(model._default_manager.filter(author=author, token__in=rows).values_list("token", flat=True))
    return {token: row for token, row in rows.items() if token not in known}


def _prompts(project: Project, author: User, rows: Iterable[ImportedDemonstration | ImportedRanking]) -> list[Prompt]:
    rows = list(rows)
    return add_prompts(
        project=project,
        conversations=[row.messages for row in rows],
        source=Prompt.Source.IMPORT,
        by=author,
        source_refs=[row.source_ref for row in rows],
    )


def lock(prompt: Prompt) -> None:
    """Let one label of a prompt be recorded at a time, so that a token sent twice at once is found the second time."""
    Prompt.objects.select_for_update().get(pk=prompt.pk)


@transaction.atomic
def offer_demonstration(
    *, prompt: Prompt, text: str, author: User, token: UUID, source_ref: str = "", now: datetime | None = None
) -> Demonstration:
    """A reply that someone would rather have had. Others are asked to review it where the project wants reviews."""
    lock(prompt)
    sent = Demonstration.objects.filter(author=author, token=token).first()
    if sent is not None:
        return sent
    text = clean_text(text).strip()
    if not text:
        raise BadInput("Write the better answer first.")
    now = now or timezone.now()
    label = Demonstration.objects.create(
        prompt=prompt,
        response=Response.objects.create(prompt=prompt, text=text, author=author, created_at=now),
        author=author,
        token=token,
        guidelines=current_guidelines(prompt.project),
        source_ref=source_ref[:300],
        created_at=now,
    )
    call_for_review(demonstration=label)
    return label


@transaction.atomic
def record_ranking(
    *,
    prompt: Prompt,
    responses: Sequence[Response],
    groups: Sequence[Sequence[int]],
    author: User,
    token: UUID,
    strength: float | None = None,
    reason: str = "",
    source_ref: str = "",
    now: datetime | None = None,
) -> Ranking:
    """An ordering that someone gave without a task, such as a pick between two replies in a chat.

    Args:
        responses: the replies in the order they were seen.
        groups: response ids, best group first.
    """
    lock(prompt)
    sent = Ranking.objects.filter(author=author, token=token).first()
    if sent is not None:
        return sent
    if any(response.prompt_id != prompt.pk for response in responses):
        raise Conflict("Replies that are ranked must all answer the same prompt.")
    order = [response.pk for response in responses]
    return Ranking.objects.create(
        prompt=prompt,
        author=author,
        token=token,
        groups=whole_ranking(groups, order),
        order_shown=order,
        strength=valid_strength(strength),
        reason=clean_text(reason).strip(),
        guidelines=current_guidelines(prompt.project),
        source_ref=source_ref[:300],
        created_at=now or timezone.now(),
    )
