"""Prompts and replies come in here, one or many thousands at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotations.models import Prompt, Response, Task
from annotations.selectors import restorable, tasks_to_restore
from annotations.services.closing import reopen_tasks
from annotations.services.tasks import open_missing_write_tasks, withdraw_tasks
from webapp.accounts.models import Project, User
from webapp.errors import BadInput, Conflict
from webapp.text import clean_text

HELDOUT_SHARE: Final = 0.1
ROLES: Final = frozenset({"system", "user", "assistant"})
BATCH: Final = 2000

Messages = Sequence[dict[str, str]]


class PromptCheck(NamedTuple):
    """What rewards hold replies to a prompt against: the right answer (text or other JSON), and a JSON object."""

    reference: Any = None
    data: dict[str, Any] | None = None


NO_CHECK: Final = PromptCheck()


def clean_messages(messages: Messages) -> list[dict[str, str]]:
    """The conversation as it is kept. Raises BadInput unless it ends with a user's turn that says something."""
    cleaned = []
    for number, turn in enumerate(messages, 1):
        if set(turn) != {"role", "content"} or turn["role"] not in ROLES or not isinstance(turn["content"], str):
            raise BadInput(f"Turn {number} must be an object with role (system, user or assistant) and content (text).")
        cleaned.append({"role": turn["role"], "content": clean_text(turn["content"])})
    if not cleaned or cleaned[-1]["role"] != "user" or not cleaned[-1]["content"].strip():
        raise BadInput("A prompt must end with a user's turn that is not empty.")
    return cleaned


def digest_of(messages: Messages) -> str:
    """sha256 of the conversation, hexadecimal."""
    text = json.dumps([[turn["role"], turn["content"]] for turn in messages], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def split_of(messages: Messages) -> Prompt.Split:
    """Training or held out, by a hash of the first user turn in lower case without extra spaces, so that
    conversations which begin alike are on the same side."""
    first_turn = next(turn["content"] for turn in messages if turn["role"] == "user")
    digest = hashlib.sha256(" ".join(first_turn.lower().split()).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return Prompt.Split.HELDOUT if share < HELDOUT_SHARE else Prompt.Split.TRAIN


def add_prompt(
    *, project: Project, messages: Messages, source: Prompt.Source, by: User | None = None, source_ref: str = ""
) -> Prompt:
    """The project's prompt with this conversation; made when there is none yet."""
    return add_prompts(project=project, conversations=[messages], source=source, by=by, source_refs=[source_ref])[0]


@transaction.atomic
def add_prompts(
    *,
    project: Project,
    conversations: Sequence[Messages],
    source: Prompt.Source,
    by: User | None = None,
    source_refs: Sequence[str] = (),
    splits: Sequence[str] = (),
    checks: Sequence[PromptCheck] = (),
) -> list[Prompt]:
    """A prompt for each conversation, in the order given; equal conversations share one.

    Where `splits` says "heldout" the prompt is held out, one that was there before too; else a hash decides. What
    `checks` say replaces what was there before.
    """
    new_prompts: dict[str, Prompt] = {}
    digests: list[str] = []
    heldout: set[str] = set()
    rows = zip_longest(conversations, source_refs, splits, fillvalue="")
    for number, (messages, ref, split) in enumerate(rows, 1):
        try:
            cleaned = clean_messages(messages)  # type: ignore[arg-type]  # zip_longest widens; conversations are as long
        except BadInput as error:
            raise BadInput(f"{ref or f'Prompt {number}'}: {error.message}") from error
        digest = digest_of(cleaned)
        digests.append(digest)
        if split == Prompt.Split.HELDOUT:
            heldout.add(digest)
        if digest not in new_prompts:
            new_prompts[digest] = Prompt(
                project=project,
                messages=cleaned,
                digest=digest,
                split=split_of(cleaned),
                source=source,
                source_ref=str(ref)[:300],
                created_by=by,
            )
    for digest in heldout:
        new_prompts[digest].split = Prompt.Split.HELDOUT
    by_digest = _by_digest(project, list(new_prompts))
    _hold_out([by_digest[digest] for digest in heldout & by_digest.keys()])
    given_checks = {d: check for d, check in zip(digests, checks, strict=False) if check != NO_CHECK}
    for digest, check in given_checks.items():
        new_prompts[digest].reference, new_prompts[digest].data = check
    _set_checks({by_digest[digest]: check for digest, check in given_checks.items() if digest in by_digest})
    missing = [prompt for digest, prompt in new_prompts.items() if digest not in by_digest]
    Prompt.objects.bulk_create(missing, batch_size=BATCH, ignore_conflicts=True)
    if missing:
        by_digest |= _by_digest(project, [prompt.digest for prompt in missing])
    return [by_digest[digest] for digest in digests]


def _set_checks(checks: Mapping[Prompt, PromptCheck]) -> None:
    """Give prompts that are there another reference and other data."""
    changed = [prompt for prompt, check in checks.items() if (prompt.reference, prompt.data) != tuple(check)]
    for prompt in changed:
        reference, data = checks[prompt]
        prompt.reference = prompt.reference if reference is None else reference
        prompt.data = prompt.data if data is None else data
    Prompt.objects.bulk_update(changed, ["reference", "data"], batch_size=BATCH)


@transaction.atomic
def set_check(*, prompt: Prompt, check: PromptCheck) -> None:
    """Replace the reference and the data of a prompt. Raises Conflict if its text was deleted."""
    prompt = Prompt.objects.select_for_update().get(pk=prompt.pk)
    if prompt.erased_at is not None:
        raise Conflict("The text of this prompt was deleted, so it takes no reference.")
    prompt.reference, prompt.data = check
    prompt.save(update_fields=["reference", "data"])


def _hold_out(prompts: Sequence[Prompt]) -> None:
    """Keep prompts away from training that were open to it so far."""
    moved = [prompt for prompt in prompts if prompt.split != Prompt.Split.HELDOUT]
    for prompt in moved:
        prompt.split = Prompt.Split.HELDOUT
    Prompt.objects.bulk_update(moved, ["split"], batch_size=BATCH)


def _by_digest(project: Project, digests: Sequence[str]) -> dict[str, Prompt]:
    return {p.digest: p for p in Prompt.objects.filter(project=project, digest__in=digests)}


@transaction.atomic
def add_responses(*, responses: Sequence[Response]) -> list[Response]:
    """Keep unsaved replies; each names its prompt and its author, its model or neither (imported)."""
    for response in responses:
        response.text = clean_text(response.text)
    return Response.objects.bulk_create(responses, batch_size=BATCH)


@transaction.atomic
def withdraw_prompts(*, prompts: QuerySet[Prompt], now: datetime | None = None) -> int:
    """Take prompts out of labeling and out of future training. What was labeled stays on record. Returns how many."""
    now = now or timezone.now()
    ids = list(prompts.filter(withdrawn_at=None).values_list("id", flat=True))
    withdraw_tasks(tasks=Task.objects.filter(prompt_id__in=ids), now=now)
    return Prompt.objects.filter(id__in=ids).update(withdrawn_at=now)


@transaction.atomic
def restore_prompts(*, prompts: QuerySet[Prompt]) -> int:
    """Bring withdrawn prompts back with their tasks; their labels count again. Returns how many.

    Those from chats stay withdrawn: their writers may have taken back their consent. So do tasks that were withdrawn
    for another reason: those that feedback asked for, and reviews of withdrawn demonstrations.
    """
    ids = list(restorable(prompts).select_for_update(of=("self",)).values_list("id", flat=True))
    Prompt.objects.filter(pk__in=ids).update(withdrawn_at=None)
    reopen_tasks(tasks=tasks_to_restore(Prompt.objects.filter(pk__in=ids)))
    return len(ids)


# ----------------------------------------------------------------------------------------------------- added by people


class WithdrawnPrompts(Conflict):
    """Some of the conversations are withdrawn prompts of the project; nothing was added.

    Attributes:
        numbers: which, counted from 1.
        restorable: whether all of them can be restored.
    """

    code = "withdrawn_prompts"

    def __init__(self, numbers: Sequence[int], *, restorable: bool) -> None:
        names = ", ".join(map(str, numbers[:20])) + (" and more" if len(numbers) > 20 else "")
        noun, verb = ("Prompt", "was") if len(numbers) == 1 else ("Prompts", "were")
        subject = f"{noun} {names} {verb} withdrawn from this project."
        how = "Restore them or leave them out." if restorable else "They came from chats and cannot be restored."
        super().__init__(f"{subject} Nothing was added. {how}")
        self.numbers = list(numbers)
        self.restorable = restorable


@dataclass(frozen=True)
class AddedPrompts:
    """What became of conversations that somebody added. `prompts` are in the order given; the rest are counts."""

    prompts: list[Prompt]
    new: int
    known: int
    restored: int
    tasks: int


@transaction.atomic
def add_and_ask(
    *,
    project: Project,
    conversations: Sequence[Messages],
    source: Prompt.Source,
    by: User,
    open_tasks: bool,
    restore: bool = False,
    source_ref: str = "",
    checks: Sequence[PromptCheck] = (),
) -> AddedPrompts:
    """Add prompts and, where wanted, ask annotators to reply to those that nobody has been asked about; all or nothing.

    Raises WithdrawnPrompts if some are withdrawn and `restore` is not set or does not help.
    """
    newest = Prompt.objects.filter(project=project).order_by("-id").values_list("id", flat=True).first() or 0
    prompts = add_prompts(project=project, conversations=conversations, source=source, by=by, checks=checks)
    withdrawn = [prompt for prompt in prompts if prompt.withdrawn_at is not None]
    can_restore = all(prompt.source != Prompt.Source.CHAT for prompt in withdrawn)
    if withdrawn and not (restore and can_restore):
        numbers = [number for number, prompt in enumerate(prompts, 1) if prompt.withdrawn_at is not None]
        raise WithdrawnPrompts(numbers, restorable=can_restore)
    ids = {prompt.pk for prompt in prompts}
    restored = restore_prompts(prompts=Prompt.objects.filter(pk__in=ids))
    prompts_to_ask = Prompt.objects.filter(pk__in=ids if open_tasks else ())
    tasks = open_missing_write_tasks(prompts=prompts_to_ask, source_ref=source_ref)
    new = sum(pk > newest for pk in ids)
    for prompt in withdrawn:
        prompt.withdrawn_at = None
    return AddedPrompts(prompts, new, len(ids) - new - restored, restored, len(tasks))
