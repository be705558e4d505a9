"""A sample project starts, goes on step by step, is taken up again, and is never in two workers' hands."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from annotations.models import Demonstration, Ranking, Response, Task
from annotations.services.tasks import open_rank_tasks
from webapp import jobs
from webapp.accounts.models import Role, User
from webapp.datasets.models import Document
from webapp.demo import labeling, services, steps
from webapp.demo.models import Demo
from webapp.demo.people import new_logins, sample_user
from webapp.demo.round import Round
from webapp.demo.rubric import gold_score
from webapp.errors import BadInput, Conflict
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def demo() -> Demo:
    return services.start_demo(seed=1, size="quick")


@pytest.fixture
def round_(demo: Demo) -> Round:
    return Round(demo)


def test_a_demo_belongs_to_the_sample_admin_and_is_marked(demo: Demo) -> None:
    assert demo.project.sample
    assert demo.project.memberships.get(role=Role.OWNER).user.email == "admin@sample.example"
    assert demo.project.memberships.get(role=Role.OWNER).user.simulated


def test_there_is_no_size_but_those_planned() -> None:
    with pytest.raises(BadInput, match="There is no size “huge”"):
        services.start_demo(size="huge")


def test_a_second_demo_is_a_project_of_its_own(demo: Demo) -> None:
    other = services.start_demo(seed=2, size="quick")
    assert other.project.slug != demo.project.slug


def test_somebody_elses_address_is_never_taken_over() -> None:
    User.objects.create_user("admin@sample.example", "secret", name="A real person")
    with pytest.raises(Conflict, match="belongs to somebody"):
        services.start_demo(size="quick")


def test_the_first_steps_lead_to_a_waiting_run(demo: Demo) -> None:
    assert services.take_turn(demo_id=demo.pk, seconds=60)
    demo.refresh_from_db()
    assert steps.STEPS[demo.step].key == "corpus"
    assert Run.objects.get(project=demo.project).state == Run.State.QUEUED
    assert Document.objects.filter(corpus__project=demo.project).count() > 200
    assert set(demo.project.memberships.values_list("role", flat=True)) == {Role.OWNER, Role.ANNOTATOR, Role.TESTER}


def test_going_on_twice_makes_nothing_twice(demo: Demo) -> None:
    services.take_turn(demo_id=demo.pk, seconds=60)
    documents = Document.objects.count()
    Demo.objects.filter(pk=demo.pk).update(step=0)
    services.take_turn(demo_id=demo.pk, seconds=60)
    assert Document.objects.count() == documents
    assert Run.objects.filter(project=demo.project).count() == 1


def test_a_failed_run_fails_the_demo_with_its_sentence(demo: Demo) -> None:
    services.take_turn(demo_id=demo.pk, seconds=60)
    Run.objects.filter(project=demo.project).update(state=Run.State.FAILED, error="The disk is full.")
    assert not services.take_turn(demo_id=demo.pk)
    demo.refresh_from_db()
    assert demo.state == Demo.State.FAILED
    assert "The disk is full." in demo.error


def test_a_failed_demo_is_taken_up_where_it_stopped(demo: Demo) -> None:
    services.take_turn(demo_id=demo.pk, seconds=60)
    Run.objects.filter(project=demo.project).update(state=Run.State.FAILED, error="The disk is full.")
    services.take_turn(demo_id=demo.pk)
    again = services.resume_demo(demo=demo, by=sample_user("admin"))
    assert again.state == Demo.State.RUNNING
    assert Run.objects.get(project=demo.project).state == Run.State.QUEUED
    assert services.take_turn(demo_id=demo.pk)


def test_only_a_failed_demo_is_taken_up_again(demo: Demo) -> None:
    with pytest.raises(Conflict):
        services.resume_demo(demo=demo, by=sample_user("admin"))


def test_what_nobody_foresaw_is_kept_and_raised(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Round) -> bool:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(services, "STEPS", (steps.STEPS[0]._replace(do=breaks),))
    with pytest.raises(ZeroDivisionError):
        services.take_turn(demo_id=demo.pk)
    demo.refresh_from_db()
    assert "by nought" in demo.error


def test_the_reconciler_wakes_only_what_is_in_nobodys_hands(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    monkeypatch.setattr(jobs, "send_task", lambda _, pk, **__: not woken.append(pk))
    now = timezone.now()
    assert services.reconcile_demos(now) == 0
    assert services.reconcile_demos(now + timedelta(minutes=1)) == 1
    assert woken == [demo.pk]
    Demo.objects.filter(pk=demo.pk).update(woken_at=None)
    assert services.DEMOS.claim(demo.pk, worker="other-host/0000/1/1") is not None
    assert services.reconcile_demos(now + jobs.SILENCE / 2) == 0
    assert services.reconcile_demos(now + jobs.SILENCE * 2) == 1
    assert woken == [demo.pk, demo.pk]


def test_a_demo_that_keeps_losing_its_worker_fails(demo: Demo) -> None:
    for attempt in range(services.MAX_ATTEMPTS):
        assert services.DEMOS.claim(demo.pk, worker="other-host/0000/1/1") is not None, attempt
        services.reconcile_demos(timezone.now() + jobs.SILENCE * 2)
    demo.refresh_from_db()
    assert (demo.state, demo.error) == (
        Demo.State.FAILED,
        "The worker died 5 times in this step. The log of the worker may say why.",
    )


def test_new_logins_let_the_sample_people_in() -> None:
    for login in new_logins():
        assert User.objects.get(email=login.email).check_password(login.password)


@pytest.mark.django_db(transaction=True)
def test_a_worker_and_the_command_that_make_the_same_person_at_once_get_the_same_one() -> None:
    gate = threading.Barrier(4)

    def make(_: int) -> int:
        try:
            with transaction.atomic():
                gate.wait()
                return sample_user("annotator").pk
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make, range(4)))) == 1


def test_the_crowd_writes_at_the_desk_and_the_rest_is_imported(round_: Round) -> None:
    steps.join_people(round_)
    while not steps.collect_demonstrations(round_):
        pass
    made = Demonstration.objects.filter(prompt__project=round_.project)
    assert made.filter(task__isnull=False).count() == round_.plan.written
    assert made.count() == round_.plan.sizes.demonstrations + round_.plan.sizes.heldout_demonstrations
    assert set(made.values_list("state", flat=True)) == {Demonstration.State.ACCEPTED}
    assert made.filter(prompt__split="heldout").count() == round_.plan.sizes.heldout_demonstrations


@pytest.fixture
def ranked(round_: Round) -> list[Ranking]:
    """Six sets of four replies, each ranked by two simulated people."""
    steps.join_people(round_)
    cases = round_.world.rank[:6]
    sets = []
    for prompt, case in zip(round_.prompts(cases), cases, strict=True):
        texts = [case.right, f"{case.right} Now leave me alone.", "I do not know.", ""]
        sets.append(Response.objects.bulk_create([Response(prompt=prompt, text=text) for text in texts]))
    open_rank_tasks(sets=sets, overlap=2)
    assert labeling.work(round_, Task.Kind.RANK, seconds=60)
    return list(Ranking.objects.filter(prompt__project=round_.project))


def test_every_set_is_ranked_by_as_many_as_its_task_wants(round_: Round, ranked: list[Ranking]) -> None:
    assert len(ranked) == 6 * 2
    assert not Task.objects.filter(project=round_.project, state=Task.State.OPEN).exists()


def test_rankings_follow_the_rubric_more_often_than_not(round_: Round, ranked: list[Ranking]) -> None:
    right = 0
    for ranking in ranked:
        case = round_.case(ranking.prompt)
        assert case is not None
        texts = dict(Response.objects.filter(prompt=ranking.prompt).values_list("pk", "text"))
        best = max(texts, key=lambda pk: gold_score(case, texts[pk]))
        right += best in ranking.groups[0]
    assert right / len(ranked) > 0.6


def test_what_the_simulation_does_not_know_is_left_to_people(round_: Round) -> None:
    steps.join_people(round_)
    prompt = round_.prompts(round_.world.rank[:1])[0]
    prompt.messages = [{"role": "user", "content": "What is the meaning of life?"}]
    prompt.save()
    replies = Response.objects.bulk_create([Response(prompt=prompt, text=text) for text in ("42.", "Nothing.")])
    open_rank_tasks(sets=[replies])
    assert labeling.work(round_, Task.Kind.RANK, seconds=60)
    assert not Ranking.objects.filter(prompt=prompt).exists()
