"""Starting a sample project, taking it a little further, and taking it up again after a failure."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from webapp.accounts.models import User
from webapp.accounts.services import create_project
from webapp.demo.models import Demo
from webapp.demo.people import ADMIN, sample_user
from webapp.demo.plan import PLANS
from webapp.demo.round import Round
from webapp.demo.steps import STEPS
from webapp.errors import BadInput, Conflict, TutelageError
from webapp.jobs import ClaimLost, Heartbeat, JobQueue
from webapp.runs.models import Run
from webapp.runs.services import resume_run

DEMOS: Final = JobQueue(Demo, (Demo.State.RUNNING,), task="webapp.demo.tasks.go_on")
TURN_SECONDS: Final = 10.0  # after which a worker lets others have a turn
MAX_ATTEMPTS: Final = 5
ABOUT: Final = "A small assistant that knows a few hundred things. Its people are simulated; everything else is real."


@transaction.atomic
def start_demo(*, by: User | None = None, seed: int = 0, size: str = "full") -> Demo:
    """A new sample project, on its way from now on. It belongs to the sample admin, whoever starts it."""
    if size not in PLANS:
        raise BadInput(f"There is no size “{size}”. Choose one of {', '.join(PLANS)}.", field="size")
    plan = PLANS[size]
    admin = sample_user(ADMIN)
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
    DEMOS.wake(demo)
    return demo


def take_turn(*, demo_id: int, seconds: float = TURN_SECONDS) -> bool:
    """Take the demo as far as it goes in one turn. True when somebody should look again soon, false when it is over or
    another worker has it. What a person must know of a failure is kept; an unexpected error is raised again too."""
    demo = DEMOS.claim(demo_id)
    if demo is None:
        return False
    turn_ends = time.monotonic() + seconds
    with Heartbeat(DEMOS, demo):
        try:
            while take_step(demo) and demo.state == Demo.State.RUNNING and time.monotonic() < turn_ends:
                pass  # one step at least: however slow the machine, the demo gets further
            if demo.state == Demo.State.RUNNING:
                DEMOS.release(demo, attempts=0)
        except ClaimLost:
            return False
        except TutelageError as error:
            fail_demo(demo, error.message)
        except Exception as error:
            words = str(error).rstrip(" .")
            fail_demo(demo, f"Something unexpected went wrong: {words}. The worker's log has the details.")
            raise
    return demo.state == Demo.State.RUNNING


def take_step(demo: Demo) -> bool:
    """Do the step under way once; true when it is through and the next one can begin. Raises ClaimLost."""
    step = STEPS[demo.step]
    if step.key not in demo.began:
        DEMOS.update(demo, began=demo.began | {step.key: time.time()}, note="", share=0.0)
    through = step.do(Round(demo))
    if through:
        values: dict[str, Any] = {"ended": demo.ended | {step.key: time.time()}, "step": demo.step + 1}
        if demo.step + 1 == len(STEPS):
            values |= {"state": Demo.State.DONE, "finished_at": timezone.now(), "claim": None}
        DEMOS.update(demo, note="", share=0.0, **values)
    return through


def fail_demo(demo: Demo, message: str) -> None:
    DEMOS.end(demo, state=Demo.State.FAILED, error=message)


@transaction.atomic
def resume_demo(*, demo: Demo, by: User) -> Demo:
    """Go on with a demo that failed, from the step that failed; its failed runs go on from their last checkpoint."""
    demo = Demo.objects.select_for_update(of=("self",)).select_related("project").get(pk=demo.pk)
    if demo.state != Demo.State.FAILED:
        raise Conflict("This sample project has not failed.")
    for run in Run.objects.filter(project=demo.project, state__in=[Run.State.FAILED, Run.State.CANCELLED]):
        resume_run(run=run, by=by)
    demo.state, demo.error, demo.claim, demo.attempts = Demo.State.RUNNING, "", None, 0
    demo.save(update_fields=["state", "error", "claim", "attempts"])
    DEMOS.wake(demo)
    return demo


def reconcile_demos(now: datetime | None = None) -> int:
    """Wake every demo that is under way and that nobody works on; how many."""
    now = now or timezone.now()
    DEMOS.take_back(requeue_demo, now=now)
    return DEMOS.announce(now=now)


def requeue_demo(demo: Demo) -> None:
    if demo.attempts >= MAX_ATTEMPTS:
        fail_demo(demo, f"The worker died {demo.attempts} times in this step. The log of the worker may say why.")
    else:
        DEMOS.release(demo, woken_at=None)
