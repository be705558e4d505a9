"""Judges among the rewards that the launch form offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.db.models import Avg, Sum

from webapp.accounts.models import Project
from webapp.judges.models import Judge
from webapp.judges.protocol import PAIRWISE
from webapp.judges.selectors import judges_of
from webapp.runs.reward_fields import KnownServer

BATCH_SECONDS: Final = 600.0  # that a batch of replies may take: the site waits for rate limits within it


def key_of(judge: Judge) -> str:
    """How the launch form names it."""
    return f"judge-{judge.pk}"


def calls_per_reply(judge: Judge) -> int:
    return 2 if judge.mode == PAIRWISE else 1


def servers_of_judges(project: Project) -> Iterator[KnownServer]:
    judges = judges_of(project).annotate(mean_seconds=Avg("calls__seconds"), spent=Sum("calls__cost"))
    for judge in judges:
        mean = judge.mean_seconds
        seconds = None if mean is None else mean * calls_per_reply(judge) / judge.parallel
        about = about_judge(judge, judge.spent or 0.0)
        yield KnownServer(key_of(judge), f"Judge: {judge.name}", about, judge.reward_address, BATCH_SECONDS, seconds)


def about_judge(judge: Judge, spent: float) -> str:
    if judge.mode == PAIRWISE:
        about = (
            "Compares each reply with the reference of its prompt, in both orders: 1 if it is better, 0.5 for a tie, "
            "else 0. Prompts without a reference get nothing."
        )
    else:
        about = "Gives each reply 0 for its lowest score to 1 for its highest."
    if judge.spending_limit is not None:
        return f"{about} ${max(0.0, judge.spending_limit - spent):,.2f} of its spending limit is left."
    if judge.has_prices:
        return f"{about} It has no spending limit; you can set one on its page."
    return about
