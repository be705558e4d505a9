"""Judging in the background: jobs that a worker of the site takes, in turns, until nothing is left to ask."""

from __future__ import annotations

import logging
import random
import time
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from webapp.accounts.models import User
from webapp.errors import Conflict, TutelageError, Unavailable
from webapp.jobs import ClaimLost, Heartbeat, JobQueue
from webapp.judges.asking import OverLimit, ask_all, known_answers
from webapp.judges.endpoint import Endpoint, Pause, Refused
from webapp.judges.items import Items, items_of
from webapp.judges.models import Judge, JudgeAnswer, JudgeJob
from webapp.judges.protocol import Question, Setup
from webapp.judges.results import summarize
from webapp.runs.models import Evaluation

log = logging.getLogger(__name__)

State = JudgeJob.State
JOBS: Final = JobQueue(JudgeJob, JudgeJob.ACTIVE, task="webapp.judges.tasks.go_on")
TURN_SECONDS: Final = 30.0  # after which a worker lets others have a turn
PROGRESS_SECONDS: Final = 1.0  # between writes of how far a job is
MAX_ATTEMPTS: Final = 5
FIRST_WAIT, MAX_WAIT = 2.0, 600.0  # seconds
MAX_WAITS: Final = 20  # in a row without an answer: about two and a half hours
OVER_LIMIT: Final = (
    "The judge has reached its spending limit of ${limit:,.2f}: the next answers could go beyond it. Raise the limit "
    "on the judge's page, then continue; the answers so far are kept."
)


def take_turn(job_id: int, *, seconds: float = TURN_SECONDS) -> float | None:
    """Take a job as far as it goes in one turn. Seconds after which somebody should look again; None when it is over or
    another worker has it."""
    due = JudgeJob.objects.filter(pk=job_id).values_list("wait_until", flat=True).first()
    if due is not None and due > timezone.now():
        return None  # the message that was sent for then comes, or the reconciler's
    job = JOBS.claim(job_id, state=State.RUNNING)
    if job is None:
        return None
    try:
        with Heartbeat(JOBS, job) as heartbeat:
            return Turn(job, heartbeat, time.monotonic() + seconds).take()
    except ClaimLost:
        return None


class Turn:
    """One worker's turn with a job that it has claimed."""

    def __init__(self, job: JudgeJob, heartbeat: Heartbeat[JudgeJob], ends: float) -> None:
        self.job, self.heartbeat, self.ends = job, heartbeat, ends
        self.setup = Setup(**job.setup)
        self.items = Items([], {})
        self.answered = 0
        self.written = 0.0

    def take(self) -> float | None:
        job = self.job
        try:
            self.items = items_of(job)
            return self.ask()
        except Pause as pause:
            return self.wait(pause)
        except Unavailable as error:
            return self.wait(Pause(error.message))
        except Refused as error:
            self.end(State.FAILED, error.message)
        except OverLimit:
            self.end(State.FAILED, OVER_LIMIT.format(limit=job.judge.spending_limit or 0.0))
        except TutelageError as error:
            self.end(State.FAILED, error.message)
        except ClaimLost:
            raise
        except Exception:
            JOBS.end(
                job, state=State.FAILED, error="Something unexpected went wrong; the worker's log has the details.",
                finished_at=timezone.now(),
            )  # fmt: skip
            raise
        return None

    def ask(self) -> float | None:
        job, judge = self.job, Judge.objects.select_related("project", "own_model__project").get(pk=self.job.judge_id)
        job.judge = judge
        if setup_of(judge, rubric=self.setup.rubric) != self.setup:
            raise Conflict("The judge has another endpoint, model or question than when this began. Begin a new one.")
        questions = [question for item in self.items.items for question in item.questions(self.setup)]
        questions = list({question.key(self.setup): question for question in questions}.values())
        answers_by_key = known_answers(judge, self.setup, questions)
        self.answered = len(answers_by_key)
        JOBS.update(job, total=len(questions), answered=self.answered, note="", wait_until=None)
        if self.heartbeat.stop_requested():
            self.heartbeat.stop.set()  # asked for before this turn, which the first heartbeat may not have seen yet
        if self.answered == len(questions) or self.ask_rest(judge, questions):
            self.end(State.DONE)
            return None
        if self.heartbeat.stop_requested():
            self.end(State.STOPPED)
            return None
        JOBS.release(job, state=State.QUEUED, attempts=0, answered=self.answered)
        return 0.0

    def ask_rest(self, judge: Judge, questions: list[Question]) -> bool:
        with Endpoint.of(judge) as endpoint:
            return ask_all(
                judge, self.setup, questions, endpoint=endpoint, stop=self.is_over, answered=self.count, job=self.job
            )

    def is_over(self) -> bool:
        return self.heartbeat.stop.is_set() or self.heartbeat.lost.is_set() or time.monotonic() > self.ends

    def count(self, _: JudgeAnswer) -> None:
        self.answered += 1
        if time.monotonic() - self.written > PROGRESS_SECONDS:
            JOBS.update(self.job, answered=self.answered, waits=0, attempts=0)
            self.written = time.monotonic()

    def wait(self, pause: Pause) -> float | None:
        """Give the job back until the endpoint may answer again: as long as it asks for, else longer each time."""
        if self.heartbeat.stop_requested():
            self.end(State.STOPPED)
            return None
        waits = 1 if self.answered > self.job.answered else self.job.waits + 1
        if waits > MAX_WAITS:
            self.end(State.FAILED, f"{pause.message} It was tried {MAX_WAITS} times. Continue when it works again.")
            return None
        seconds = pause.seconds
        if seconds is None:
            seconds = min(MAX_WAIT, FIRST_WAIT * 2 ** (waits - 1)) * random.uniform(0.75, 1.0)
        JOBS.release(
            self.job,
            state=State.QUEUED,
            answered=max(self.answered, self.job.answered),
            attempts=0,
            waits=waits,
            note=pause.message[:500],
            wait_until=timezone.now() + timedelta(seconds=seconds),
        )
        return seconds

    def end(self, state: str, error: str = "") -> None:
        """Write what there is: also a job that was stopped or failed has a result, of what was answered."""
        questions = [question for item in self.items.items for question in item.questions(self.setup)]
        answers = known_answers(self.job.judge, self.setup, questions)
        result = summarize(self.job, self.setup, self.items, answers)
        with transaction.atomic():
            JOBS.end(
                self.job, state=state, error=error, result=result, answered=len(answers), note="", wait_until=None,
                finished_at=timezone.now(),
            )  # fmt: skip
            if state == State.DONE:
                record_figures(self.job, result)


def record_figures(job: JudgeJob, result: dict[str, Any]) -> None:
    """The judge's figures stand among those of the models that it judged."""
    if job.run is None:
        return
    shares = {(job.run.base, "win rate"): result.get("win_rate")}
    shares[job.run.base, "length-controlled win rate"] = result.get("length_controlled")
    for side, model in (("policy", job.run.base), ("baseline", job.run.baseline)):
        shares[model, "mean score"] = shares.get((model, "mean score")) or result.get("scores", {}).get(side)
    for (model, name), share in shares.items():
        if model is not None and share:
            Evaluation.objects.update_or_create(
                run=job.run,
                model=model,
                name=f"{job.judge.name[:40]}, {name}",
                defaults={name: share[name] for name in ("value", "low", "high", "n")},
            )


def setup_of(judge: Judge, *, rubric: str = "") -> Setup:
    """What the judge would be asked by now; `rubric` in place of its own."""
    own = judge.own_model
    return Setup(
        address=f"model:{own.pk}" if own else judge.address,
        model=own.served_name if own else judge.model,
        mode=judge.mode,
        rubric=rubric or rubric_of(judge),
    )


def rubric_of(judge: Judge) -> str:
    """Its own, else the project's newest guidelines. Raises Conflict if there is neither."""
    newest = judge.project.guidelines.order_by("-version").values_list("text", flat=True).first()
    rubric = judge.rubric.strip() or (newest or "").strip()
    if not rubric:
        raise Conflict("The judge has no rubric and the project no guidelines: say what makes a reply good first.")
    return rubric


# ------------------------------------------------------------------------------------- stopping, continuing, reviving


@transaction.atomic
def request_stop(job: JudgeJob) -> None:
    """Raises Conflict if it has ended."""
    job = JudgeJob.objects.select_for_update(of=("self",)).get(pk=job.pk)
    if not job.active:
        raise Conflict("This has ended already.")
    job.stop_requested_at = job.stop_requested_at or timezone.now()
    job.wait_until = None  # whoever takes it next ends it, with a result of what is answered
    job.save(update_fields=["stop_requested_at", "wait_until"])
    if job.claim is None:
        JOBS.wake(job)


@transaction.atomic
def go_on_with(job: JudgeJob, *, by: User) -> None:
    """Continue what was stopped or failed: nothing that is answered is asked again. Raises Conflict."""
    job = JudgeJob.objects.select_for_update(of=("self",)).get(pk=job.pk)
    if job.state not in (State.STOPPED, State.FAILED):
        raise Conflict("This goes on already, or is done.")
    values: dict[str, Any] = {
        "state": State.QUEUED, "error": "", "note": "", "stop_requested_at": None, "finished_at": None,
        "wait_until": None, "waits": 0, "attempts": 0, "claim": None,
    }  # fmt: skip
    JudgeJob.objects.filter(pk=job.pk).update(**values)
    log.info("judge job %s continued by %s", job.pk, by.pk)
    JOBS.wake(job)


def reconcile(now: datetime | None = None) -> int:
    """Take back jobs whose worker died, and send for those that nobody works on; how many."""
    now = now or timezone.now()
    JOBS.take_back(requeue, now=now)
    return JOBS.announce(now=now)


def requeue(job: JudgeJob) -> None:
    if job.attempts >= MAX_ATTEMPTS:
        JOBS.end(
            job, state=State.FAILED, finished_at=timezone.now(),
            error=f"The worker died {job.attempts} times in a row over this. Its log may say why.",
        )  # fmt: skip
    else:
        JOBS.release(job, woken_at=None, state=State.QUEUED)
