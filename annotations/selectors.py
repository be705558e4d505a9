"""Reads: rows for snapshots, progress, and a person's own labels.

Over 300 lines: the reads of labels share their filters and annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from annotations.models import Demonstration, Draft, Judgment, Label, Lease, Prompt, Ranking, Response, Review, Task
from webapp.accounts.models import Guidelines, Project, User

AnyLabel = Demonstration | Ranking | Review
L = TypeVar("L", bound=Label)
ENDED = (Task.State.CLOSED, Task.State.WITHDRAWN)  # tasks that are handed to nobody
KINDS: dict[str, type[AnyLabel]] = {"write": Demonstration, "rank": Ranking, "review": Review}

# A label counts while it is not taken back and holds a seat of its task; one without a task always has its seat.
COUNTED = Q(retracted_at=None) & (Q(lease=None) | Q(lease__seat__isnull=False))
# Of those, what training may take: not what people say when they compare two models, unless somebody chose that.
TAKEN = COUNTED & (Q(task=None) | Q(task__for_training=True))


def _for_training(labels: QuerySet[L], project: Project, split: str | None) -> QuerySet[L]:
    labels = labels.filter(TAKEN, prompt__project=project, prompt__withdrawn_at=None)
    if split is not None:
        labels = labels.filter(prompt__split=split)
    return labels.select_related("prompt").order_by("id")


def accepted_demonstrations(project: Project, split: str | None = None) -> QuerySet[Demonstration]:
    """What a model may learn to say; `split` is train, heldout or None for both."""
    accepted = Demonstration.objects.filter(state=Demonstration.State.ACCEPTED).select_related("response")
    return _for_training(accepted, project, split)


def usable_rankings(project: Project, split: str | None = None) -> QuerySet[Ranking]:
    """What a reward model may learn from; `split` is train, heldout or None for both."""
    return _for_training(Ranking.objects.all(), project, split)


def usable_judgments(project: Project, split: str | None = None) -> QuerySet[Judgment]:
    """Replies that people called good or bad; `split` is train, heldout or None for both."""
    return _for_training(Judgment.objects.select_related("response"), project, split)


def live_prompts(project: Project, split: str | None = None) -> QuerySet[Prompt]:
    """Prompts that were not withdrawn; `split` is train, heldout or None for both."""
    prompts = Prompt.objects.filter(project=project, withdrawn_at=None).order_by("id")
    return prompts if split is None else prompts.filter(split=split)


def restorable(prompts: QuerySet[Prompt]) -> QuerySet[Prompt]:
    """The withdrawn prompts that a project may bring back: all but those from chats, whose writers may have taken back
    their consent, and those whose text is gone."""
    return prompts.filter(erased_at=None).exclude(withdrawn_at=None).exclude(source=Prompt.Source.CHAT)


def tasks_to_restore(prompts: QuerySet[Prompt]) -> QuerySet[Task]:
    """The tasks that were withdrawn with these prompts, not for a reason of their own."""
    tasks = Task.objects.filter(prompt__in=prompts, state=Task.State.WITHDRAWN)
    return tasks.exclude(source_ref__startswith="chat").filter(
        Q(demonstration=None) | Q(demonstration__retracted_at=None)
    )


def counted_labels(prompt: Prompt) -> int:
    """The labels on the prompt that count while it is in use."""
    models: list[type[Label]] = [*KINDS.values(), Judgment]
    return sum(model._default_manager.filter(COUNTED, prompt=prompt).count() for model in models)


def unasked_prompts(prompts: QuerySet[Prompt]) -> QuerySet[Prompt]:
    """Prompts in use that nobody has been asked to reply to."""
    write_tasks = Task.objects.filter(prompt=OuterRef("pk"), kind=Task.Kind.WRITE).exclude(state=Task.State.WITHDRAWN)
    return prompts.filter(~Exists(write_tasks), withdrawn_at=None)


def open_task_counts(project: Project) -> dict[str, int]:
    """Open tasks by kind."""
    return dict.fromkeys(Task.Kind.values, 0) | _by_kind(Task.objects.filter(project=project, state=Task.State.OPEN))


def labels_wanted(project: Project) -> dict[str, int]:
    """Seats of open tasks that no submission holds yet, by kind."""
    tasks = Task.objects.filter(project=project, state=Task.State.OPEN)
    seats = dict(tasks.values_list("kind").annotate(n=Sum("overlap")).order_by())
    filled = dict(
        Lease.objects.filter(task__in=tasks, outcome=Lease.Outcome.SUBMITTED, seat__isnull=False)
        .values_list("task__kind")
        .annotate(n=Count("id"))
        .order_by()
    )
    return {kind: seats.get(kind, 0) - filled.get(kind, 0) for kind in Task.Kind.values}


def labels_open_to(person: User, project: Project, now: datetime | None = None) -> dict[str, int]:
    """The labels that the person can give now, by kind: one for each task in their hands or that `lease_next` can hand
    to them. An archived project hands out nothing new.

    All open tasks are counted, and those that are closed to the person taken off: they are few and found by indexes,
    where asking every open task whether it is one of them takes twenty times as long.
    """
    in_hand = _tasks_in_hand(person, project)
    if project.archived_at is not None:
        return dict.fromkeys(Task.Kind.values, 0) | _by_kind(in_hand)
    counts = open_task_counts(project)
    closed = _by_kind(_tasks_closed_to(person, project, now or timezone.now()).exclude(pk__in=in_hand.values("pk")))
    return {kind: n - closed.get(kind, 0) for kind, n in counts.items()}


def _tasks_in_hand(person: User, project: Project) -> QuerySet[Task]:
    held = Lease.objects.filter(person=person, outcome=Lease.Outcome.HELD)
    return Task.objects.filter(project=project, state=Task.State.OPEN, pk__in=held.values("task"))


def _tasks_closed_to(person: User, project: Project, now: datetime) -> QuerySet[Task]:
    """The open tasks that the person answered or skipped, that show what they wrote themselves, and those whose seats
    are all held by submissions and live leases: somebody has such a task in hand, or it would not be open."""
    live = Q(outcome=Lease.Outcome.SUBMITTED) | Q(until__gte=now)
    seats = Lease.objects.filter(live, task=OuterRef("task"), seat__isnull=False).order_by().values("task")
    held = Lease.objects.filter(outcome=Lease.Outcome.HELD, until__gte=now, task__project=project)
    full = held.alias(taken=Subquery(seats.annotate(n=Count("id")).values("n"))).filter(taken__gte=F("task__overlap"))
    done = Lease.objects.filter(person=person, outcome__in=[Lease.Outcome.SUBMITTED, Lease.Outcome.SKIPPED])
    replies_by_person = Task.responses.through.objects.filter(response__author=person)
    reviews_of_own = Task.objects.filter(demonstration__author=person).order_by()
    tasks = done.values("task").union(
        full.values("task"), replies_by_person.values("task"), reviews_of_own.values("pk")
    )
    return Task.objects.filter(project=project, state=Task.State.OPEN, pk__in=tasks)


def _by_kind(tasks: QuerySet[Task]) -> dict[str, int]:
    return dict(tasks.order_by().values_list("kind").annotate(n=Count("id")))


def label_counts(project: Project) -> dict[str, int]:
    """Labels that were not taken back, by kind."""
    return {
        kind: model._default_manager.filter(prompt__project=project, retracted_at=None).count()
        for kind, model in KINDS.items()
    }


def today_count(person: User, project: Project | None = None, now: datetime | None = None) -> int:
    """The tasks the person has answered since midnight; what they took back does not count."""
    submitted = Lease.objects.filter(person=person, outcome=Lease.Outcome.SUBMITTED, ended_at__gte=_midnight(now))
    return (submitted if project is None else submitted.filter(task__project=project)).count()


def labels_given(person: User, project: Project) -> int:
    """The tasks of the project that the person has answered, ever; what they took back does not count. `today_count`
    counts some of these."""
    return Lease.objects.filter(person=person, outcome=Lease.Outcome.SUBMITTED, task__project=project).count()


def _midnight(now: datetime | None) -> datetime:
    return timezone.localtime(now or timezone.now()).replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True)
class PersonProgress:
    """What one person gave to a project."""

    person: User
    write: int
    rank: int
    review: int
    skipped: int
    today: int
    seconds: float  # active, in all

    @property
    def labels(self) -> int:
        return self.write + self.rank + self.review


def people_progress(
    project: Project, since: datetime | None = None, now: datetime | None = None
) -> list[PersonProgress]:
    """Everyone who labeled or skipped in the project, by name; `since` limits all but `today`."""
    counts: dict[str, Counter[int]] = {}
    seconds: Counter[int] = Counter()
    today: Counter[int] = Counter()
    for kind, model in KINDS.items():
        labels = model._default_manager.filter(prompt__project=project, retracted_at=None, task__isnull=False)
        for author, n in labels.filter(created_at__gte=_midnight(now)).values_list("author").annotate(n=Count("id")):
            today[author] += n
        if since:
            labels = labels.filter(created_at__gte=since)
        rows = labels.values_list("author").annotate(n=Count("id"), s=Coalesce(Sum("active_seconds"), 0.0))
        counts[kind] = Counter({author: n for author, n, _ in rows})
        for author, _, spent in rows:
            seconds[author] += spent
    skips = Lease.objects.filter(task__project=project, outcome=Lease.Outcome.SKIPPED)
    if since:
        skips = skips.filter(ended_at__gte=since)
    skipped = Counter(dict(skips.values_list("person").annotate(n=Count("id"))))
    people = User.objects.filter(pk__in={*skipped, *today, *(p for c in counts.values() for p in c)})
    return [
        PersonProgress(
            person=person,
            write=counts["write"][person.pk],
            rank=counts["rank"][person.pk],
            review=counts["review"][person.pk],
            skipped=skipped[person.pk],
            today=today[person.pk],
            seconds=seconds[person.pk],
        )
        for person in people.order_by("name", "email")
    ]


def label_ids(person: User, project: Project) -> dict[str, list[str]]:
    """The ids under which the person's counted labels appear in snapshots, from which runs and models can be found."""
    by_author = {"author": person}
    demonstrations = accepted_demonstrations(project).filter(**by_author).values_list("id", flat=True)
    rankings = usable_rankings(project).filter(**by_author).values_list("id", flat=True)
    judgments = usable_judgments(project).filter(**by_author).values_list("id", flat=True)
    return {
        "demonstrations": [f"demonstration:{pk}" for pk in demonstrations],
        "rankings": [f"ranking:{pk}" for pk in rankings],
        "judgments": [f"judgment:{pk}" for pk in judgments],
    }


def recent_labels(person: User, project: Project, before: datetime | None = None, limit: int = 50) -> list[AnyLabel]:
    """The person's labels of tasks, newest first, that were not taken back; `before` for the next page."""
    labels: list[AnyLabel] = []
    related = {"write": ("response",), "rank": (), "review": ("demonstration__response", "corrected__response")}
    for kind, model in KINDS.items():
        of_kind = model._default_manager.filter(
            author=person, prompt__project=project, retracted_at=None, lease__isnull=False
        ).select_related("prompt__project", "task", "lease", *related[kind])
        if before is not None:
            of_kind = of_kind.filter(created_at__lt=before)
        labels += of_kind.order_by("-created_at", "-id")[:limit]
    return sorted(labels, key=lambda label: label.created_at, reverse=True)[:limit]


def skips(person: User, project: Project, before: datetime | None = None, limit: int = 50) -> list[Lease]:
    """The tasks that the person skipped and did not take up again, newest first; `before` for the next page."""
    newer = Lease.objects.filter(task=OuterRef("task"), person=person, pk__gt=OuterRef("pk"))
    skipped = Lease.objects.filter(
        ~Exists(newer), person=person, outcome=Lease.Outcome.SKIPPED, task__project=project, ended_at__isnull=False
    )
    if before is not None:
        skipped = skipped.filter(ended_at__lt=before)
    return list(skipped.select_related("task__prompt").order_by("-ended_at", "-id")[:limit])


def undoable(labels: Sequence[AnyLabel]) -> set[int | None]:
    """The leases of those labels that their author can still take back: not reviewed, of a task that is not closed."""
    reviewed = set(
        Review.objects.filter(
            demonstration__in=[label.pk for label in labels if isinstance(label, Demonstration)], retracted_at=None
        ).values_list("demonstration", flat=True)
    )
    return {
        label.lease_id
        for label in labels
        if label.task is not None
        and label.task.state in (Task.State.OPEN, Task.State.FULL)
        and not (isinstance(label, Demonstration) and label.pk in reviewed)
    }


def saw_guidelines(lease: Lease, guidelines: Guidelines) -> bool:
    """Whether this person was shown this version with another task before."""
    return Lease.objects.filter(guidelines=guidelines, person=lease.person_id).exclude(pk=lease.pk).exists()


def has_other_tasks(lease: Lease) -> bool:
    """Whether this person had another task of the project in hand before."""
    others = Lease.objects.filter(person=lease.person_id, task__project=lease.task.project_id)
    return others.exclude(pk=lease.pk).exists()


def draft_for(lease: Lease) -> Draft | None:
    return Draft.objects.filter(task_id=lease.task_id, person_id=lease.person_id).first()


def replies_shown(lease: Lease) -> list[Response]:
    """The replies of a rank task in the order this person sees them, without those that were deleted meanwhile."""
    replies = Response.objects.in_bulk(lease.order_shown)
    return [replies[pk] for pk in lease.order_shown if pk in replies]


def unfinished(person: User, project: Project) -> QuerySet[Draft]:
    """The person's drafts of tasks that still can be answered, newest first; each with `lease_id`, the newest lease it
    was written under."""
    newest = Lease.objects.filter(person=person, task=OuterRef("task")).order_by("-id")
    answerable = [Lease.Outcome.HELD, Lease.Outcome.LAPSED, Lease.Outcome.RETURNED]
    drafts = (
        Draft.objects.filter(person=person, task__project=project)
        .exclude(task__state__in=ENDED)
        .annotate(lease_id=Subquery(newest.values("id")[:1]), lease_outcome=Subquery(newest.values("outcome")[:1]))
        .filter(lease_outcome__in=answerable)
    )
    return drafts.select_related("task__prompt").order_by("-updated_at")
