from __future__ import annotations

import pytest

from tests.training.toys import events, prompts, run_folder, run_here, toy_policy
from training.contract import InputError
from training.grpo import largest_divisor


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


def settings(policy, **changed) -> dict:
    return {
        "stage": "grpo", "policy": str(policy), "reward": "function:digits", "steps": 60, "prompts_per_step": 4,
        "samples_per_prompt": 8, "learning_rate": 1e-2, "beta": 0.0, "sampling": {"max_new_tokens": 8},
        "evaluate_every": 0, "checkpoint_every": 0, **changed,
    }  # fmt: skip


def test_replies_get_better(policy, tmp_path):
    folder = run_folder(tmp_path, settings(policy), prompts=prompts(), heldout=prompts(16))
    result = run_here(folder)
    assert result["metrics"]["heldout_reward"] > result["metrics"]["heldout_reward_before"] + 0.3
    assert {"reward", "entropy", "loss"} <= {name for event in events(folder, "metric") for name in event["values"]}


def test_an_adapter_learns_alone(policy, tmp_path):
    folder = run_folder(tmp_path, settings(policy, lora={"rank": 2}, steps=2), prompts=prompts())
    assert run_here(folder)["model"]["kind"] == "adapter"


def test_greedy_replies_have_nothing_to_compare(policy, tmp_path):
    changed = settings(policy, sampling={"temperature": 0})
    with pytest.raises(InputError, match=r"sampling\.temperature"):
        run_here(run_folder(tmp_path, changed, prompts=prompts()))


def test_passes_hold_a_whole_share_of_the_replies():
    assert [largest_divisor(32, most) for most in (100, 20, 7, 0)] == [32, 16, 4, 1]
