from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.training import written_rewards  # noqa: F401 - it registers rewards
from tests.training.toys import events, prompts, run_folder, run_here, toy_policy
from training.contract import GRPOSettings, InputError
from training.engine import Completion
from training.rl.heldout import MAX_HELDOUT
from training.rl.trl.rollouts import TRLRollouts, equal_groups, reply_figures, spare_prompts
from training.stages.grpo import largest_divisor


@pytest.fixture(scope="module")
def policy(tmp_path_factory: Any) -> Any:
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


def settings(policy: Any, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "grpo", "policy": str(policy), "reward": "function:digits", "steps": 60, "prompts_per_step": 4,
        "samples_per_prompt": 8, "learning_rate": 1e-2, "beta": 0.0, "sampling": {"max_new_tokens": 8},
        "evaluate_every": 0, "checkpoint_every": 0, **changed,
    }  # fmt: skip


def test_replies_get_better(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy), prompts=prompts(), heldout=prompts(16))
    result = run_here(folder)
    assert result["metrics"]["heldout_reward"] > result["metrics"]["heldout_reward_before"] + 0.3
    assert {"reward", "entropy", "loss"} <= {name for event in events(folder, "metric") for name in event["values"]}


def test_shaping_is_part_of_what_is_learned(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, reward="function:nothing-much", shaping="digits=1")
    result = run_here(run_folder(tmp_path, config, prompts=prompts(), heldout=prompts(8)))
    shaped = heldout_curve(tmp_path, "heldout_shaping")
    assert shaped[60] > shaped[0] + 0.3
    assert result["metrics"]["heldout_reward"] == 0


def test_an_adapter_learns_alone(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, lora={"rank": 2}, steps=2), prompts=prompts())
    assert run_here(folder)["model"]["kind"] == "adapter"


def test_greedy_replies_have_nothing_to_compare(policy: Any, tmp_path: Path) -> None:
    changed = settings(policy, sampling={"temperature": 0})
    with pytest.raises(InputError, match=r"sampling\.temperature"):
        run_here(run_folder(tmp_path, changed, prompts=prompts()))


def heldout_curve(folder: Path, name: str) -> dict[int, float]:
    return {e["step"]: e["values"][name] for e in events(folder, "metric") if name in e["values"]}


def test_it_is_evaluated_while_it_learns(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, steps=4, evaluate_every=2, beta=0.1)
    result = run_here(run_folder(tmp_path, config, prompts=prompts(), heldout=prompts(3)))
    rewards, kl = (heldout_curve(tmp_path, name) for name in ("heldout_reward", "heldout_kl"))
    assert list(rewards) == list(kl) == [0, 2, 4]
    assert kl[0] == pytest.approx(0, abs=1e-4)
    assert abs(kl[4]) > 1e-3
    assert result["metrics"]["heldout_reward_before"] == rewards[0]
    assert result["metrics"]["heldout_reward"] == max(rewards[2], rewards[4])
    assert result["intervals"]["heldout_reward"][2] == 3
    rows = [json.loads(line) for line in (tmp_path / "output" / "frontier.jsonl").read_text().splitlines()]
    assert {row["step"]: row["kl"] for row in rows} == kl


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_the_reference_may_compute_in_bf16(policy: Any, tmp_path: Path, beta: Any) -> None:
    folder = run_folder(
        tmp_path, settings(policy, steps=1, beta=beta, precision="bf16"), prompts=prompts(), heldout=prompts(2)
    )
    run_here(folder)
    assert heldout_curve(folder, "heldout_kl")[0] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize(("beta", "rank"), [(0.0, 0), (0.1, 2), (0.0, 2)])
@pytest.mark.fp32
def test_the_kl_is_to_where_it_began_however_it_learns(policy: Any, tmp_path: Path, beta: Any, rank: Any) -> None:
    first = run_folder(
        tmp_path / "first",
        settings(policy, steps=2, beta=beta, lora={"rank": rank}),
        prompts=prompts(),
        heldout=prompts(2),
    )
    second = run_folder(
        tmp_path / "second",
        settings(first / "model", steps=2, beta=beta, lora={"rank": rank}),
        prompts=prompts(),
        heldout=prompts(2),
    )
    for folder in (first, second):
        run_here(folder)
        kl = heldout_curve(folder, "heldout_kl")
        assert kl[0] == pytest.approx(0, abs=1e-4)
        assert abs(kl[2]) > 1e-3


def test_an_adapter_merged_into_its_base_is_held_to_itself(policy: Any, tmp_path: Path) -> None:
    adapter = run_folder(tmp_path / "adapter", settings(policy, steps=2, lora={"rank": 2}), prompts=prompts())
    run_here(adapter)
    config = settings(adapter / "model", steps=1, beta=0.1)
    folder = run_folder(tmp_path / "full", config, prompts=prompts(), heldout=prompts(2))
    run_here(folder)
    assert heldout_curve(folder, "heldout_kl")[0] == pytest.approx(0, abs=1e-4)
    assert heldout_curve(folder, "kl")[1] == pytest.approx(0, abs=1e-4)


def test_no_more_held_out_prompts_are_answered_than_in_ppo(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, steps=1, sampling={"max_new_tokens": 2})
    result = run_here(run_folder(tmp_path, config, prompts=prompts(), heldout=prompts(MAX_HELDOUT + 5)))
    assert result["intervals"]["heldout_reward"][2] == MAX_HELDOUT


def test_the_policy_that_did_best_is_kept(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, steps=3, evaluate_every=1, reward="function:worse-and-worse")
    result = run_here(run_folder(tmp_path, config, prompts=prompts(), heldout=prompts(2)))
    assert result["metrics"]["saved_step"] == 1
    assert "the policy of step 1 is kept" in events(tmp_path, "warning")[-1]["message"]
    last = run_folder(tmp_path / "one", settings(policy, steps=3, reward="function:worse-and-worse"), prompts=prompts())
    run_here(last)
    kept, other = (load_file(f / "model" / "model.safetensors") for f in (tmp_path, last))
    assert any(not torch.equal(weight, other[name]) for name, weight in kept.items())


def test_a_policy_that_runs_away_is_stopped(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, steps=40, learning_rate=0.3, beta=1e-4, sampling={"max_new_tokens": 4})
    result = run_here(run_folder(tmp_path, config, prompts=prompts()))
    assert result["metrics"]["steps"] < 40
    assert events(tmp_path, "warning")[-1]["message"].startswith("stopped at step ")


def test_the_figures_of_replies_are_over_their_tokens() -> None:
    replies = [Completion([5, 6, 7], [-1.0, -2.0, -3.0], "", "length"), Completion([9], [-2.0], "", "stop")]
    assert reply_figures(replies) == {"entropy": 2.0, "length": 2.0, "ended": 0.5}


def test_passes_hold_a_whole_share_of_the_replies() -> None:
    assert [largest_divisor(32, most) for most in (100, 20, 7, 0)] == [32, 16, 4, 1]


@pytest.mark.parametrize("clip_high", [0.0, 0.9])
def test_the_second_pass_over_a_rollout_is_clipped(policy: Any, tmp_path: Path, clip_high: float) -> None:
    config = settings(policy, steps=2, epochs=2, minibatches=2, clip=0.001, clip_high=clip_high)
    run_here(run_folder(tmp_path, config, prompts=prompts()))
    low, high = (heldout_curve(tmp_path, f"clip_ratio/{side}_mean") for side in ("low", "high"))
    assert list(low) == [1, 2]
    assert low[1] > 0.05
    assert high[1] < 0.01 if clip_high else high[1] > 0.05


def test_each_pass_over_a_rollout_moves_the_policy_further(policy: Any, tmp_path: Path) -> None:
    moved = {}
    for epochs in (1, 4):
        folder = run_folder(
            tmp_path / str(epochs), settings(policy, steps=2, epochs=epochs, beta=0.01), prompts=prompts()
        )
        run_here(folder)
        moved[epochs] = heldout_curve(folder, "kl")[2]
    assert moved[4] > 2 * moved[1]


def test_replies_that_minibatches_cannot_share_are_refused(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 minibatches"):
        run_here(run_folder(tmp_path, settings(policy, minibatches=3), prompts=prompts()))


def test_a_cut_distribution_is_warned_of(policy: Any, tmp_path: Path) -> None:
    changed = settings(policy, steps=1, sampling={"max_new_tokens": 8, "top_p": 0.9})
    run_here(run_folder(tmp_path, changed, prompts=prompts()))
    assert any("top_p and top_k cut" in event["message"] for event in events(tmp_path, "warning"))


def first_gradient_norm(policy: Any, folder: Path, **changed: Any) -> float:
    config = settings(policy, steps=1, epochs=1, **changed)
    run_here(run_folder(folder, config, prompts=prompts()))
    return heldout_curve(folder, "grad_norm")[1]


@pytest.mark.fp32
def test_a_reply_that_was_cut_teaches_nothing_if_masked(policy: Any, tmp_path: Path) -> None:
    cut = {"sampling": {"max_new_tokens": 4}}  # hardly any reply of this policy ends so soon
    learned = first_gradient_norm(policy, tmp_path / "learned", **cut)
    masked = first_gradient_norm(policy, tmp_path / "masked", mask_truncated=True, **cut)
    assert masked < 0.5 * learned


@pytest.mark.fp32
def test_each_way_to_average_the_loss_gives_another_gradient(policy: Any, tmp_path: Path) -> None:
    norms = {loss: first_gradient_norm(policy, tmp_path / loss, loss=loss) for loss in ("grpo", "dapo", "dr_grpo")}
    assert len({round(norm, 5) for norm in norms.values()}) == 3
    assert norms["dr_grpo"] <= norms["dapo"]  # divides by the longest possible reply


def test_ratios_of_whole_replies_change_later_passes(policy: Any, tmp_path: Path) -> None:
    weights = {}
    for ratio in ("token", "sequence"):
        folder = run_folder(
            tmp_path / ratio, settings(policy, steps=1, epochs=3, loss="grpo", ratio=ratio), prompts=prompts()
        )
        run_here(folder)
        weights[ratio] = load_file(folder / "model" / "model.safetensors")
    assert any(not torch.equal(weight, weights["token"][name]) for name, weight in weights["sequence"].items())


def test_ratios_of_whole_replies_need_the_loss_grpo() -> None:
    with pytest.raises(ValueError, match="needs the loss grpo"):
        GRPOSettings(ratio="sequence")


@pytest.mark.fp32
def test_bnpo_averages_over_the_tokens_of_each_pass(policy: Any, tmp_path: Path) -> None:
    whole = {loss: first_gradient_norm(policy, tmp_path / loss, loss=loss) for loss in ("bnpo", "dapo")}
    assert whole["bnpo"] == pytest.approx(whole["dapo"], rel=1e-3)  # the step is one pass
    pieces = {
        loss: first_gradient_norm(policy, tmp_path / f"{loss}-pieces", loss=loss, micro_tokens=60)
        for loss in ("bnpo", "dapo")
    }
    assert pieces["dapo"] == pytest.approx(whole["dapo"], rel=1e-3)
    assert pieces["bnpo"] != pytest.approx(whole["bnpo"], rel=1e-3)


# ----------------------------------------------------------------------------------------------------------------- RLOO


def test_replies_get_better_by_rloo(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, loss="rloo", beta=0.01)
    result = run_here(run_folder(tmp_path, config, prompts=prompts(), heldout=prompts(16)))
    assert result["metrics"]["heldout_reward"] > result["metrics"]["heldout_reward_before"] + 0.3
    kl = heldout_curve(tmp_path, "kl")
    assert kl[1] == pytest.approx(0, abs=1e-2)
    assert max(kl.values()) > 0.01


@pytest.mark.fp32
def test_rloo_s_gradient_is_that_of_reinforce_with_the_others_mean_as_baseline(
    policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(1 / N) sum of (reward - mean of the other rewards) * grad log p(reply), over the constant longest length."""
    config = settings(policy, loss="rloo", beta=0.0, steps=1, grad_clip=0, prompts_per_step=2, samples_per_prompt=4)
    folder = run_folder(tmp_path, config, prompts=prompts(2))
    seen: list[dict[str, Any]] = []
    called = TRLRollouts.__call__

    def keep(rollouts: TRLRollouts, *arguments: Any) -> dict[str, Any]:
        seen.append(called(rollouts, *arguments))
        return seen[-1]

    monkeypatch.setattr(TRLRollouts, "__call__", keep)
    run_here(folder)
    batch = seen[0]
    scores = torch.tensor(batch["score"]).view(2, 4)
    advantages = (scores - (scores.sum(1, keepdim=True) - scores) / 3).flatten()
    model = AutoModelForCausalLM.from_pretrained(policy)
    loss = torch.zeros(())
    for prompt, reply, advantage in zip(batch["prompt_ids"], batch["completion_ids"], advantages, strict=True):
        logits = model(torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
        loss = loss - advantage * logits.log_softmax(-1)[range(len(reply)), reply].sum() / (8 * 8)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert heldout_curve(folder, "grad_norm")[1] == pytest.approx(float(norm), rel=1e-3)


def test_rloo_s_penalty_holds_the_policy_to_where_it_began(policy: Any, tmp_path: Path) -> None:
    moved = {}
    for beta in (0.0, 1.0):
        config = settings(policy, loss="rloo", beta=beta, steps=30, evaluate_every=30)
        run_here(run_folder(tmp_path / str(beta), config, prompts=prompts(), heldout=prompts(8)))
        moved[beta] = heldout_curve(tmp_path / str(beta), "heldout_kl")[30]
    assert moved[1.0] < 0.5 * moved[0.0]


def test_rloo_never_divides_by_the_deviation() -> None:
    with pytest.raises(ValueError, match="scale_rewards: it has no effect with loss rloo"):
        GRPOSettings(loss="rloo", scale_rewards=False)


# ----------------------------------------------------------------------------------------------------- dynamic sampling


def test_groups_that_teach_nothing_are_replaced(policy: Any, tmp_path: Path) -> None:
    shares = {}
    for rounds in (0, 4):
        config = settings(policy, reward="function:digits-of-odd", steps=4, dynamic_sampling=rounds, learning_rate=1e-4)
        run_here(run_folder(tmp_path / str(rounds), config, prompts=prompts(40)))
        shares[rounds] = sum(heldout_curve(tmp_path / str(rounds), "frac_reward_zero_std").values()) / 4
    replaced, left = (heldout_curve(tmp_path / "4", f"dynamic/{name}") for name in ("replaced", "equal"))
    assert shares[0] > 0.2
    assert shares[4] < 0.5 * shares[0]
    assert sum(replaced.values()) > 2
    assert sum(left.values()) / 16 == pytest.approx(shares[4])


def test_it_stops_at_its_limit_and_where_no_prompt_is_left(policy: Any, tmp_path: Path) -> None:
    config = settings(policy, reward="function:nothing-much", steps=2, dynamic_sampling=3)
    run_here(run_folder(tmp_path / "limit", config, prompts=prompts(40)))
    assert set(heldout_curve(tmp_path / "limit", "dynamic/replaced").values()) == {12.0}  # 4 groups, 3 times
    run_here(run_folder(tmp_path / "few", config, prompts=prompts(8)))
    assert set(heldout_curve(tmp_path / "few", "dynamic/replaced").values()) == {4.0}
    assert set(heldout_curve(tmp_path / "few", "dynamic/equal").values()) == {4.0}


def test_spare_prompts_are_those_that_the_step_has_not_seen() -> None:
    assert sorted(spare_prompts(6, [1, 4], step=3, seed=0)) == [0, 2, 3, 5]
    assert spare_prompts(50, [], step=3, seed=0) == spare_prompts(50, [], step=3, seed=0) != list(range(50))
    assert equal_groups(torch.tensor([1.0, 1.0, 0.0, 1.0, 2.0, 2.0]), 2) == [0, 2]
