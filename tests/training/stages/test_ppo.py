"""Proximal policy optimization from a run folder to its result.

Over 300 lines: all cases share the run folder and its settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.training import written_rewards  # noqa: F401 - it registers rewards
from tests.training.toys import events, prompts, run_folder, run_here, toy_policy, toy_tokenizer, turns
from training.contract import SPECS, FrontierRow, InputError, TrainingError, Turn
from training.data.chat_format import ChatFormat
from training.engine.llama_inference import LlamaForward
from training.preferences.reward_functions import digits

CLOCKS = {"tokens_per_second", "time/rollout", "time/score", "time/update"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: Any) -> Path:
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


def settings(source: Path, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "ppo", "policy": str(source), "reward": "function:brevity", "steps": 3, "prompts_per_step": 8,
        "epochs": 2, "learning_rate": 1e-3, "value_learning_rate": 1e-2, "value_warmup": 1, "evaluate_every": 0,
        "checkpoint_every": 0, "sampling": {"max_new_tokens": 6}, **changed,
    }  # fmt: skip


def metrics(folder: Path) -> dict[tuple[int, str], float]:
    """The run's curves; a step told twice, before and after a resume, counts once."""
    return {
        (event["step"], name): value
        for event in events(folder, "metric")
        for name, value in event["values"].items()
        if name not in CLOCKS
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# ------------------------------------------------------------------------------------------------------------ learning


def exact_objective(model: Any, reference: Any, asked: list[list[int]], rewards: torch.Tensor, beta: float) -> float:
    """E[reward] - beta KL of one-token replies, by summing over the whole vocabulary; mean over prompts."""
    total = 0.0
    for ids in asked:
        with torch.no_grad():
            p, q = (m(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(0) for m in (model, reference))
        total += float((p.exp() * (rewards - beta * (p - q))).sum())
    return total / len(asked)


def test_it_comes_near_the_best_policy_there_is(policy: Any, tmp_path: Path) -> None:
    """With replies of one token the best policy is known: reference * exp(reward / beta), whose objective is
    beta log sum(reference exp(reward / beta)) (Ziegler et al. 2019, section 2.1)."""
    beta = 0.2
    folder = run_folder(
        tmp_path,
        settings(
            policy, reward="function:digits", steps=60, prompts_per_step=64, epochs=4, learning_rate=5e-3,
            kl_coefficient=beta, normalize_rewards=False, no_end_penalty=0, value_warmup=2, schedule="linear",
            sampling={"max_new_tokens": 1}, final_lr=0.02,
        ),
        prompts=prompts(4),
    )  # fmt: skip
    run_here(folder)
    tokenizer = toy_tokenizer()
    chat = ChatFormat(tokenizer)
    asked = [chat.prompt([Turn(**turn) for turn in row["messages"]]) for row in prompts(4)]
    rewards = torch.tensor([digits([], chat.decode([v])) for v in range(len(tokenizer))], dtype=torch.float64)
    before, after = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (policy, folder / "model"))
    best = 0.0
    for ids in asked:
        with torch.no_grad():
            q = before(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(0)
        best += float(beta * torch.logsumexp(q + rewards / beta, 0)) / len(asked)
    start = exact_objective(before, before, asked, rewards, beta)
    reached = exact_objective(after, before, asked, rewards, beta)
    assert best > start + 0.3
    assert start + 0.9 * (best - start) < reached <= best + 1e-9


def test_replies_of_many_tokens_get_better(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path,
        settings(policy, reward="function:digits", steps=40, prompts_per_step=32, epochs=4, learning_rate=3e-3),
        prompts=prompts(), heldout=prompts(16),
    )  # fmt: skip
    result = run_here(folder)
    assert result["metrics"]["heldout_reward"] > result["metrics"]["heldout_reward_before"] + 0.5
    low, high, n = result["intervals"]["heldout_reward"]
    assert low <= result["metrics"]["heldout_reward"] <= high
    assert n == 16


@pytest.fixture(scope="module")
def finished(policy: Any, tmp_path_factory: Any) -> Any:
    folder = run_folder(tmp_path_factory.mktemp("finished"), settings(policy), prompts=prompts(), heldout=prompts(3))
    return folder, run_here(folder)


def test_every_figure_is_told_at_every_step(finished: Any) -> None:
    folder, _ = finished
    told = events(folder, "metric")
    last = {name for event in told if event["step"] == 3 for name in event["values"]}
    assert last >= {
        "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
        "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg",
        "policy/entropy_avg", "val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode", "length/mean",
        "tokens_per_second", "time/rollout", "time/score", "time/update",
        "heldout_reward", "heldout_kl", "heldout_length",
    }  # fmt: skip
    assert events(folder, "sample")[0]["reward"] is not None


def test_the_frontier_of_reward_and_kl_is_written(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, evaluate_every=1), prompts=prompts(), heldout=prompts(3))
    result = run_here(folder)
    rows = [FrontierRow(**json.loads(line)) for line in (folder / "output" / "frontier.jsonl").read_text().splitlines()]
    assert [row.step for row in rows] == [0, 1, 2, 3]
    curves = metrics(folder)
    for row in rows:
        assert (row.kl, row.reward) == (curves[row.step, "heldout_kl"], curves[row.step, "heldout_reward"])
    best = max(rows, key=lambda row: row.reward)
    assert best.reward == max(result["metrics"]["heldout_reward"], result["metrics"]["heldout_reward_before"])
    assert any(row.on_frontier for row in rows if row.reward == best.reward)
    assert "output/frontier.jsonl" in result["files"]


def test_without_held_out_prompts_there_is_no_frontier(policy: Any, tmp_path: Path) -> None:
    run_here(run_folder(tmp_path, settings(policy, steps=1), prompts=prompts()))
    assert not (tmp_path / "output").exists()


@pytest.mark.fp32
def test_the_rollout_and_the_first_pass_agree(finished: Any) -> None:
    folder, _ = finished
    curves = metrics(folder)
    assert curves[2, "val/rollout_gap"] < 1e-5
    assert curves[1, "objective/kl"] == pytest.approx(0, abs=1e-4)
    assert not events(folder, "warning")


@pytest.mark.parametrize("lora", [{}, {"rank": 2}], ids=["full", "adapter"])
def test_in_bf16_they_agree_to_its_rounding(policy: Any, tmp_path: Path, lora: Any) -> None:
    """Bf16 keeps eight bits: a logit of 4 is known to 1/64."""
    folder = run_folder(tmp_path, settings(policy, precision="bf16", value_warmup=0, lora=lora), prompts=prompts())
    run_here(folder)
    curves = metrics(folder)
    assert 0 < curves[1, "val/rollout_gap"] < 0.02
    assert curves[1, "val/ratio"] == pytest.approx(1, abs=0.02)
    assert curves[1, "objective/kl"] == pytest.approx(0, abs=0.05)
    assert not [event for event in events(folder, "warning") if "differ by" in event["message"]]


@pytest.mark.fp32
def test_the_first_pass_has_ratio_one_and_clips_nothing(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, epochs=1, value_warmup=0), prompts=prompts())
    run_here(folder)
    for step in (1, 2, 3):
        assert metrics(folder)[step, "val/ratio"] == pytest.approx(1, abs=1e-5)
        assert metrics(folder)[step, "val/ratio_var"] == pytest.approx(0, abs=1e-5)
        assert metrics(folder)[step, "policy/clipfrac_avg"] == 0


def test_the_first_steps_teach_only_the_value(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, steps=2, value_warmup=2), prompts=prompts())
    run_here(folder)
    before, after = weights(policy), weights(folder / "model")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (1, "loss/value_avg") in metrics(folder)


def test_the_policy_moves_and_the_folder_it_began_from_does_not(finished: Any, policy: Any) -> None:
    folder, result = finished
    before, after = weights(policy), weights(folder / "model")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert result["model"]["kind"] == "full"


@pytest.mark.parametrize("changed", [{"micro_tokens": 40}, {"minibatches": 1, "micro_tokens": 150}])
@pytest.mark.fp32
def test_micro_batches_do_not_change_what_is_learned(finished: Any, policy: Any, tmp_path: Path, changed: Any) -> None:
    folder = run_folder(tmp_path, settings(policy, **changed), prompts=prompts(), heldout=prompts(3))
    run_here(folder)
    whole, pieces = weights(finished[0] / "model"), weights(folder / "model")
    for name, weight in whole.items():
        assert torch.allclose(weight, pieces[name], atol=2e-4)


@pytest.mark.fp32
def test_minibatches_take_more_steps_of_fewer_replies(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, minibatches=4, samples_per_prompt=2), prompts=prompts())
    result = run_here(folder)
    assert result["counts"]["episodes"] == 3 * 8 * 2
    assert metrics(folder)[2, "val/rollout_gap"] < 1e-5


def test_it_leaves_a_rollout_once_the_update_moved_too_far(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, epochs=8, update_kl_stop=1e-9), prompts=prompts())
    run_here(folder)
    assert metrics(folder)[2, "val/stopped_early"] == 1


@pytest.mark.fp32
def test_a_temperature_is_part_of_the_policy(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, settings(policy, sampling={"max_new_tokens": 6, "temperature": 0.6}), prompts=prompts()
    )
    run_here(folder)
    assert metrics(folder)[2, "val/rollout_gap"] < 1e-5
    assert metrics(folder)[1, "objective/kl"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_an_engine_with_other_weights_shows_in_the_gap(
    policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    load = LlamaForward.load

    def load_with_noise(forward: LlamaForward) -> None:
        load(forward)
        assert isinstance(forward.head, torch.Tensor)  # not in 8 bits
        noise = torch.randn(forward.head.shape, generator=torch.Generator().manual_seed(0))
        forward.head = forward.head + 0.05 * noise.to(forward.head.dtype)

    monkeypatch.setattr(LlamaForward, "load", load_with_noise)
    sampling = {"max_new_tokens": 6, "temperature": temperature}
    folder = run_folder(tmp_path, settings(policy, sampling=sampling), prompts=prompts())
    run_here(folder)
    assert metrics(folder)[2, "val/rollout_gap"] > 0.05
    assert any("rollout" in event["message"] for event in events(folder, "warning"))


@pytest.mark.parametrize("stage", ["ppo", "grpo", "dpo", "kto"])
def test_stages_that_compare_log_probabilities_refuse_dropout(stage: str) -> None:
    settings_of_stage = SPECS[stage].settings
    assert (
        "dropout"
        not in settings_of_stage.model_validate({"stage": stage, "lora": {"dropout": 0.0}}).model_dump()["lora"]
    )
    with pytest.raises(ValueError, match="dropout would blur"):
        settings_of_stage.model_validate({"stage": stage, "lora": {"rank": 2, "dropout": 0.1}})


def test_pretraining_text_is_mixed_in(policy: Any, tmp_path: Path) -> None:
    corpus = [{"id": f"text:{i}", "text": "the sea is blue and the sky is blue"} for i in range(20)]
    folder = run_folder(
        tmp_path, settings(policy, steps=8, ptx_weight=1.0, batch_tokens=128), prompts=prompts(), corpus=corpus
    )
    run_here(folder)
    curves = metrics(folder)
    assert curves[8, "loss/ptx"] < curves[2, "loss/ptx"] - 0.2


def test_an_adaptive_coefficient_follows_the_kl(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path, settings(policy, kl_target=5.0, kl_horizon=100, kl_coefficient=0.1), prompts=prompts()
    )
    run_here(folder)
    curves = metrics(folder)
    assert curves[1, "objective/kl_coefficient"] == pytest.approx(0.1)
    assert curves[2, "objective/kl_coefficient"] == pytest.approx(0.1 * (1 - 0.2 * 8 / 100))


# ------------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.fp32
def test_an_adapter_learns_over_one_copy_of_the_base(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", settings(policy, lora={"rank": 2}, learning_rate=1e-2), prompts=prompts())
    result = run_here(folder)
    assert result["model"]["kind"] == "adapter"
    assert metrics(folder)[1, "objective/kl"] == pytest.approx(0, abs=1e-4)
    assert metrics(folder)[3, "objective/kl"] != 0
    saved = load_file(folder / "model" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in saved.items() if "lora_B" in name)


@pytest.mark.fp32
def test_an_adapter_that_goes_on_learning_is_held_to_where_it_began(policy: Any, tmp_path: Path) -> None:
    first = run_folder(tmp_path / "first", settings(policy, lora={"rank": 2}, learning_rate=1e-2), prompts=prompts())
    run_here(first)
    second = run_folder(
        tmp_path / "second", settings(first / "model", lora={"rank": 2}, learning_rate=1e-2), prompts=prompts()
    )
    run_here(second)
    assert metrics(second)[1, "objective/kl"] == pytest.approx(0, abs=1e-4)
    base = AutoModelForCausalLM.from_pretrained(policy)
    assert list(PeftModel.from_pretrained(base, second / "model").peft_config) == ["default"]
    before, after = (load_file(f / "model" / "adapter_model.safetensors") for f in (first, second))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


# ----------------------------------------------------------------------------------------------------------- bad input


def test_a_reward_that_never_varies_is_told_once_and_harms_nothing(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, reward="function:always-three", no_end_penalty=0), prompts=prompts())
    result = run_here(folder)
    told = [event["message"] for event in events(folder, "warning")]
    assert len([message for message in told if "same score" in message]) == 1
    assert result["metrics"]["objective/scores"] == 3
    assert all(weight.isfinite().all() for weight in weights(folder / "model").values())


def test_a_reward_that_is_no_number_stops_the_run(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, reward="function:not-a-number"), prompts=prompts())
    with pytest.raises(TrainingError, match=r"reward not-a-number: ValueError: its score of reply 1 is nan"):
        run_here(folder)


def test_a_policy_that_is_damaged_is_no_number_either(tmp_path: Path) -> None:
    policy = toy_policy(tmp_path / "policy")
    broken = weights(policy)
    broken["model.norm.weight"][:] = float("nan")
    save_file(broken, policy / "model.safetensors", {"format": "pt"})
    folder = run_folder(tmp_path / "run", settings(policy), prompts=prompts())
    with pytest.raises(TrainingError, match="not finite"):
        run_here(folder)


def test_prompts_that_are_too_long_are_left_out_and_counted(policy: Any, tmp_path: Path) -> None:
    rows = [*prompts(4), {"id": "prompt:long", "messages": turns("the cat sat on the mat " * 20)}]
    folder = run_folder(tmp_path, settings(policy), prompts=rows)
    result = run_here(folder)
    assert (result["counts"]["prompts"], result["counts"]["left_out/too_long"]) == (4, 1)
    assert "1 of 5 prompts are left out" in events(folder, "warning")[0]["message"]


def test_nothing_but_long_prompts_is_a_sentence(policy: Any, tmp_path: Path) -> None:
    rows = [{"id": "prompt:long", "messages": turns("the cat sat on the mat " * 20)}]
    with pytest.raises(InputError, match="1 of 1 prompts are left out: longer than 58 tokens"):
        run_here(run_folder(tmp_path, settings(policy), prompts=rows))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"sampling": {"temperature": 0}}, "same reply every time"),
        ({"sampling": {"max_new_tokens": 64}}, "no room for a prompt"),
        ({"reward": "function:nothing"}, "no reward function is named function:nothing"),
        ({"reward": "/nowhere"}, "there is no such reward model folder"),
        ({"shaping": "nothing=1"}, "no reward function is named function:nothing"),
        ({"shaping": "brevity"}, "shaping: “brevity” is not a registered function's name, = and a weight"),
        ({"shaping": "not-a-number=1"}, "shaping not-a-number: ValueError: its score of reply 1 is nan"),
        ({"policy": "/nowhere"}, "there is no such"),
        ({"min_rows": 50}, "ppo: 12 prompts in the snapshot, at least 50 are needed"),
    ],
)
def test_what_cannot_work_is_said_before_it_starts(policy: Any, tmp_path: Path, changed: Any, sentence: Any) -> None:
    folder = run_folder(tmp_path, settings(policy, **changed), prompts=prompts())
    with pytest.raises(TrainingError, match=sentence):
        run_here(folder)
    assert sentence in events(folder, "failed")[0]["message"]


def test_a_cut_distribution_is_warned_of(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, sampling={"max_new_tokens": 4, "top_k": 5}), prompts=prompts())
    run_here(folder)
    assert "top_p and top_k" in events(folder, "warning")[0]["message"]


def test_a_second_start_of_a_finished_run_changes_nothing(finished: Any) -> None:
    folder, result = finished
    assert json.loads((folder / "result.json").read_text()) == result
    run_here(folder)
    assert json.loads((folder / "result.json").read_text()) == result
