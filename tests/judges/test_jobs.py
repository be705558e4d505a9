"""Judging in the background, against an endpoint that answers, is slow, limits, talks nonsense or dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotations.models import Task
from tests import factories
from tests.judges.conftest import evaluate_run, judge_at
from tests.judges.fake import FakeEndpoint, Judgment, Said, prefers, replies_in, winner
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.jobs import Heartbeat
from webapp.judges import jobs
from webapp.judges.asking import spent
from webapp.judges.models import Judge, JudgeAnswer, JudgeCall, JudgeJob
from webapp.judges.services import change_judge, start_agreement, start_comparison, start_try
from webapp.runs.models import Evaluation

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[[Judgment], FakeEndpoint]
PAIRS = [(f"A good answer to number {n}.", f"Bad {n}.") for n in range(6)]


def finish(job: JudgeJob, turns: int = 20) -> JudgeJob:
    """Take turns until it has ended, without waiting for what an endpoint asks for."""
    for _ in range(turns):
        JudgeJob.objects.filter(pk=job.pk).update(wait_until=None)
        jobs.take_turn(job.pk)
        job = JudgeJob.objects.get(pk=job.pk)
        if not job.active:
            return job
    raise AssertionError(f"{job.state}: {job.note}")


def test_two_models_are_compared_in_both_orders(project: Project, ada: User, by_length: FakeEndpoint) -> None:
    model, other = factories.model_version(project), factories.model_version(project)
    run = evaluate_run(project, [*PAIRS, ("Same.", "Same.")], base=model, baseline=True)
    run.baseline = other
    run.save()
    judge = judge_at(by_length, project, price_in=1.0, price_out=10.0)
    job = finish(start_comparison(judge=judge, by=ada, run=run))
    assert (job.state, job.total, job.answered) == ("done", 12, 12)
    assert (job.result["wins"], job.result["ties"], job.result["losses"]) == (6, 1, 0)
    assert job.result["win_rate"]["value"] == pytest.approx(6.5 / 7)
    assert job.result["flips"]["value"] == 0
    assert job.result["longer"]["value"] == 1
    assert by_length.most == 2  # as many at once as the judge's settings say
    assert {body["temperature"] for body in by_length.asked} == {0}
    assert set(by_length.keys) == {"Bearer sk-secret"}
    assert spent(judge) == pytest.approx(12 * (100 * 1.0 + 10 * 10.0) / 1e6)
    figure = Evaluation.objects.get(run=run, model=model, name="Big judge, win rate")
    assert figure.value == pytest.approx(6.5 / 7)
    assert figure.n == 7


def test_whoever_prefers_the_first_place_gets_ties(project: Project, ada: User, endpoint_of: Start) -> None:
    judge = judge_at(endpoint_of(lambda *_: winner("A")), project)
    job = finish(start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS)))
    assert (job.result["ties"], job.result["win_rate"]["value"]) == (6, 0.5)
    assert (job.result["flips"]["value"], job.result["first_place"]["value"]) == (1, 1)


def test_what_is_answered_is_never_asked_again(project: Project, ada: User, by_length: FakeEndpoint) -> None:
    judge, run = judge_at(by_length, project), evaluate_run(project, PAIRS)
    finish(start_comparison(judge=judge, by=ada, run=run))
    again = finish(start_comparison(judge=judge, by=ada, run=run))
    assert (len(by_length.asked), again.result["wins"]) == (12, 6)
    change_judge(judge=judge, rubric="Be brief.")
    finish(start_comparison(judge=Judge.objects.get(pk=judge.pk), by=ada, run=run))
    assert len(by_length.asked) == 24  # by another rubric it is another question


def test_a_worker_that_dies_in_the_middle_costs_nothing_twice(
    project: Project, ada: User, endpoint_of: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = endpoint_of(prefers(len))
    judge = judge_at(endpoint, project, parallel=1)
    job = start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS))

    def die(self: Any, _: Any) -> None:
        if JudgeAnswer.objects.count() == 5:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(jobs.Turn, "count", die)
        with pytest.raises(SystemExit):
            jobs.take_turn(job.pk)
    assert JudgeJob.objects.get(pk=job.pk).claim is not None
    JudgeJob.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    jobs.reconcile()
    assert finish(job).result["wins"] == 6
    asked = [body["messages"][0]["content"] for body in endpoint.asked]
    assert len(asked) == len(set(asked)) == 12


def test_rate_limits_are_waited_for_as_long_as_the_endpoint_asks(
    project: Project, ada: User, endpoint_of: Start
) -> None:
    def limited(question: str, number: int) -> Said:
        if number == 3:
            return Said("Slow down.", 429, {"Retry-After": "77"})
        return prefers(len)(question, number)

    judge = judge_at(endpoint_of(limited), project, parallel=1)
    job = start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS))
    assert jobs.take_turn(job.pk) == 77
    job.refresh_from_db()
    assert job.state == "queued"
    assert "limits the rate" in job.note
    assert existing(job.wait_until) - timezone.now() > timedelta(seconds=70)
    assert jobs.take_turn(job.pk) is None  # not before then
    assert job.answered == 2
    assert finish(job).result["wins"] == 6


@pytest.mark.parametrize("fault", [Said(drop=True), Said("Oh.", 500), Said("Busy.", 429)])
def test_an_outage_is_waited_out_with_longer_pauses(
    project: Project, ada: User, endpoint_of: Start, fault: Said
) -> None:
    endpoint = endpoint_of(lambda question, number: fault if number < 4 else prefers(len)(question, number))
    judge = judge_at(endpoint, project, parallel=1)
    job = start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS))
    pauses = []
    for _ in range(3):
        JudgeJob.objects.filter(pk=job.pk).update(wait_until=None)
        pauses.append(existing(jobs.take_turn(job.pk)))
    assert pauses == sorted(pauses)
    assert pauses[-1] > 5
    assert finish(job).state == "done"


def test_an_endpoint_that_stays_away_ends_the_job_which_can_go_on(
    project: Project, ada: User, endpoint_of: Start
) -> None:
    judge = judge_at(endpoint_of(lambda *_: Said("Oh.", 503)), project)
    job = start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS))
    JudgeJob.objects.filter(pk=job.pk).update(waits=jobs.MAX_WAITS)
    job = finish(job, turns=1)
    assert job.state == "failed"
    assert "Continue when it works again" in job.error
    jobs.go_on_with(job, by=ada)
    job.refresh_from_db()
    assert (job.state, job.error) == ("queued", "")


def test_a_slow_answer_counts_as_an_outage(project: Project, ada: User, endpoint_of: Start) -> None:
    judge = judge_at(endpoint_of(lambda *_: Said("x", seconds=3)), project, timeout=1)
    job = start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", "Because."])
    began = time.monotonic()
    assert jobs.take_turn(job.pk) is not None
    assert time.monotonic() - began < 2.9
    assert "longer than 1 s" in JudgeJob.objects.get(pk=job.pk).note


def test_nonsense_is_asked_again_and_then_counted(project: Project, ada: User, endpoint_of: Start) -> None:
    def judgment(question: str, number: int) -> Said:
        return Said("Who can say?") if "number 3" in question else prefers(len)(question, number)

    endpoint = endpoint_of(judgment)
    judge = judge_at(endpoint, project)
    job = finish(start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS)))
    assert (job.result["judged"], job.result["unusable"], job.result["wins"]) == (5, 1, 5)
    assert len(endpoint.asked) == 10 + 2 * 3
    assert JudgeCall.objects.filter(usable=False).count() == 6
    assert set(JudgeAnswer.objects.filter(verdict="").values_list("reason", flat=True)) == {"Who can say?"}


def test_a_wrong_key_ends_the_job_at_once_and_is_not_repeated(project: Project, ada: User, endpoint_of: Start) -> None:
    endpoint = endpoint_of(lambda *_: Said("Incorrect API key provided: sk-secret", 401))
    job = finish(start_comparison(judge=judge_at(endpoint, project), by=ada, run=evaluate_run(project, PAIRS)))
    assert job.state == "failed"
    assert "rejects the key" in job.error
    assert "sk-secret" not in job.error
    assert len(endpoint.asked) <= 2


def test_parameters_that_newer_models_refuse_are_left_out(project: Project, ada: User, endpoint_of: Start) -> None:
    endpoint: FakeEndpoint

    def picky(question: str, number: int) -> Said:
        body = endpoint.asked[number - 1]
        if "max_tokens" in body:
            return Said("Unsupported parameter: use 'max_completion_tokens' instead.", 400)
        if "temperature" in body:
            return Said("'temperature' does not support 0 with this model.", 400)
        return prefers(len)(question, number)

    endpoint = endpoint_of(picky)
    judge = judge_at(endpoint, project, parallel=1)
    job = finish(start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS)))
    assert (job.state, len(endpoint.asked)) == ("done", 14)


def test_it_stops_before_it_spends_more_than_it_may(project: Project, ada: User, endpoint_of: Start) -> None:
    endpoint = endpoint_of(prefers(len))
    judge = judge_at(endpoint, project, price_in=0.0, price_out=1000.0, max_tokens=100, spending_limit=0.15)
    job = finish(start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS)))
    assert job.state == "failed"
    assert "spending limit of $0.15" in job.error
    assert 0.04 < spent(judge) <= 0.15
    assert job.result["judged"] > 0  # what it has is shown
    change_judge(judge=judge, spending_limit=10.0)
    jobs.go_on_with(job, by=ada)
    assert (finish(job).state, len(endpoint.asked)) == ("done", 12)


def test_it_stops_when_asked_and_goes_on_later(project: Project, ada: User, endpoint_of: Start) -> None:
    slow = [0.4]

    def prefers_slowly(question: str, number: int) -> Said:
        said = prefers(len)(question, number)
        said.seconds = slow[0]
        return said

    endpoint = endpoint_of(prefers_slowly)
    judge = judge_at(endpoint, project, parallel=1)
    job = start_comparison(judge=judge, by=ada, run=evaluate_run(project, PAIRS * 3))
    turn = threading.Thread(target=take_and_close, args=(job.pk,))
    turn.start()
    while not endpoint.asked:
        time.sleep(0.01)
    jobs.request_stop(job)
    turn.join()
    job.refresh_from_db()
    assert job.state == "stopped"
    assert 0 < job.answered < 36
    asked = len(endpoint.asked)
    assert job.answered == asked
    slow[0] = 0.0
    jobs.go_on_with(job, by=ada)
    assert finish(job).state == "done"
    assert len(endpoint.asked) == 36


def test_a_stop_asked_for_before_a_turn_asks_nothing(
    project: Project, ada: User, endpoint_of: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heartbeat, "_send", lambda heartbeat: heartbeat._done.wait())  # its first heartbeat is late
    endpoint = endpoint_of(prefers(len))
    job = start_comparison(judge=judge_at(endpoint, project), by=ada, run=evaluate_run(project, PAIRS))
    jobs.request_stop(job)
    assert finish(job).state == "stopped"
    assert not endpoint.asked


def take_and_close(job_id: int) -> None:
    from django.db import connection

    jobs.take_turn(job_id)
    connection.close()


def test_a_turn_ends_so_that_others_get_one(project: Project, ada: User, by_length: FakeEndpoint) -> None:
    job = start_comparison(judge=judge_at(by_length, project), by=ada, run=evaluate_run(project, PAIRS))
    assert jobs.take_turn(job.pk, seconds=0) == 0.0
    assert JudgeJob.objects.get(pk=job.pk).state == "queued"


def test_scores_have_a_mean_with_an_interval(project: Project, ada: User, endpoint_of: Start) -> None:
    endpoint = endpoint_of(lambda question, _: Said(f'{{"score": {min(10, len(replies_in(question)[0]))}}}'))
    judge = judge_at(endpoint, project, mode="pointwise")
    run = evaluate_run(project, [("1234", ""), ("123456", "")], baseline=False)
    one = finish(start_comparison(judge=judge, by=ada, run=run))
    assert one.kind == "score"
    assert one.result["scores"]["policy"]["value"] == 5
    assert one.result["scores"]["policy"]["low"] == pytest.approx(5 - 1.96, abs=0.01)
    two = finish(start_comparison(judge=judge, by=ada, run=evaluate_run(project, [("1234", "12"), ("123", "123456")])))
    assert (two.result["wins"], two.result["losses"]) == (1, 1)
    assert two.result["flips"] is None


def test_agreement_with_people_by_hand(
    project: Project, ada: User, ann: User, ben: User, by_length: FakeEndpoint
) -> None:
    """Two people agree on three prompts of four; the judge prefers length, which is right in two of the three."""
    for long_wins, apart in ((True, False), (True, False), (False, False), (True, True)):
        prompt = factories.prompt(project)
        replies = [factories.response(prompt, "A rather long reply."), factories.response(prompt, "Short.")]
        task = factories.task(project, Task.Kind.RANK, prompt=prompt, responses=replies)
        order = [[replies[0].pk], [replies[1].pk]]
        order = order if long_wins else order[::-1]
        factories.ranking(project, ann, task=task, groups=order)
        factories.ranking(project, ben, task=task, groups=order[::-1] if apart else order)
    result = finish(start_agreement(judge=judge_at(by_length, project), by=ada, size=50)).result
    assert result["judged"] == 4
    assert result["accuracy"]["value"] == pytest.approx(2 / 3)
    assert result["accuracy"]["n"] == 3
    assert result["agreement"]["value"] == pytest.approx(5 / 8)
    assert result["people"]["agreement"]["value"] == pytest.approx(3 / 4)
    assert result["longer"]["value"] == 1
    assert result["people"]["longer"]["value"] == pytest.approx(2 / 3)
    assert result["kappa"] == pytest.approx(0.0)


def test_an_outside_judge_reads_no_chats_unless_it_may(project: Project, ada: User, by_length: FakeEndpoint) -> None:
    run = evaluate_run(project, PAIRS)
    project.prompts.filter(messages__0__content="Question 0?").update(source="chat")
    project.prompts.filter(messages__0__content="Question 1?").update(withdrawn_at=timezone.now())
    judge = judge_at(by_length, project)
    job = finish(start_comparison(judge=judge, by=ada, run=run))
    assert job.result["left_out"] == {"withdrawn": 1, "from chats": 1}
    assert not any("Question 0?" in body["messages"][0]["content"] for body in by_length.asked)
    change_judge(judge=judge, reads_chats=True)
    assert finish(start_comparison(judge=judge, by=ada, run=run)).result["left_out"] == {"withdrawn": 1}
