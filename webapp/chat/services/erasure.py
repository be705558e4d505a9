"""Deleting for good: a person's conversations with everything that was made of them, and what consent had allowed.

A prompt made from a conversation is erased unless it stands for somebody else's words too: it was there before, from
elsewhere, or another person gave feedback on the very same conversation. Of such a prompt only the person's own labels
go. What remains (models, and files of runs under way) is named on the person's page and on the project's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import BigIntegerField, Exists, Func, OuterRef, QuerySet
from django.db.models.functions import Cast
from django.utils import timezone

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Task
from annotations.services.erasure import Rows, erase_labels, erase_prompts, erase_work
from annotations.services.prompts import digest_of
from webapp.accounts.models import Project, User
from webapp.accounts.services import withdraw_consent
from webapp.chat.models import Conversation, Erasure, Feedback, Message
from webapp.runs.services.redaction import mark_erased

SOURCE = "chat message "
BATCH = 200


@dataclass
class Uses:
    """What was made of feedback, by id."""

    prompts: set[int] = field(default_factory=set)
    tasks: set[int] = field(default_factory=set)
    demonstrations: set[int] = field(default_factory=set)
    rankings: set[int] = field(default_factory=set)
    judgments: set[int] = field(default_factory=set)


@transaction.atomic
def erase_conversations(
    *, conversations: QuerySet[Conversation], reason: Erasure.Reason, now: datetime | None = None
) -> int:
    """Delete conversations for good, deleted ones too, with every copy of their words. Returns how many."""
    now = now or timezone.now()
    rows = conversations.select_for_update(of=("self",)).select_related("user", "project").order_by("pk")
    owners: dict[tuple[User, Project], list[Conversation]] = defaultdict(list)
    for conversation in rows:
        owners[conversation.user, conversation.project].append(conversation)
    for (user, project), owned in owners.items():
        messages = Message.objects.filter(conversation__in=owned)
        # Locked, so that no feedback is given on one while it goes.
        ids = set(messages.order_by("pk").select_for_update(of=("self",)).values_list("pk", flat=True))
        feedback = Feedback.objects.filter(message__in=ids)
        uses = made_of(feedback, user, project, message_ids=ids)
        erase(uses, user=user, project=project, feedback=feedback, reason=reason, conversations=len(owned), now=now)
        Conversation.objects.filter(pk__in=[conversation.pk for conversation in owned]).delete()
    return sum(len(owned) for owned in owners.values())


@transaction.atomic
def erase_uses(*, user: User, project: Project, now: datetime | None = None) -> Erasure | None:
    """Withdraw consent: the conversations stay the person's own, and everything the project made of them goes. That of
    conversations which were deleted in earlier times goes too."""
    now = now or timezone.now()
    withdraw_consent(user=user, project=project)
    feedback = Feedback.objects.select_for_update(of=("self",)).filter(
        user=user, message__conversation__project=project
    )
    uses = made_of(feedback, user, project, message_ids=None)
    feedback.update(prompt=None, task=None, demonstration=None, ranking=None)
    Feedback.judgments.through.objects.filter(feedback__in=feedback).delete()
    reason = Erasure.Reason.CONSENT
    return erase(uses, user=user, project=project, feedback=feedback, reason=reason, conversations=0, now=now)


def prompts_of_only(conversation: Conversation) -> QuerySet[Prompt]:
    """Prompts that stand for this conversation and for no other that is still there."""
    made_here = Prompt.objects.filter(feedback__message__conversation=conversation, source=Prompt.Source.CHAT)
    elsewhere = Feedback.objects.filter(prompt__in=made_here, message__conversation__deleted_at=None)
    others = elsewhere.exclude(message__conversation=conversation)
    return Prompt.objects.filter(pk__in=made_here.values("pk")).exclude(pk__in=others.values("prompt"))


def made_of(feedback: QuerySet[Feedback], user: User, project: Project, message_ids: set[int] | None) -> Uses:
    """What feedback names, and what says of itself that it came from these chat messages (None: from any), which is how
    labels that were replaced since are found, and those whose feedback is gone."""
    uses = Uses()
    links = ("prompt", "task", "demonstration", "ranking", "judgments")
    for prompt, task, demonstration, ranking, judgment in feedback.values_list(*links):
        for ids, pk in zip(
            (uses.prompts, uses.tasks, uses.demonstrations, uses.rankings, uses.judgments),
            (prompt, task, demonstration, ranking, judgment),
            strict=True,
        ):
            ids.update({pk} - {None})
    named = {"source_ref__startswith": SOURCE}
    prompts = Prompt.objects.filter(
        project=project, source=Prompt.Source.CHAT, created_by=user, erased_at=None, **named
    )
    uses.prompts |= from_messages(prompts, message_ids)
    for ids, model in (
        (uses.demonstrations, Demonstration),
        (uses.rankings, Ranking),
        (uses.judgments, Judgment),
    ):
        labels = model._default_manager.filter(author=user, prompt__project=project, erased_at=None, **named)
        ids.update(from_messages(labels, message_ids))
        uses.prompts.update(model._default_manager.filter(pk__in=ids).values_list("prompt", flat=True))
    return uses


def from_messages(rows: QuerySet[Any], message_ids: set[int] | None) -> set[int]:
    sources = rows.values_list("pk", "source_ref")
    return {pk for pk, source in sources if message_ids is None or message_number(source) in message_ids}


def message_number(source_ref: str) -> int:
    """The message in "chat message 12 over 11"; 0 if there is none."""
    number = source_ref.removeprefix(SOURCE).split(" ")[0]
    return int(number) if number.isascii() and number.isdecimal() else 0


def erase(
    uses: Uses,
    *,
    user: User,
    project: Project,
    feedback: QuerySet[Feedback],
    reason: Erasure.Reason,
    conversations: int,
    now: datetime,
) -> Erasure | None:
    """Remove the texts, and note which rows had them."""
    candidates = Prompt.objects.filter(pk__in=uses.prompts, source=Prompt.Source.CHAT, erased_at=None)
    locked = list(candidates.order_by("pk").select_for_update(of=("self",)))  # feedback locks its prompt too
    others = Feedback.objects.filter(prompt__in=uses.prompts).exclude(pk__in=feedback.values("pk"))
    shared = set(others.values_list("prompt", flat=True))
    alone = [prompt for prompt in locked if prompt.pk not in shared]
    gone = {prompt.pk for prompt in [*alone, *copies_of(alone, project)]}
    rows = erase_prompts(prompts=gone, now=now) if gone else {}
    unerased = {"author": user, "erased_at": None}
    labels = erase_labels(
        demonstrations=ids_of(Demonstration.objects.filter(pk__in=uses.demonstrations, **unerased)),
        rankings=ids_of(Ranking.objects.filter(pk__in=uses.rankings, **unerased)),
        judgments=ids_of(Judgment.objects.filter(pk__in=uses.judgments, **unerased)),
        now=now,
    )
    erase_work(Task.objects.filter(pk__in=uses.tasks), now)
    everything = {kind: sorted({*rows.get(kind, []), *labels.get(kind, [])}) for kind in {*rows, *labels}}
    everything = {kind: ids for kind, ids in everything.items() if ids}
    if everything:
        mark_erased(rows=everything, now=now)
    if not everything and not conversations:
        return None
    return Erasure.objects.create(
        user=user, project=project, reason=reason, conversations=conversations, rows=everything, created_at=now
    )


def erase_leftovers(*, now: datetime | None = None) -> int:
    """Erase prompts and labels whose chat message is gone: earlier versions deleted conversations and left these. How
    many prompts and labels there were, at most BATCH of each kind at a time."""
    now = now or timezone.now()
    count = 0
    prompts = orphans(Prompt.objects.filter(source=Prompt.Source.CHAT, created_by__isnull=False))
    made_by: dict[tuple[User, Project], Uses] = defaultdict(Uses)
    for prompt in prompts.select_related("created_by", "project")[:BATCH]:
        if prompt.created_by is not None:
            made_by[prompt.created_by, prompt.project].prompts.add(prompt.pk)
    for kind, model in (("demonstrations", Demonstration), ("rankings", Ranking), ("judgments", Judgment)):
        labels = orphans(model._default_manager.filter(retracted_at=None))
        for label in labels.select_related("author", "prompt__project")[:BATCH]:
            getattr(made_by[label.author, label.prompt.project], kind).add(label.pk)
    for (user, project), uses in made_by.items():
        count += len(uses.prompts) + len(uses.demonstrations) + len(uses.rankings) + len(uses.judgments)
        with transaction.atomic():
            nothing = Feedback.objects.none()
            reason = Erasure.Reason.EXPIRED
            erase(uses, user=user, project=project, feedback=nothing, reason=reason, conversations=0, now=now)
    return count


def orphans(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those that came from a chat message which is not there anymore."""
    number = Cast(RegexpMessage("source_ref"), BigIntegerField())
    gone = rows.filter(source_ref__regex=rf"^{SOURCE}[0-9]{{1,18}}\y", erased_at=None, feedback=None)
    told: QuerySet[Any] = gone.annotate(message_number=number).exclude(
        Exists(Message.objects.filter(pk=OuterRef("message_number")))
    )
    return told


class RegexpMessage(Func):
    """The number of the message in a source_ref."""

    function = "substring"
    template = "%(function)s(%(expressions)s from '^chat message ([0-9]+)')"


def ids_of(rows: QuerySet[Demonstration] | QuerySet[Ranking] | QuerySet[Judgment]) -> list[int]:
    return list(rows.values_list("pk", flat=True))


def copies_of(prompts: Iterable[Prompt], project: Project) -> list[Prompt]:
    """The same conversations under the project's system prompt, as an export writes them, where that was read in."""
    if not project.system_prompt.strip():
        return []
    system = {"role": "system", "content": project.system_prompt}
    oldest = {digest_of([system, *prompt.messages]): prompt.pk for prompt in prompts}
    candidates = Prompt.objects.filter(project=project, digest__in=oldest, erased_at=None)
    return [copy for copy in candidates if copy.pk > oldest[copy.digest]]


def erased_rows(erasures: Iterable[Erasure]) -> Rows:
    """All the rows of several erasures."""
    rows: dict[str, set[int]] = defaultdict(set)
    for erasure in erasures:
        for kind, ids in erasure.rows.items():
            rows[kind].update(ids)
    return {kind: sorted(ids) for kind, ids in rows.items()}
