"""Starting a sample project, taking it a little further, and taking it up again after a failure."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone

from webapp.accounts.models import User
from webapp.accounts.services import create_project
from webapp.demo.models import Demo
from webapp.demo.people import ADMIN, person
from webapp.demo.plan import PLANS
from webapp.demo.round import Round
from webapp.demo.steps import STEPS
from webapp.errors import BadInput, Conflict, TutelageError
from webapp.locks import lock_alone
from webapp.runs.models import Run
from webapp.runs.services import resume_run
from webapp.wake import send_task

TASK: Final = "webapp.demo.tasks.go_on"
LOCK: Final = 7_113_002  # first key of the advisory lock that one worker holds while it takes a demo further
SILENT_SECONDS: Final = 20  # after which the reconciler takes a demo up that nobody works on
AT_A_TIME: Final = 10.0  # seconds after which a worker lets others have a turn
ABOUT: Final = "A small assistant that knows a few hundred things. Its people are simulated; everything else is real."


@transaction.atomic
def start_demo(*, by: User | None = None, seed: int = 0, size: str = "full") -> Demo:
    """A new sample project, on its way from now on. It belongs to the sample admin, whoever starts it."""
    if size not in PLANS:
        raise BadInput(f"There is no size “{size}”. Choose one of {', '.join(PLANS)}.", field="size")
    plan = PLANS[size]
    admin = person(ADMIN)
    project = create_project(
        user=admin,
        name="Sample assistant",
        description=ABOUT,
        sample=True,
        rank_overlap=plan.rank_overlap,
        review_overlap=0,
        max_new_tokens=plan.sampling["max_new_tokens"],
        temperature=plan.sampling["temperature"],
    )
    demo = Demo.objects.create(project=project, seed=seed, size=size, created_by=by or admin)
    transaction.on_commit(lambda: wake(demo.pk))
    return demo


def wake(demo_id: int, *, after: float = 0.0) -> None:
    """Tell a worker. Where the broker does not answer, the reconciler does it later."""
    send_task(TASK, demo_id, countdown=after or None)


def go_on(*, demo_id: int, seconds: float = AT_A_TIME) -> bool:
    """Take the demo as far as it goes now. True when somebody should look again soon, false when it is over or in
    another worker's hands. What a person must know of a failure is kept; what nobody foresaw is raised again too."""
    with lock_alone(LOCK, demo_id) as mine:
        demo = Demo.objects.select_related("project", "created_by").get(pk=demo_id)
        if not mine or demo.state != Demo.State.RUNNING:
            return False
        until = time.monotonic() + seconds
        try:
            while demo.state == Demo.State.RUNNING and time.monotonic() < until:
                if not take_step(demo):
                    break
        except TutelageError as error:
            fail(demo, error.message)
        except Exception as error:
            said = str(error).rstrip(" .")
            fail(demo, f"Something went wrong that nobody foresaw: {said}. The log of the worker says more.")
            raise
        return demo.state == Demo.State.RUNNING


def take_step(demo: Demo) -> bool:
    """Do the step under way once; true when it is through and the next one can begin."""
    step = STEPS[demo.step]
    if step.key not in demo.began:
        demo.began[step.key] = time.time()
        demo.note, demo.share = "", 0.0
    demo.heartbeat_at = timezone.now()
    demo.save(update_fields=["began", "note", "share", "heartbeat_at"])
    through = step.do(Round(demo))
    demo.refresh_from_db(fields=["note", "share", "report"])
    if through:
        demo.ended[step.key] = time.time()
        demo.step, demo.note, demo.share = demo.step + 1, "", 0.0
        if demo.step == len(STEPS):
            demo.state, demo.finished_at = Demo.State.DONE, timezone.now()
    demo.heartbeat_at = timezone.now()
    demo.save()
    return through


def fail(demo: Demo, message: str) -> None:
    demo.refresh_from_db(fields=["note", "share"])
    demo.state, demo.error = Demo.State.FAILED, message
    demo.save(update_fields=["state", "error"])


@transaction.atomic
def take_up_again(*, demo: Demo, by: User) -> Demo:
    """Go on with a demo that failed, from the step that failed; its failed runs go on from their last checkpoint."""
    demo = Demo.objects.select_for_update(of=("self",)).select_related("project").get(pk=demo.pk)
    if demo.state != Demo.State.FAILED:
        raise Conflict("This sample project has not failed.")
    for run in Run.objects.filter(project=demo.project, state__in=[Run.State.FAILED, Run.State.CANCELLED]):
        resume_run(run=run, by=by)
    demo.state, demo.error, demo.heartbeat_at = Demo.State.RUNNING, "", timezone.now()
    demo.save(update_fields=["state", "error", "heartbeat_at"])
    transaction.on_commit(lambda: wake(demo.pk))
    return demo


def reconcile() -> int:
    """Wake every demo that is under way and in nobody's hands; how many."""
    since = timezone.now() - timedelta(seconds=SILENT_SECONDS)
    silent = Demo.objects.filter(state=Demo.State.RUNNING, heartbeat_at__lt=since).values_list("pk", flat=True)
    for demo_id in silent:
        wake(demo_id)
    return len(silent)
