"""What is asked of people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotations.models import Demonstration, Lease, Prompt, Response, Task
from annotations.selectors import unasked_prompts
from webapp.accounts.models import Project
from webapp.errors import BadInput

MOST_REPLIES: Final = 9  # one digit key each
BATCH: Final = 2000


def overlap_wanted(project: Project, kind: Task.Kind) -> int:
    """How many people's labels a task of this kind wants, as the project's settings say."""
    by_kind = {
        Task.Kind.WRITE: project.write_overlap,
        Task.Kind.RANK: project.rank_overlap,
        Task.Kind.REVIEW: project.review_overlap,
    }
    return max(1, by_kind[kind])


def open_write_task(*, prompt: Prompt, priority: int = 0, overlap: int | None = None, source_ref: str = "") -> Task:
    return open_write_tasks(prompts=[prompt], priority=priority, overlap=overlap, source_ref=source_ref)[0]


@transaction.atomic
def open_write_tasks(
    *, prompts: Sequence[Prompt], priority: int = 0, overlap: int | None = None, source_ref: str = ""
) -> list[Task]:
    """A task for each prompt; all of one project."""
    return [
        *Task.objects.bulk_create(
            _task(prompt, Task.Kind.WRITE, priority=priority, overlap=overlap, source_ref=source_ref)
            for prompt in prompts
        )
    ]


@transaction.atomic
def open_missing_write_tasks(*, prompts: QuerySet[Prompt], priority: int = 0, source_ref: str = "") -> list[Task]:
    """A task for each of these prompts that is in use and has none: nobody has been asked to reply to it.

    The prompts are locked meanwhile, so that two requests at once do not ask twice.
    """
    ids = list(prompts.order_by("id").select_for_update(of=("self",)).values_list("id", flat=True))
    missing = unasked_prompts(Prompt.objects.filter(pk__in=ids)).select_related("project").order_by("id")
    return open_write_tasks(prompts=list(missing), priority=priority, source_ref=source_ref)


def open_rank_task(
    *,
    prompt: Prompt,
    responses: Sequence[Response],
    priority: int = 0,
    overlap: int | None = None,
    source_ref: str = "",
) -> Task:
    if any(response.prompt_id != prompt.pk for response in responses):
        raise BadInput("Replies to rank must all answer the same prompt.")
    return open_rank_tasks(sets=[responses], priority=priority, overlap=overlap, source_ref=source_ref)[0]


@transaction.atomic
def open_rank_tasks(
    *,
    sets: Sequence[Sequence[Response]],
    priority: int = 0,
    overlap: int | None = None,
    source_ref: str = "",
    for_training: bool = True,
) -> list[Task]:
    """A task for each set of two to nine different replies to one prompt."""
    for responses in sets:
        if not 2 <= len({response.pk for response in responses}) == len(responses) <= MOST_REPLIES:
            raise BadInput(f"A ranking needs 2 to {MOST_REPLIES} different replies; this set has {len(responses)}.")
        if len({response.prompt_id for response in responses}) > 1:
            raise BadInput("Replies to rank must all answer the same prompt.")
    prompts = Prompt.objects.select_related("project").in_bulk({responses[0].prompt_id for responses in sets})
    tasks = Task.objects.bulk_create(
        _task(
            prompts[responses[0].prompt_id],
            Task.Kind.RANK,
            priority=priority,
            overlap=overlap,
            source_ref=source_ref,
            for_training=for_training,
        )
        for responses in sets
    )
    shows = Task.responses.through
    shows.objects.bulk_create(
        (shows(task_id=task.pk, response_id=r.pk) for task, rs in zip(tasks, sets, strict=True) for r in rs),
        batch_size=BATCH,
    )
    return tasks


@transaction.atomic
def open_review_task(
    *, demonstration: Demonstration, priority: int = 0, overlap: int | None = None, source_ref: str = ""
) -> Task:
    task = _task(demonstration.prompt, Task.Kind.REVIEW, priority=priority, overlap=overlap, source_ref=source_ref)
    task.demonstration = demonstration
    task.save()
    return task


def _task(
    prompt: Prompt,
    kind: Task.Kind,
    *,
    priority: int,
    overlap: int | None,
    source_ref: str,
    for_training: bool = True,
) -> Task:
    if prompt.withdrawn_at is not None:
        raise BadInput("This prompt was withdrawn; nothing more can be asked about it.")
    return Task(
        project=prompt.project,
        kind=kind,
        prompt=prompt,
        overlap=overlap or overlap_wanted(prompt.project, kind),
        priority=priority,
        source_ref=source_ref[:300],
        for_training=for_training,
    )


@transaction.atomic
def withdraw_tasks(*, tasks: QuerySet[Task], now: datetime | None = None) -> int:
    """Hand these tasks to nobody anymore. Work in hand may still be sent in and is kept. Those that are closed stay so.
    Returns how many."""
    return take_from_people(tasks.filter(state__in=[Task.State.OPEN, Task.State.FULL]), Task.State.WITHDRAWN, now)


def take_from_people(tasks: QuerySet[Task], state: Task.State, now: datetime | None) -> int:
    """Give the tasks a state in which nobody has them; how many."""
    ids = list(tasks.select_for_update(of=("self",)).values_list("id", flat=True))
    Lease.objects.filter(task_id__in=ids, outcome=Lease.Outcome.HELD).update(
        outcome=Lease.Outcome.RETURNED, seat=None, ended_at=now or timezone.now()
    )
    return Task.objects.filter(id__in=ids).update(state=state)
