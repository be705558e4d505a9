"""A critic of PPO's own, begun from the whole reward model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.stages.test_reward import rankings
from tests.training.toys import (
    CHATML,
    events,
    foreign_policy,
    foreign_tokenizer,
    prompts,
    run_folder,
    run_here,
    toy_policy,
    toy_tokenizer,
)
from training.contract import InputError, LoraSettings, PPOSettings
from training.data.packing import pack
from training.models.compute import Compute
from training.preferences.reward_model import load_reward, reward_from_language_model, save_reward
from training.rl.critic import load_critic
from training.rl.losses import RunningMoments

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: Any) -> Path:
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


@pytest.fixture(scope="module")
def reward(policy: Path, tmp_path_factory: Any) -> Path:
    config = {
        "stage": "reward", "base": str(policy), "learning_rate": 3e-3, "epochs": 2, "batch_tokens": 1000,
        "evaluate_every": 0, "checkpoint_every": 0,
    }  # fmt: skip
    folder = run_folder(tmp_path_factory.mktemp("reward"), config, rankings=rankings(40, 1))
    run_here(folder)
    return folder / "model"


def settings(policy: Path, reward: Path, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "ppo", "policy": str(policy), "reward": str(reward), "critic": "own", "steps": 3,
        "prompts_per_step": 8, "epochs": 2, "learning_rate": 1e-3, "value_learning_rate": 1e-3, "value_warmup": 1,
        "evaluate_every": 0, "checkpoint_every": 0, "sampling": {"max_new_tokens": 6}, **changed,
    }  # fmt: skip


def critic_of(reward: Path, **changed: Any) -> Any:
    config = PPOSettings(reward=str(reward), critic="own", **changed)
    return load_critic(config, CPU, toy_tokenizer().get_vocab(), 64)


def test_it_begins_with_the_reward_model_s_scores_in_the_units_that_are_learned_from(reward: Path) -> None:
    rows = [[5, 6, 7, 8], [9, 10]]
    packed = pack(rows, 0)
    ends = packed.starts + packed.lengths - 1
    scores = load_reward(str(reward), CPU)[0](packed)
    critic = critic_of(reward)
    assert torch.allclose(critic(packed, ends), scores, atol=1e-5)
    moments = RunningMoments()
    moments.update(torch.tensor([1.0, 2.0, 4.0]))
    critic.calibrate(moments)
    assert torch.allclose(critic(packed, ends), (scores - moments.mean) / moments.scale, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_the_whole_of_it_learns_or_an_adapter_and_the_head(reward: Path, rank: int) -> None:
    learning = {
        name for name, p in critic_of(reward, lora=LoraSettings(rank=rank)).named_parameters() if p.requires_grad
    }
    assert {"head.weight", "head.bias"} < learning
    assert any("layers.0" in name for name in learning)
    assert all("lora_" in name or name.startswith("head") for name in learning) == bool(rank)


@pytest.mark.parametrize("lora", [{}, {"rank": 2}], ids=["full", "adapter"])
def test_ppo_learns_with_it(policy: Path, reward: Path, tmp_path: Path, lora: Any) -> None:
    config = settings(
        policy, reward, lora=lora, steps=40, prompts_per_step=32, learning_rate=1e-2 if lora else 3e-3,
        kl_coefficient=0.0, update_kl_stop=0, seed=1,
    )  # fmt: skip
    folder = run_folder(tmp_path, config, prompts=prompts(), heldout=prompts(12))
    result = run_here(folder)
    assert result["metrics"]["heldout_reward"] > result["metrics"]["heldout_reward_before"] + (0.1 if lora else 0.3)
    assert result["model"]["kind"] == ("adapter" if lora else "full")
    losses = [e["values"]["loss/value_avg"] for e in events(folder, "metric") if "loss/value_avg" in e["values"]]
    assert lora or min(losses) < 0.7 * losses[0]
    assert sorted(path.name for path in (folder / "model").iterdir() if path.is_dir()) == []


def test_the_policy_stands_still_while_the_critic_warms_up(policy: Path, reward: Path, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, reward, steps=2, value_warmup=2), prompts=prompts())
    run_here(folder)
    from safetensors.torch import load_file

    before, after = (load_file(path / "model.safetensors") for path in (policy, folder / "model"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_cannot_be_its_beginning_is_refused(policy: Path, reward: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="critic: it begins from the reward model, and there is none"):
        run_here(
            run_folder(tmp_path / "none", settings(policy, reward) | {"reward": "function:digits"}, prompts=prompts())
        )
    tokenizer = foreign_tokenizer(CHATML, pad_token="<pad>")
    other = foreign_policy(tmp_path / "other", tokenizer)
    _, model = reward_from_language_model(str(other), replace(CPU), LoraSettings())
    save_reward(model, tokenizer, tmp_path / "foreign", {"max_tokens": 64})
    with pytest.raises(InputError, match="critic: the reward model has other tokens than the policy"):
        run_here(run_folder(tmp_path / "run", settings(policy, tmp_path / "foreign"), prompts=prompts()))
