"""Celery tasks: wake-up calls for judge jobs."""

from __future__ import annotations

from typing import Final

from celery import shared_task

from webapp.judges import erasure, jobs

PAUSE: Final = 0.2  # seconds before the next turn, so that others get one in between


@shared_task
def go_on(job_id: int) -> None:
    """Take a job further, and have it looked at again while it is under way."""
    seconds = jobs.take_turn(job_id)
    if seconds is not None:
        jobs.JOBS.send(job_id, countdown=max(PAUSE, seconds))


@shared_task(expires=30)
def reconcile_judge_jobs() -> int:
    return jobs.reconcile()


@shared_task(expires=600)
def forget_erased_prompts() -> int:
    return erasure.forget_erased()
