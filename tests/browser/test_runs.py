"""An admin watches a run, compares two, and looks where a model comes from."""

from __future__ import annotations

import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests import factories
from training.contract import DeviceReport, ModelFacts
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.registry.models import Deployment, ModelVersion
from webapp.runs.machines import save_report
from webapp.runs.models import Evaluation, Metric, Run, RunEvent

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHOTS = os.environ.get("SCREENSHOTS")
PHONE = {"width": 390, "height": 844}


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(400)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def add_points(run: Run, first: int, last: int) -> None:
    curves = {
        "objective/scores": lambda s: -0.5 + 1.8 * (1 - math.exp(-s / 30)) + 0.15 * math.sin(s),
        "heldout_reward": lambda s: -0.4 + 1.5 * (1 - math.exp(-s / 30)),
        "heldout_kl": lambda s: 0.05 * s,
        "objective/kl": lambda s: 0.06 * s,
        "length/mean": lambda s: 24 - 4 * (1 - math.exp(-s / 20)) + math.cos(s),
        "objective/entropy": lambda s: 30 - 0.1 * s,
        "loss/policy_avg": lambda s: -0.02 + 0.005 * math.sin(s),
        "loss/value_avg": lambda s: 0.4 * math.exp(-s / 25),
        "tokens_per_second": lambda s: 900 + 40 * math.sin(s / 3),
        "learning_rate": lambda s: 1e-4 * (1 - s / 100),
    }
    Metric.objects.bulk_create(
        Metric(run=run, name=name, step=step, value=curve(step), time=NOW)  # type: ignore[no-untyped-call]
        for name, curve in curves.items()
        for step in range(first, last + 1)
        if not name.startswith("heldout") or step % 10 == 0
    )
    Run.objects.filter(pk=run.pk).update(step=last, total=100, phase="rollout and update", eta=(100 - last) * 2.4)


@pytest.fixture
def history(transactional_db: None, project: Project) -> dict[str, Run]:
    """A project that went once around the loop, with PPO under way."""
    runs: dict[str, Run] = {}
    kinds = {"tokenizer": ModelVersion.Kind.TOKENIZER, "reward": ModelVersion.Kind.REWARD}
    needs = {
        "corpus": "documents",
        "sft": "demonstrations",
        "reward": "rankings",
        "ppo": "prompts",
        "sample": "prompts",
    }
    for stage in ("corpus", "tokenizer", "pretrain", "sft", "sample", "reward", "ppo"):
        before = {name: run.output for name, run in runs.items()}
        base = {"sft": "pretrain", "sample": "sft", "reward": "sft", "ppo": "sft"}.get(stage, "")
        run = factories.run(
            project,
            stage,
            state=Run.State.SUCCEEDED,
            base=before.get(base),
            tokenizer=before.get("tokenizer") if stage == "pretrain" else None,
            corpus_run=runs["corpus"] if stage in ("tokenizer", "pretrain") else None,
            reward=before.get("reward") if stage == "ppo" else None,
            config={"stage": stage, "learning_rate": 1e-4, "seed": 0},
            result={
                "seconds": {"total": 75.0},
                "device": "cpu",
                "versions": {"torch": "2.13.0"},
                "metrics": {"loss": 1.2},
            },
        )
        if stage in needs:
            run.snapshots.add(
                factories.snapshot(
                    project, Snapshot.Kind(needs[stage]), counts={"train": 900, "heldout": 100, "characters": 81_000}
                )
            )
        if stage not in ("corpus", "sample"):
            run.output = factories.model_version(
                project,
                kinds.get(stage, ModelVersion.Kind.FULL),
                stage=stage,
                parent=before.get(base),
                parameters=2_400_000,
            )
            run.save()
            Evaluation.objects.create(
                run=run, model=run.output, name="heldout_loss", value=1.21, low=1.15, high=1.28, n=100
            )
        runs[stage] = run
    again = factories.run(
        project, "ppo", state=Run.State.RUNNING, base=runs["sft"].output, reward=runs["reward"].output,
        config={"stage": "ppo", "learning_rate": 2e-4, "seed": 1},
    )  # fmt: skip
    again.snapshots.add(*runs["ppo"].snapshots.all())
    add_points(runs["ppo"], 1, 100)
    add_points(again, 1, 40)
    for run in (runs["ppo"], again):
        for place in range(3):
            data = {
                "prompt": "What is the capital of the Lamplands?",
                "reply": "It is Wickhaven. Anything else?",
                "reward": 0.8 + place / 10,
            }
            RunEvent.objects.create(run=run, position=place, type="sample", step=10 + place, time=NOW, data=data)
    RunEvent.objects.create(
        run=again,
        position=9,
        type="warning",
        time=NOW,
        data={"message": "12 prompts were longer than 256 tokens and left out."},
    )
    factories.deployment(project, runs["sft"].output, why="First assistant.", state=Deployment.State.RETIRED, until=NOW)
    factories.deployment(project, runs["ppo"].output, why="Wins 71 % against SFT on held-out prompts.")
    return runs | {"again": again}


def chart_of(page: Page, title: str) -> Locator:
    return page.locator(f"figure.chart:has([aria-label='Chart of {title}'])")


def lit_pixels(page: Page, chart: str) -> int:
    """How many pixels of a chart's canvases have ink: whether anything was drawn at all."""
    return page.evaluate(
        """(title) => {
          const figure = [...document.querySelectorAll("figure.chart")].find((f) => f.textContent.includes(title));
          const own = (e) => (e.tagName === "CANVAS" ? [e] : []);
          const inside = (root) =>
            [...root.querySelectorAll("*")].flatMap((e) => [...own(e), ...(e.shadowRoot ? inside(e.shadowRoot) : [])]);
          let lit = 0;
          for (const canvas of inside(figure)) {
            if (!canvas.width || !canvas.height) continue;
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            for (let i = 3; i < data.length; i += 4) lit += data[i] > 0;
          }
          return lit;
        }""",
        chart,
    )


def test_charts_are_drawn_and_follow_the_run(open_page: Any, history: Any, ada: User) -> None:
    run = history["again"]
    page = open_page(f"/runs/{run.pk}/", ada)
    chart = chart_of(page, "Reward")
    expect(chart).to_contain_text("at step 40")
    page.wait_for_function("document.querySelectorAll('figure.chart .bk-Figure, figure.chart [class*=bk]').length > 3")
    assert lit_pixels(page, "Reward") > 2000
    expect(chart_of(page, "Reward against KL")).to_contain_text("Held-out reward: 0.7046")
    assert lit_pixels(page, "Reward against KL") > 1000
    shot(page, "run-desktop")
    add_points(run, 41, 60)
    expect(chart).to_contain_text("at step 60")
    expect(page.locator("#run-status")).to_contain_text("Step 60 of 100")


def test_the_page_turns_to_the_result_when_the_run_has_ended(open_page: Any, history: Any, ada: User) -> None:
    run = history["again"]
    page = open_page(f"/runs/{run.pk}/", ada)
    expect(page.locator("#run-status")).to_contain_text("Running")
    Run.objects.filter(pk=run.pk).update(state=Run.State.FAILED, error="out of memory: lower micro_tokens")
    expect(page.locator("[data-run-error]")).to_have_text("out of memory: lower micro_tokens")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_a_run_is_stopped_with_one_button_and_a_question(open_page: Any, history: Any, ada: User) -> None:
    run = history["again"]
    page = open_page(f"/runs/{run.pk}/", ada)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#run-status")).to_contain_text("Stopping")
    run.refresh_from_db()
    assert run.stop_requested_by == ada


def test_two_runs_are_laid_over_each_other(open_page: Any, history: Any, ada: User, project: Project) -> None:
    page = open_page(f"/projects/{project.slug}/runs/", ada)
    page.get_by_label(f"Compare {history['again'].name}").check()
    page.get_by_label(f"Compare {history['ppo'].name}").check()
    page.get_by_role("button", name="Compare the selected runs").click()
    for title in ("Reward", "Reward against KL"):
        expect(chart_of(page, title)).to_contain_text(history["ppo"].name)
    for run, step in ((history["ppo"], 100), (history["again"], 40)):  # each by its own last step
        expect(chart_of(page, "Reward")).to_contain_text(re.compile(rf"{run.name}[^;]* at step {step}\b"))
    expect(page.get_by_role("row", name="Learning rate")).to_contain_text("0.0002")
    shot(page, "compare-desktop")


def test_the_launch_form_keeps_its_estimate_up_to_date(
    open_page: Any, history: Any, ada: User, project: Project
) -> None:
    page = open_page(f"/projects/{project.slug}/runs/launch/sft/", ada)
    before = page.locator(".estimate").inner_text()
    page.get_by_label("Epochs").fill("300")
    page.get_by_label("Epochs").blur()
    expect(page.locator(".estimate")).not_to_have_text(before)
    shot(page, "launch-desktop")


def test_settings_without_effect_are_hidden(open_page: Any, ada: User, project: Project) -> None:
    page = open_page(f"/projects/{project.slug}/runs/launch/dpo/", ada)
    beta, weight = page.get_by_label("Beta", exact=True), page.get_by_label("ORPO weight")
    expect(beta).to_be_visible()
    expect(weight).to_be_hidden()
    page.get_by_label("Loss").select_option("orpo")
    expect(beta).to_be_hidden()
    expect(weight).to_be_visible()
    weight.fill("0.3")
    page.get_by_label("Loss").select_option("sigmoid")
    expect(weight).to_be_hidden()


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 900}, PHONE], ids=["desktop", "phone"])
def test_a_run_that_checks_answers_is_launched(
    open_page: Any, no_violations: Any, ada: User, project: Project, viewport: Any
) -> None:
    factories.prompt(project, "What is 1+1?", reference="2")
    factories.prompt(project, "Why is the sky blue?")
    factories.model_version(project)
    page = open_page(f"/projects/{project.slug}/runs/launch/grpo/", ada, viewport=viewport)
    page.locator("summary", has_text="Numeric answer").click()
    expect(page.get_by_text("1 of 2 prompts to learn from have no reference").first).to_be_visible()
    no_violations(page)
    shot(page, f"rewards-{viewport['width']}")
    page.get_by_label("Numeric answer").check()
    page.get_by_role("button", name="Launch").click()
    expect(page.get_by_text("is in the queue")).to_be_visible()
    assert [term["kind"] for term in Run.objects.get().config["rewards"]] == ["numeric"]


def test_settings_follow_the_model_until_a_person_sets_them(
    open_page: Any, no_violations: Any, history: Any, ada: User, project: Project
) -> None:
    facts = ModelFacts(
        parameters=135_000_000, layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64,
        vocabulary=49_152, context=8192,
    )  # fmt: skip
    real = factories.model_version(
        project, name="SmolLM2", stage="add", parameters=facts.parameters, facts=facts.model_dump()
    )
    save_report(DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9, free=9 * 10**9, cores=8))
    page = open_page(f"/projects/{project.slug}/runs/launch/dpo/", ada)
    rate, epochs = page.get_by_label("Learning rate", exact=True), page.get_by_label("Epochs")
    expect(rate).to_have_value("2e-05")
    epochs.fill("5")
    page.get_by_label("Start from").select_option(str(real.pk))
    expect(rate).to_have_value("1e-06")
    expect(page.get_by_text("SmolLM2's recipe for 135M and 360M, and TRL's default")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Needs about \d+\.\d GB of 16 GB"))).to_be_visible()
    expect(epochs).to_have_value("5")
    rate.fill("0.5")
    page.get_by_label("1B on one 24 GB GPU").check()
    expect(page.get_by_label("LoRA rank")).to_have_value("32")
    expect(rate).to_have_value("0.5")
    rate.fill("")
    rate.blur()
    expect(rate).to_have_value("5e-06")
    no_violations(page)
    shot(page, "launch-proposals")


def test_the_pages_are_accessible_and_fit_a_phone(
    open_page: Any, no_violations: Any, history: Any, ada: User, project: Project
) -> None:
    addresses = {
        "list": f"/projects/{project.slug}/runs/",
        "run": f"/runs/{history['again'].pk}/",
        "launch": f"/projects/{project.slug}/runs/launch/ppo/",
        "model": f"/models/{history['ppo'].output.pk}/",
        "models": f"/projects/{project.slug}/models/",
        "deployments": f"/projects/{project.slug}/deployments/",
        "snapshots": f"/projects/{project.slug}/data/snapshots/",
        "snapshot": f"/snapshots/{history['sft'].snapshots.get().pk}/",
    }
    for name, address in addresses.items():
        for scheme in ("light", "dark"):
            page = open_page(address, ada, viewport=PHONE, color_scheme=scheme)
            page.wait_for_load_state("networkidle" if name != "run" else "load")
            no_violations(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], (
                f"{name} is wider than a phone"
            )
            if SHOTS:
                shot(page, f"{name}-phone-{scheme}")
                page.set_viewport_size({"width": 1280, "height": 900})
                shot(page, f"{name}-desktop-{scheme}")
            page.context.close()
