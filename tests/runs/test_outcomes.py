"""Whose figures an evaluation's are, and which sampled replies are ranked."""

from __future__ import annotations

import pytest

from annotations.models import Task
from tests import factories
from training.contract import Result, SampleRow
from webapp.accounts.models import Project
from webapp.registry.models import ModelVersion
from webapp.runs.services.outcomes import import_samples, record_figures

pytestmark = pytest.mark.django_db


def test_each_figure_of_an_evaluation_goes_to_the_model_it_is_about(project: Project) -> None:
    policy, baseline = factories.model_version(project), factories.model_version(project)
    reward = factories.model_version(project, ModelVersion.Kind.REWARD)
    run = factories.run(project, "evaluate", base=policy, baseline=baseline, reward=reward)
    figures = {"bits_per_byte": 1.5, "policy_reward": 0.7, "baseline_reward": 0.2, "reward_accuracy": 0.66}
    figures |= {"grad_norm": 2.0, "time/update": 3.0, "steps": 40.0}  # say how a run went
    result = Result(
        stage="evaluate", metrics=figures, intervals={"reward_accuracy": (0.6, 0.72, 240)}, seconds={"total": 1.0},
        seed=0, device="cpu", versions={}, files={},
    )  # fmt: skip
    record_figures(run, result)
    record_figures(run, result)
    found = {(figure.model, figure.name): (figure.low, figure.n) for figure in run.evaluations.all()}
    assert found == {
        (policy, "bits_per_byte"): (None, 0),
        (policy, "policy_reward"): (None, 0),
        (baseline, "baseline_reward"): (None, 0),
        (reward, "reward_accuracy"): (0.6, 240),
    }


def test_sampled_replies_are_ranked_once_each_text_and_white_space_counts(project: Project) -> None:
    prompt = factories.prompt(project, "Write a line of Python.")
    replies = ["return x", "    return x", "return x\n", "return x"]
    rows = [
        SampleRow(
            id=f"prompt:{prompt.pk}#{number}",
            prompt_id=f"prompt:{prompt.pk}",
            messages=prompt.messages,
            reply=reply,
            tokens=3,
            finish="stop",
            logprob=-1.0,
        )
        for number, reply in enumerate(replies)
    ]
    lines = "".join(f"{row.model_dump_json()}\n" for row in rows)
    run = factories.run_with_output(project, "samples.jsonl", lines, base=factories.model_version(project))

    assert import_samples(run=run) == 1
    assert sorted(reply.text for reply in Task.objects.get().responses.all()) == sorted(set(replies))
