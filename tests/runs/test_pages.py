"""The pages of runs, snapshots and models, as people of each role get them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories
from tests.narrowing import existing
from training.contract import SPECS, DeviceReport
from webapp.accounts.models import Project, User
from webapp.home_folder import ROOT
from webapp.registry.models import ModelVersion
from webapp.runs.forms import LaunchForm
from webapp.runs.machines import save_report
from webapp.runs.models import Metric, Run, RunEvent
from webapp.runs.stages import LAUNCHED

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def measured(run: Run, name: str, values: list[float]) -> None:
    Metric.objects.bulk_create(
        Metric(run=run, name=name, step=step, value=value, time=NOW) for step, value in enumerate(values, 1)
    )


def filled(form: LaunchForm) -> dict[str, Any]:
    """What a browser sends of a form that nobody changed."""
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    return {name: value for name, value in values.items() if value is not None and value is not False}


@pytest.fixture
def finished(project: Project) -> Run:
    """An SFT run with all that its page can show."""
    model = factories.model_version(project, parameters=1_000_000)
    run = factories.run(
        project,
        state=Run.State.SUCCEEDED,
        output=model,
        result={
            "seconds": {"total": 61.0},
            "device": "cpu",
            "versions": {},
            "metrics": {"loss": 1.5},
            "counts": {"used": 9},
        },
    )
    run.snapshots.add(factories.snapshot(project, counts={"train": 9, "heldout": 1, "characters": 900}))
    measured(run, "loss", [3.0, 2.0, 1.5])
    RunEvent.objects.create(
        run=run,
        position=0,
        type="sample",
        step=3,
        time=NOW,
        data={"prompt": "Hi?", "reply": "<b>Hello</b>", "reward": 0.5},
    )
    RunEvent.objects.create(run=run, position=9, type="warning", time=NOW, data={"message": "One row was too long."})
    return run


def test_the_list_of_runs_says_what_to_do_when_there_are_none(client: Client, ada: User, project: Project) -> None:
    client.force_login(ada)
    page = client.get(reverse("run_list", args=[project.slug]))
    assert "No runs yet" in page.content.decode()


def test_runs_are_filtered_by_stage_and_state(client: Client, ada: User, project: Project) -> None:
    factories.run(project, "sft", name="a fine one", state=Run.State.SUCCEEDED)
    factories.run(project, "ppo", name="one that broke", state=Run.State.FAILED, error="It broke.")
    client.force_login(ada)
    page = client.get(reverse("run_list", args=[project.slug]), {"state": "failed"}).content.decode()
    assert "one that broke" in page
    assert "a fine one" not in page


def test_a_run_s_page_shows_result_samples_and_warnings(client: Client, ada: User, finished: Run) -> None:
    client.force_login(ada)
    page = client.get(reverse("run_detail", args=[finished.pk])).content.decode()
    for words in (
        "Took 1 min 1 s",
        "&lt;b&gt;Hello&lt;/b&gt;",
        "One row was too long.",
        existing(finished.output).name,
    ):
        assert words in page
    assert "hx-trigger" not in page, "a run that has ended is not asked for again and again"


def test_a_failed_run_shows_its_sentence_and_offers_to_resume(client: Client, ada: User, project: Project) -> None:
    run = factories.run(project, state=Run.State.FAILED, error="out of memory: lower micro_tokens")
    client.force_login(ada)
    page = client.get(reverse("run_detail", args=[run.pk])).content.decode()
    assert "out of memory: lower micro_tokens" in page
    assert reverse("run_resume", args=[run.pk]) in page


def test_points_of_charts_come_from_the_asked_step_on(client: Client, ada: User, finished: Run) -> None:
    client.force_login(ada)
    address = reverse("run_metrics", args=[finished.project.slug])
    body = client.get(address, {"run": finished.pk, "since": 2}).json()
    assert body == {
        "active": False,
        "charts": [
            {
                "title": "Loss",
                "unit": "nats",
                "open": True,
                "series": [{"label": "Loss", "name": "loss", "run": 0, "step": [2, 3], "value": [2.0, 1.5]}],
            }
        ],
    }


def test_reward_is_drawn_against_kl(client: Client, ada: User, finished: Run) -> None:
    points = {0: (0.0, -1.0), 20: (1.5, 0.25), 40: (3.0, None)}  # a step of which half is read so far is left out
    for step, (kl, reward) in points.items():
        for name, value in (("heldout_kl", kl), ("heldout_reward", reward)):
            if value is not None:
                Metric.objects.create(run=finished, name=name, step=step, value=value, time=NOW)
    client.force_login(ada)
    body = client.get(reverse("run_metrics", args=[finished.project.slug]), {"run": finished.pk}).json()
    (chart,) = (chart for chart in body["charts"] if chart["title"] == "Reward against KL")
    assert chart["across"] == "held-out KL, nats per reply"
    assert chart["series"] == [
        {
            "label": "Held-out reward",
            "name": "heldout_reward",
            "run": 0,
            "step": [0, 20],
            "x": [0.0, 1.5],
            "value": [-1.0, 0.25],
        }
    ]


def test_runs_are_compared_by_what_differs(client: Client, ada: User, project: Project, finished: Run) -> None:
    other = factories.run(project, config={"stage": "sft", "learning_rate": 0.5}, result={"metrics": {"loss": 1.25}})
    client.force_login(ada)
    page = client.get(reverse("run_compare", args=[project.slug]), {"run": [finished.pk, other.pk]}).content.decode()
    assert "Learning rate" in page
    assert "1.250" in page


def test_activity_that_has_not_changed_is_not_sent_again(client: Client, ada: User, project: Project) -> None:
    run = factories.run(project, state=Run.State.RUNNING)
    client.force_login(ada)
    first = client.get(reverse("run_activity", args=[run.pk]))
    again = client.get(reverse("run_activity", args=[run.pk]), {"at": first.context["at"]})
    assert (first.status_code, again.status_code) == (200, 204)


def test_every_web_process_knows_activity_that_has_not_changed() -> None:
    """Strings hash differently in every process, so nothing that goes over the wire may depend on that."""
    script = (
        "import django; django.setup(); from webapp.runs.models import Run; "
        "from webapp.runs.views.runs import activity_mark; print(activity_mark(Run(events_read=7), 'step 1\\nstep 2'))"
    )
    marks = {
        subprocess.check_output(
            [sys.executable, "-c", script],
            cwd=ROOT,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "DJANGO_SETTINGS_MODULE": "webapp.settings"},
        )
        for seed in ("1", "2")
    }
    assert len(marks) == 1, marks


@pytest.mark.parametrize("stage", LAUNCHED)
def test_every_stage_has_a_form_with_the_contract_s_words(
    client: Client, ada: User, project: Project, stage: str
) -> None:
    client.force_login(ada)
    page = client.get(reverse("run_launch", args=[project.slug, stage]))
    assert page.status_code == 200
    text = unescape(page.content.decode())
    described = {name: str(field.description) for name, field in SPECS[stage].settings.model_fields.items()}
    models = {"base", "policy", "reward", "baseline", "tokenizer"}  # which the form has words of its own for
    shown = [words for name, words in described.items() if name in page.context["form"].fields.keys() - models]
    assert shown
    assert [words for words in shown if words not in text] == []


def test_a_setting_out_of_range_is_named_at_its_field(client: Client, ada: User, project: Project) -> None:
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "pretrain"])
    form = client.get(address).context["form"]
    page = client.post(address, filled(form) | {"hidden": "33"})
    assert page.status_code == 400
    assert "hidden 33 must be heads 6 times an even number" in page.content.decode()
    assert not Run.objects.exists()


def test_what_a_hidden_setting_holds_does_not_count(client: Client, ada: User, project: Project) -> None:
    factories.ranking(project, ada)
    base = factories.model_version(project)
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "dpo"])
    form = client.get(address).context["form"]
    choices = {"min_rows": "1", "base": str(base.pk), "base_name": "", "loss": "orpo"}
    hidden = {"beta": "nonsense", "simpo_beta": "7", "touched": "min_rows,loss,beta,simpo_beta"}
    reply = client.post(address, filled(form) | choices | hidden)
    assert reply.status_code == 302, reply.context["form"].errors
    config = Run.objects.get().config
    assert (config["loss"], config["beta"], config["simpo_beta"]) == ("orpo", 0.1, 2.0)


def test_sharding_that_is_hidden_beside_one_process_does_not_count(client: Client, ada: User, project: Project) -> None:
    factories.demonstration(project, ada, state="accepted")
    base = factories.model_version(project)
    save_report(DeviceReport(kind="cuda", name="a GPU", memory=24 << 30, count=2))
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "sft"])
    form = client.get(address).context["form"]
    choices = {"base": str(base.pk), "base_name": "", "processes": "1", "shard": "on", "touched": "processes,shard"}
    reply = client.post(address, filled(form) | choices)
    assert reply.status_code == 302, reply.context["form"].errors
    assert Run.objects.get().config["shard"] is False


def test_trackers_are_chosen_on_the_form_and_the_run_s_page_leads_to_them(
    client: Client, ada: User, project: Project
) -> None:
    factories.ranking(project, ada)
    base = factories.model_version(project)
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "dpo"])
    page = client.get(address)
    assert "<legend>Report to</legend>" in page.content.decode()
    choices = {"report_to": ["wandb", "trackio"], "min_rows": "1", "base": str(base.pk), "base_name": ""}
    touched = {"touched": "report_to,min_rows"}
    reply = client.post(address, filled(page.context["form"]) | choices | touched)
    assert reply.status_code == 302, reply.context["form"].errors
    run = Run.objects.get()
    assert run.config["report_to"] == ["wandb", "trackio"]
    assert client.get(f"{address}?like={run.pk}").context["form"]["report_to"].initial == ["wandb", "trackio"]
    told = (
        ("wandb", "https://wandb.ai/x/y", ""),
        ("trackio", "", "In the run folder."),
        ("mlflow", "javascript:1", ""),
    )
    for position, (name, url, note) in enumerate(told):
        data = {"tracker": name, "url": url, "note": note}
        RunEvent.objects.create(run=run, position=position, type="tracked", time=NOW, data=data)
    shown = client.get(reverse("run_detail", args=[run.pk])).content.decode()
    assert '<a href="https://wandb.ai/x/y" rel="noreferrer">Weights &amp; Biases</a>' in shown
    assert "In the run folder." in shown
    assert "javascript:1" not in shown
    assert "wandb,trackio" in shown


def test_a_form_that_fits_launches_a_run_with_a_snapshot_made_for_it(
    client: Client, ada: User, project: Project, settings: Any, tmp_path: Path
) -> None:
    factories.corpus(project, documents=3)
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "corpus"])
    form = client.get(address).context["form"]
    reply = client.post(address, filled(form))
    assert reply.status_code == 302, reply.context["form"].errors
    run = Run.objects.get()
    assert reply["Location"] == reverse("run_detail", args=[run.pk])
    assert run.snapshots.get().counts["train"] == 3
    assert run.config["strip_personal_data"] is True


@pytest.mark.parametrize(("rankings", "kinds"), [("", {"rankings", "judgments"}), ("none", {"judgments"})])
def test_kto_takes_a_new_snapshot_of_each_kind_of_labels_that_is_not_left_out(
    client: Client, ada: User, project: Project, rankings: str, kinds: set[str]
) -> None:
    factories.judgment(project, ada)
    factories.ranking(project, ada)
    base = factories.model_version(project)
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "kto"])
    form = client.get(address).context["form"]
    choices = {"rankings": rankings, "judgments": "", "min_rows": "1", "base": str(base.pk), "base_name": ""}
    reply = client.post(address, filled(form) | choices)
    assert reply.status_code == 302, reply.context["form"].errors
    run = Run.objects.get()
    assert set(run.snapshots.values_list("kind", flat=True)) == kinds
    again = client.get(f"{address}?like={run.pk}").context["form"]
    assert (again["rankings"].initial == "none") == (rankings == "none")


def test_kto_without_labels_says_at_the_field_what_it_learns_from(client: Client, ada: User, project: Project) -> None:
    base = factories.model_version(project)
    client.force_login(ada)
    address = reverse("run_launch", args=[project.slug, "kto"])
    form = client.get(address).context["form"]
    reply = client.post(address, filled(form) | {"base": str(base.pk), "base_name": ""})
    assert reply.status_code == 400
    assert "kto learns from rankings and judgments" in reply.content.decode()


def test_an_annotator_may_not_look_at_runs(client: Client, ann: User, finished: Run) -> None:
    client.force_login(ann)
    assert client.get(reverse("run_detail", args=[finished.pk])).status_code == 403


def test_a_stranger_does_not_learn_that_a_run_exists(client: Client, stranger: User, finished: Run) -> None:
    client.force_login(stranger)
    assert client.get(reverse("run_detail", args=[finished.pk])).status_code == 404


def test_a_model_s_page_draws_where_it_comes_from(client: Client, ada: User, finished: Run) -> None:
    client.force_login(ada)
    page = client.get(reverse("model_detail", args=[existing(finished.output).pk])).content.decode()
    assert "<svg" in page
    for node in ("10 demonstrations", finished.name, existing(finished.output).name):
        assert node in page
    assert reverse("snapshot_detail", args=[finished.snapshots.get().pk]) in page


def test_a_tokenizer_is_not_offered_for_deployment(client: Client, ada: User, project: Project) -> None:
    model = factories.model_version(project, ModelVersion.Kind.TOKENIZER, stage="tokenizer")
    client.force_login(ada)
    assert (
        reverse("model_deploy", args=[model.pk])
        not in client.get(reverse("model_detail", args=[model.pk])).content.decode()
    )
