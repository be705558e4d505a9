"""Removing people's words for good: prompts and labels keep their ids, so that models can still be traced to them, and
lose every text.

A prompt that is erased takes along what others wrote about it: their replies and comments answer words that are gone,
and often repeat them. See docs/decisions/deletion.md.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Coalesce

from annotations.models import Demonstration, Draft, Judgment, Lease, Prompt, Ranking, Response, Review, Task
from annotations.services.tasks import withdraw_tasks

ERASED: Final = "Deleted by the person who wrote it."
Rows = dict[str, list[int]]
"""Ids of training rows by the kind of snapshot that holds them."""


@transaction.atomic
def erase_prompts(*, prompts: Collection[int], now: datetime) -> Rows:
    """Remove these prompts' words and everything said about them. Returns the rows that training may have read.

    Tasks are locked before anything is read, and a submission locks its task too: what is sent at the same moment is
    either erased here or refused.
    """
    erase_work(Task.objects.filter(prompt__in=prompts), now)
    rows = {"prompts": sorted(prompts)} | erase_labels_of(Q(prompt__in=prompts), now)
    Response.objects.filter(prompt__in=prompts).update(text="", sampling={})
    for prompt in Prompt.objects.select_for_update(of=("self",)).filter(pk__in=prompts):
        prompt.messages = [{"role": "user", "content": ERASED}]
        prompt.digest = hashlib.sha256(f"erased prompt {prompt.pk}".encode()).hexdigest()
        prompt.source_ref, prompt.reference, prompt.data = "", None, None
        prompt.withdrawn_at, prompt.erased_at = prompt.withdrawn_at or now, now
        prompt.save(
            update_fields=["messages", "digest", "source_ref", "reference", "data", "withdrawn_at", "erased_at"]
        )
    return rows


@transaction.atomic
def erase_labels(
    *, demonstrations: Collection[int], rankings: Collection[int], judgments: Collection[int], now: datetime
) -> Rows:
    """Remove single labels of prompts that stay, with what was made of them: reviews, corrections, rankings of the
    replies. Returns the rows that training may have read."""
    corrections = Review.objects.filter(demonstration__in=demonstrations).values_list("corrected", flat=True)
    written = {*demonstrations, *(pk for pk in corrections if pk is not None)}
    replies = list(Demonstration.objects.filter(pk__in=written).values_list("response", flat=True))
    ranked = Ranking.objects.filter(task__responses__in=replies).values_list("pk", flat=True)
    erase_work(Task.objects.filter(Q(demonstration__in=written) | Q(responses__in=replies)).distinct(), now)
    rows = erase_labels_of(Q(pk__in=written), now, only="demonstrations")
    erase_labels_of(Q(demonstration__in=written), now, only="reviews")
    rows |= erase_labels_of(Q(pk__in={*rankings, *ranked}), now, only="rankings")
    rows |= erase_labels_of(Q(pk__in=judgments) | Q(response__in=replies), now, only="judgments")
    Response.objects.filter(pk__in=replies).update(text="", sampling={})
    return rows


LABELS: Final[dict[str, tuple[type[Any], dict[str, Any]]]] = {
    "demonstrations": (Demonstration, {}),
    "rankings": (Ranking, {"reason": ""}),
    "judgments": (Judgment, {}),
    "reviews": (Review, {"comment": ""}),
}


def erase_labels_of(which: Q, now: datetime, only: str = "") -> Rows:
    """Take labels back and remove their texts. Reviews are no training rows, so they are not among those returned."""
    rows: Rows = defaultdict(list)
    for kind, (model, texts) in LABELS.items():
        if only in ("", kind):
            labels = model._default_manager.filter(which)
            ids = sorted(labels.order_by().values_list("pk", flat=True).distinct())
            model._default_manager.filter(pk__in=ids).update(
                retracted_at=Coalesce("retracted_at", Value(now)), erased_at=now, source_ref="", **texts
            )
            if kind != "reviews":
                rows[kind] = ids
    return dict(rows)


def erase_work(tasks: QuerySet[Task], now: datetime) -> None:
    """Ask nobody anymore, and forget what was begun: drafts, and the reasons why people passed a task over."""
    ids = list(
        Task.objects.filter(pk__in=tasks.values("pk")).select_for_update(of=("self",)).values_list("pk", flat=True)
    )
    withdraw_tasks(tasks=Task.objects.filter(pk__in=ids), now=now)
    Draft.objects.filter(task__in=ids).delete()
    Lease.objects.filter(task__in=ids).exclude(skip_reason="").update(skip_reason="")
