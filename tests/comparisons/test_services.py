"""Blind comparisons: what is asked of people, what counts, and what becomes of it."""

from __future__ import annotations

import pytest
from django.utils import timezone

from annotations.models import Lease, Prompt, Ranking, Task
from annotations.selectors import labels_open_to, unfinished, usable_rankings
from annotations.services.drafts import NO_PAGE, save_draft
from annotations.services.erasure import erase_prompts
from annotations.services.labels import undo
from annotations.services.leases import lease_next
from annotations.services.prompts import restore_prompts, withdraw_prompts
from tests import factories
from tests.comparisons.conftest import REPLIES, again, compared_run, comparison_of, judge_next, judge_pair
from webapp.accounts.models import Project, User
from webapp.comparisons.models import Comparison
from webapp.comparisons.results import people_of, result_of, rows_to_download
from webapp.comparisons.selectors import has_ended, progress_of, state_of
from webapp.comparisons.services import (
    compare_run,
    continue_comparison,
    follow_comparisons,
    start_comparison,
    stop_comparison,
)
from webapp.data.exports.rows import exported_rankings
from webapp.data.exports.selection import Selection
from webapp.errors import BadInput, Conflict
from webapp.registry.models import ModelVersion
from webapp.runs.models import Evaluation, Run
from webapp.runs.services import resume_run

pytestmark = pytest.mark.django_db(transaction=True)
State = Comparison.State


def test_each_pair_is_asked_once_and_equal_replies_are_tied_without_asking(project: Project, ann: User) -> None:
    comparison = comparison_of(project, [*REPLIES, ("Same.", "Same.")])
    progress = progress_of(comparison)
    assert (progress.pairs, progress.equal, progress.wanted, progress.given) == (5, 1, 4, 0)
    assert labels_open_to(ann, project)["rank"] == 4
    words = [1, 1, 0, -1]
    for word in words:
        judge_next(project, ann, word)
    assert lease_next(person=ann, project=project) is None
    comparison = again(comparison)
    assert state_of(comparison) == State.DONE
    result = result_of(comparison)
    assert result["win_rate"]["value"] == pytest.approx((1 + 1 + 0.5 + 0 + 0.5) / 5)
    assert result["win_rate"]["n"] == 5
    assert result["win_rate"]["low"] < 0.6 < result["win_rate"]["high"]
    assert (result["wins"], result["ties"], result["losses"], result["equal"]) == (2, 2, 1, 1)
    assert result["longer"]["value"] == pytest.approx(2 / 3)  # the model's replies are the longer ones


def test_the_order_of_a_pair_says_nothing_about_its_models(project: Project, ann: User) -> None:
    comparison = comparison_of(project, [(f"{n} a", f"{n} b") for n in range(40)])
    firsts = []
    for _ in range(40):
        lease = lease_next(person=ann, project=project)
        assert lease is not None
        firsts.append(lease.order_shown[0] == comparison.pairs.get(task=lease.task).reply_id)
        judge_pair(lease, 0)
    assert 3 < sum(firsts) < 37


def test_pairs_go_to_people_in_another_order_than_the_prompts(project: Project) -> None:
    comparison = comparison_of(project, [(f"{n} a", f"{n} b") for n in range(30)])
    order = list(Task.objects.order_by("pk").values_list("prompt_id", flat=True))
    assert sorted(order) != order
    assert comparison.pairs.count() == 30


def test_people_who_share_pairs_are_held_against_each_other(project: Project, ann: User, ben: User) -> None:
    comparison = comparison_of(project, REPLIES[:2], overlap=2)
    for person, words in ((ann, (1, 1)), (ben, (1, -1))):
        for word in words:
            judge_next(project, person, word)
    result = result_of(again(comparison))
    assert result["agreement"]["value"] == pytest.approx(0.5)
    assert result["win_rate"] == {**result["win_rate"], "value": pytest.approx(0.75), "n": 2}  # each pair counts once
    rows = {row.person: row for row in people_of(comparison)}
    assert (rows[ann].win_rate, rows[ben].win_rate) == (1.0, 0.5)
    assert rows[ann].agreement == rows[ben].agreement == pytest.approx(0.5)


def test_training_and_exports_leave_the_judgments_out_unless_they_are_wanted(project: Project, ann: User) -> None:
    comparison_of(project, REPLIES[:1])
    ranking = judge_next(project, ann, 1)
    assert not usable_rankings(project).exists()
    assert not list(exported_rankings(project, Selection()))
    assert [row["state"] for row in exported_rankings(project, Selection(state="all"))] == ["comparison"]
    comparison_of(project, REPLIES[:1], for_training=True)
    wanted = judge_next(project, ann, 1)
    assert list(usable_rankings(project)) == [wanted] != [ranking]


def test_it_stops_and_goes_on_where_it_was(project: Project, ann: User, ben: User) -> None:
    comparison = comparison_of(project, REPLIES[:3])
    judge_next(project, ann, 1)
    held = lease_next(person=ann, project=project)
    assert held is not None
    save_draft(lease=held, content={"reason": "Hm."}, page=NO_PAGE)
    stop_comparison(comparison=comparison, by=ann)
    comparison = again(comparison)
    assert (state_of(comparison), has_ended(comparison)) == (State.STOPPED, True)
    assert lease_next(person=ben, project=project) is None
    assert not unfinished(ann, project).exists()
    judge_pair(held, -1)  # was under way: it is kept, and counts once the comparison goes on
    assert result_of(comparison)["judged"] == 1
    with pytest.raises(Conflict):
        stop_comparison(comparison=comparison, by=ann)
    continue_comparison(comparison=comparison, by=ann)
    assert result_of(comparison)["judged"] == 2
    judge_next(project, ben, 1)
    assert state_of(again(comparison)) == State.DONE
    with pytest.raises(Conflict):
        continue_comparison(comparison=again(comparison), by=ann)


def test_what_is_undone_is_judged_anew_and_the_figures_follow(project: Project, ann: User) -> None:
    comparison = comparison_of(project, REPLIES[:2])
    judge_next(project, ann, 1)
    last = judge_next(project, ann, 1)
    assert follow_comparisons() == {"opened": 0, "measured": 1}
    assert follow_comparisons()["measured"] == 0
    figure = Evaluation.objects.get(name="people, win rate against old")
    assert (figure.model, figure.run, figure.value, figure.n) == (comparison.model, comparison.run, 1.0, 2)
    lease = undo(label=last, by=ann)
    assert state_of(again(comparison)) == State.JUDGING
    assert follow_comparisons()["measured"] == 0  # a figure of half a comparison would be one that people sway
    judge_pair(lease, -1)
    assert follow_comparisons()["measured"] == 1
    figure.refresh_from_db()
    assert figure.value == 0.5


def test_deleted_words_are_gone_from_pairs_and_figures(project: Project, ann: User) -> None:
    comparison = comparison_of(project, REPLIES[:2])
    for _ in range(2):
        judge_next(project, ann, 1)
    follow_comparisons()
    erased = comparison.pairs.all()[0].prompt
    erase_prompts(prompts=[erased.pk], now=timezone.now())
    result = result_of(again(comparison))
    assert (result["pairs"], result["judged"]) == (1, 1)
    rows = list(rows_to_download(comparison))
    assert [row["prompt_id"] for row in rows] != [f"prompt:{erased.pk}"]
    assert follow_comparisons()["measured"] == 1
    assert Evaluation.objects.get(name="people, win rate against old").n == 1


def test_a_stopped_comparison_stays_so_when_its_prompts_come_back(project: Project, ann: User) -> None:
    comparison = comparison_of(project, REPLIES[:2])
    stop_comparison(comparison=comparison, by=ann)
    withdraw_prompts(prompts=Prompt.objects.all())
    assert progress_of(comparison).pairs == 0
    restore_prompts(prompts=Prompt.objects.all())
    assert lease_next(person=ann, project=project) is None
    assert progress_of(comparison).pairs == 2


def test_a_run_samples_the_replies_first(project: Project, ada: User) -> None:
    old, other = factories.model_version(project), factories.model_version(project)
    new = factories.model_version(project, parent=old)
    heldout = [factories.prompt(project, split=Prompt.Split.HELDOUT) for _ in range(4)]
    factories.prompt(project)
    comparison = start_comparison(model=new, baseline=old, by=ada, number=3)
    run = comparison.run
    assert (run.stage, run.base, run.baseline, run.config["sampling"]["max_new_tokens"]) == (
        "evaluate", new, old, project.max_new_tokens,
    )  # fmt: skip
    rows = set(run.snapshots.get().items.values_list("row", flat=True))
    assert len(rows) == 3
    assert rows < {prompt.pk for prompt in heldout}
    assert state_of(comparison) == State.SAMPLING
    assert follow_comparisons()["opened"] == 0
    typed = start_comparison(model=new, baseline=other, by=ada, prompts="typed", typed=["Why?", "How so?", "Why?"])
    assert set(typed.run.snapshots.get().items.values_list("heldout", flat=True)) == {True}
    assert typed.run.snapshots.get().items.count() == 2
    for project_prompts in (2, 50):
        whole = start_comparison(model=new, baseline=old, by=ada, prompts="project", number=project_prompts)
        assert whole.run.snapshots.get().counts["heldout"] == min(project_prompts, 7)


def test_pairs_are_opened_when_the_run_has_succeeded(project: Project, ada: User, ann: User) -> None:
    run = compared_run(project)
    Run.objects.filter(pk=run.pk).update(state=Run.State.RUNNING)
    comparison = Comparison.objects.create(project=project, run=run, overlap=1, created_by=ada)
    stop_comparison(comparison=comparison, by=ada)
    run.refresh_from_db()
    assert run.stopping
    with pytest.raises(Conflict, match="still stopping"):
        continue_comparison(comparison=comparison, by=ada)
    Run.objects.filter(pk=run.pk).update(state=Run.State.CANCELLED)
    continue_comparison(comparison=comparison, by=ada)
    run.refresh_from_db()
    assert run.state == Run.State.QUEUED
    Run.objects.filter(pk=run.pk).update(state=Run.State.SUCCEEDED)
    assert follow_comparisons()["opened"] == 1
    assert follow_comparisons()["opened"] == 0
    assert labels_open_to(ann, project)["rank"] == 4


def test_a_comparison_says_why_there_is_nothing_to_judge(project: Project, ada: User) -> None:
    run = compared_run(project)
    Run.objects.filter(pk=run.pk).update(outputs={})
    comparison = Comparison.objects.create(project=project, run=run, overlap=1, created_by=ada)
    follow_comparisons()
    comparison.refresh_from_db()
    assert state_of(comparison) == State.FAILED
    assert "no samples.jsonl" in comparison.error
    failed = factories.run(project, "evaluate", state=Run.State.FAILED, base=run.base, baseline=run.baseline)
    lost = Comparison.objects.create(project=project, run=failed, overlap=1, created_by=ada)
    assert state_of(lost) == State.FAILED
    continue_comparison(comparison=lost, by=ada)
    failed.refresh_from_db()
    assert failed.state == Run.State.QUEUED
    with pytest.raises(Conflict):
        resume_run(run=failed, by=ada)


def test_two_models_of_the_project_and_some_prompts_are_needed(project: Project, ada: User, stranger: User) -> None:
    model = factories.model_version(project)
    foreign = factories.model_version(factories.project(stranger))
    reward = factories.model_version(project, ModelVersion.Kind.REWARD)
    other = factories.model_version(project)
    for baseline, message in ((model, "another model"), (foreign, "another project"), (reward, "reward")):
        with pytest.raises((BadInput, Conflict), match=message):
            start_comparison(model=model, baseline=baseline, by=ada)
    for wrong, field in (
        ({}, "prompts"), ({"prompts": "typed"}, "typed"), ({"prompts": "all"}, "prompts"), ({"number": 0}, "number"),
        ({"overlap": 21}, "overlap"),
    ):  # fmt: skip
        with pytest.raises(BadInput) as refused:
            start_comparison(model=model, baseline=other, by=ada, **wrong)
        assert refused.value.data["field"] == field
    assert not Run.objects.exists()
    assert not Prompt.objects.exists()


def test_a_run_is_compared_once_and_only_with_two_models_replies(project: Project, ada: User) -> None:
    run = compared_run(project)
    compare_run(run=run, by=ada)
    with pytest.raises(Conflict, match="already"):
        compare_run(run=run, by=ada)
    lone = factories.run(project, "evaluate", state=Run.State.SUCCEEDED)
    with pytest.raises(BadInput, match="baseline"):
        compare_run(run=lone, by=ada)
    assert Ranking.objects.count() == Lease.objects.count() == 0
