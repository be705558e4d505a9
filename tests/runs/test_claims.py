"""One worker at a time, however many messages come and whoever dies."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import pytest
from django.utils import timezone

from tests import factories
from tests.narrowing import existing
from webapp import processes
from webapp.accounts.models import Project
from webapp.jobs import SILENCE, ClaimLost
from webapp.runs.models import Run
from webapp.runs.services import RUNS, claim_run, fail_run, reconcile_runs, requeue_run
from webapp.runs.services.claims import MAX_ATTEMPTS

pytestmark = pytest.mark.django_db
ELSEWHERE = "other-host/0000/1/1"


def dead_process() -> str:
    child = subprocess.Popen(["sleep", "60"])
    name = processes.identity(child.pid)
    child.kill()
    child.wait()
    return name


def test_a_message_that_comes_twice_claims_once(project: Project) -> None:
    run = factories.run(project)
    assert claim_run(run_id=run.pk, worker=ELSEWHERE) is not None
    assert claim_run(run_id=run.pk, worker=ELSEWHERE) is None


def test_a_run_that_was_stopped_while_it_waited_is_not_claimed(project: Project) -> None:
    run = factories.run(project, state=Run.State.CANCELLED)
    assert claim_run(run_id=run.pk, worker=ELSEWHERE) is None


def test_a_run_whose_heart_stopped_goes_back_in_the_queue(project: Project) -> None:
    run = existing(claim_run(run_id=factories.run(project).pk, worker=ELSEWHERE))
    assert reconcile_runs(timezone.now() + SILENCE / 2)["taken_back"] == 0
    assert reconcile_runs(timezone.now() + SILENCE * 2)["taken_back"] == 1
    run.refresh_from_db()
    assert (run.state, run.attempts) == (Run.State.QUEUED, 1)


def test_a_run_whose_worker_died_on_this_machine_is_taken_back_at_once(project: Project) -> None:
    claim_run(run_id=factories.run(project).pk, worker=dead_process())
    assert reconcile_runs()["taken_back"] == 1


def test_a_run_of_a_living_worker_is_left_alone(project: Project) -> None:
    run = existing(claim_run(run_id=factories.run(project).pk, worker=processes.identity()))
    assert reconcile_runs()["taken_back"] == 0
    RUNS.beat(run)


def test_who_lost_the_claim_can_write_nothing(project: Project) -> None:
    first = existing(claim_run(run_id=factories.run(project).pk, worker=ELSEWHERE))
    reconcile_runs(timezone.now() + SILENCE * 2)
    second = existing(claim_run(run_id=first.pk, worker=ELSEWHERE))
    for write in (lambda: RUNS.beat(first), lambda: fail_run(first, "late"), lambda: requeue_run(first, "late")):
        with pytest.raises(ClaimLost):
            write()  # type: ignore[no-untyped-call]
    second.refresh_from_db()
    assert (second.state, second.error) == (Run.State.CLAIMED, "")


def test_a_run_that_keeps_losing_its_worker_fails_with_a_sentence(project: Project) -> None:
    pk = factories.run(project).pk
    for _ in range(MAX_ATTEMPTS):
        claim_run(run_id=pk, worker=dead_process())
        reconcile_runs()
    run = Run.objects.get(pk=pk)
    assert (run.state, run.error_code) == (Run.State.FAILED, "too_many_attempts")
    assert run.error.startswith("The worker that ran this disappeared. This happened 5 times")


def test_a_run_that_was_to_stop_and_lost_its_worker_is_stopped(project: Project) -> None:
    run = factories.run(project, stop_requested_at=timezone.now())
    claim_run(run_id=run.pk, worker=dead_process())
    reconcile_runs()
    run.refresh_from_db()
    assert run.state == Run.State.CANCELLED


def test_a_lost_message_is_sent_again_but_not_without_end(project: Project) -> None:
    runs = [factories.run(project) for _ in range(2)]
    now = timezone.now()
    sent = reconcile_runs(now)["announced"]
    again = reconcile_runs(now)["announced"]
    later = [reconcile_runs(now + timedelta(minutes=minute))["announced"] for minute in range(1, 20)]
    assert again == 0
    assert sent + sum(later) <= 2 * len(runs), "messages pile up while no worker takes them"


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = processes.identity()
    assert processes.is_alive(me)
    assert not processes.is_alive(f"{processes.this_host()}/{os.getpid()}/1")
    assert not processes.is_here(ELSEWHERE)
    assert not processes.is_alive(dead_process())
