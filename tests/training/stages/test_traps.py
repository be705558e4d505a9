"""What goes wrong elsewhere and looks right: pad tokens that are stop tokens, empty replies, one row, ties, numbers
that are none, tied embeddings, texts that begin twice.

Over 300 lines: it is a list of traps, each short.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.narrowing import existing
from tests.training.toys import (
    CHATML,
    NO_END,
    TEXTS,
    events,
    foreign_policy,
    foreign_tokenizer,
    prompts,
    run_folder,
    run_here,
    tiny_folder,
    tiny_model,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.contract import DemonstrationRow, InputError, LoraSettings, TrainingError, Turn
from training.data.chat_format import ChatFormat
from training.data.demonstrations import demonstration_examples, encode_demonstrations
from training.engine import Engine
from training.models.adapters import add_adapter
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal, load_tokenizer, save_model
from training.optim.losses import weighted_loss
from training.preferences.reward_model import encode as encode_for_reward
from training.preferences.reward_model import load_reward, reward_from_language_model, save_reward, score
from training.serve.pool import ModelPool

CPU = Compute(torch.device("cpu"), torch.float32)
ASK = [Turn(role="user", content="is it?")]
DEMONSTRATIONS = [{"id": f"demonstration:{i}", "messages": turns(f"is it {i}?", "yes of course")} for i in range(4)]
SFT = {"stage": "sft", "max_tokens": 100, "batch_tokens": 64, "max_steps": 2, "evaluate_every": 0}
REWARD = {"stage": "reward", "min_rows": 1, "max_steps": 2, "max_tokens": 100, "evaluate_every": 0}
PPO = {
    "stage": "ppo", "reward": "function:brevity", "steps": 1, "prompts_per_step": 4, "epochs": 2, "value_warmup": 0,
    "evaluate_every": 0, "sampling": {"max_new_tokens": 6},
}  # fmt: skip
GRPO = {
    "stage": "grpo", "reward": "function:brevity", "steps": 1, "prompts_per_step": 1, "samples_per_prompt": 2,
    "sampling": {"max_new_tokens": 4},
}  # fmt: skip


def ranking(
    i: int = 0, replies: tuple[str, ...] = ("yes", "no"), groups: list[list[int]] | None = None
) -> dict[str, Any]:
    return {
        "id": f"ranking:{i}", "messages": turns(f"is it {i}?"), "replies": list(replies), "groups": groups or [[0], [1]]
    }  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_policy(tmp_path_factory.mktemp("base") / "model")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def told(folder: Path) -> list[str]:
    return [event["message"] for event in events(folder, "warning")]


# --------------------------------------------------------------------------------------- the pad token is the end token


@pytest.fixture(scope="module", params=[CHATML, NO_END], ids=["end of turn", "end of text"])
def padless(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model whose tokenizer has no pad token, so that its end of text pads; with the second template that is
    what ends a reply, too."""
    return foreign_policy(tmp_path_factory.mktemp("padless") / "model", foreign_tokenizer(request.param))


def test_the_loss_is_on_the_stop_token_even_where_it_pads(padless: Path) -> None:
    tokenizer = load_tokenizer(str(padless))
    chat, model = ChatFormat(tokenizer), load_causal(str(padless), CPU)
    assert chat.pad_id == tokenizer.eos_token_id
    rows = [DemonstrationRow(**row) for row in DEMONSTRATIONS[:2]]
    rows.append(DemonstrationRow(id="long", messages=turns("a" * 40, "b", "c", "no never")))
    kept, encoded, _, _ = encode_demonstrations(chat, rows, 128)
    assert kept == rows
    batch = demonstration_examples(encoded, chat, CPU.device).batch(np.arange(3))
    ended = 4 if chat.tokenizer.chat_template == CHATML else 3  # of four turns; an earlier one has no end in NO_END
    assert (batch.targets == chat.end_id).sum() == ended
    slow = 0.0
    for one, _ in encoded:
        logprobs = model(torch.tensor([one.ids])).logits[0].double().log_softmax(-1)
        slow -= sum(float(logprobs[i - 1, one.ids[i]]) for i in range(1, len(one.ids)) if one.mask[i])
    assert float(weighted_loss(Forward(model), batch)["loss"][0]) == pytest.approx(slow, rel=1e-5)


def test_fine_tuning_such_a_model_uses_every_row_and_says_what_pads(padless: Path, tmp_path: Path) -> None:
    result = run_here(run_folder(tmp_path, SFT | {"base": str(padless)}, demonstrations=DEMONSTRATIONS))
    assert (result["counts"]["used"], result["counts"]["left_out"]) == (4, 0)
    assert [message for message in told(tmp_path) if "has no pad token; its end-of-text token </s> pads" in message]


def test_a_reward_model_of_it_is_read_at_the_end_token_by_us_and_by_others(padless: Path, tmp_path: Path) -> None:
    rows = [ranking(i, ("yes of course", "no")) for i in range(3)]
    run_here(run_folder(tmp_path, REWARD | {"base": str(padless)}, rankings=rows))
    folder = str(tmp_path / "model")
    model, tokenizer = load_reward(folder, CPU)
    talks = [[*ASK, Turn(role="assistant", content=reply)] for reply in ("yes", "no never of the sort", "")]
    ours = score(model, tokenizer, talks)
    others = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
    encoded = [encode_for_reward(chat, talk[:-1], talk[-1].content, 128).encoded.ids for talk in talks]
    assert all(ids[-1] == chat.end_id for ids in encoded)
    batch = chat.tokenizer.pad({"input_ids": encoded}, return_tensors="pt", padding_side="right")
    assert others(**batch).logits.flatten().tolist() == pytest.approx(ours, abs=1e-5)


def test_the_engine_stops_at_what_ends_a_reply_in_the_chat_format_whatever_the_model_names(padless: Path) -> None:
    tokenizer = load_tokenizer(str(padless))
    chat, model = ChatFormat(tokenizer), load_causal(str(padless), CPU)
    engine = Engine(model, tokenizer, stop_ids=chat.stop_ids)
    assert engine.stop_ids == {chat.end_id, tokenizer.eos_token_id}
    pool = ModelPool(CPU, slots=1, max_models=1)
    pool.load("it", str(padless))
    assert existing(pool.get("it")).stop_ids == engine.stop_ids


@pytest.mark.fp32
def test_ppo_reads_the_right_end_token_and_padding_changes_nothing(padless: Path, tmp_path: Path) -> None:
    """Half of the replies end at their first token: the model is made to find its end token likely."""
    policy = foreign_policy(
        tmp_path / "policy", AutoTokenizer.from_pretrained(padless), tie_word_embeddings=False, attention_bias=False
    )
    chat = ChatFormat(load_tokenizer(str(policy)))
    own = weights(policy)
    own["lm_head.weight"] *= 0.3
    own["lm_head.weight"][chat.end_id] *= 20
    save_file(own, policy / "model.safetensors", {"format": "pt"})
    curves = []
    for name, micro in (("whole", 4096), ("pieces", 64)):
        folder = run_folder(
            tmp_path / name, PPO | {"policy": str(policy), "micro_tokens": micro, "prompts_per_step": 12},
            prompts=prompts(),
        )  # fmt: skip
        run_here(folder)
        curves.append({n: v for e in events(folder, "metric") for n, v in e["values"].items() if "time" not in n})
    whole, pieces = ({n: v for n, v in one.items() if n != "tokens_per_second"} for one in curves)
    assert 0 < whole["val/num_eos_tokens"] < 12
    assert 1 < whole["length/mean"] < 6
    assert whole["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert whole["val/rollout_gap"] < 1e-5
    assert pieces == pytest.approx(whole, rel=1e-3, abs=1e-5)


@pytest.mark.fp32
def test_dpo_learns_the_same_however_its_pairs_are_padded(padless: Path, tmp_path: Path) -> None:
    rows = [ranking(i, ("yes of course" * (i + 1), "no")) for i in range(4)]
    config = {"stage": "dpo", "policy": str(padless), "min_rows": 1, "max_steps": 1, "learning_rate": 1e-2}
    for name, micro in (("whole", 4096), ("alone", 32)):
        run_here(run_folder(tmp_path / name, config | {"micro_tokens": micro}, rankings=rows))
    whole, alone = (weights(tmp_path / name / "model") for name in ("whole", "alone"))
    assert all(torch.allclose(weight, alone[name], atol=1e-4) for name, weight in whole.items())
    assert any(not torch.equal(weight, whole[name]) for name, weight in weights(padless).items())


# -------------------------------------------------------------------------------------------------------- empty replies


def test_an_empty_reply_teaches_nothing_and_its_row_is_named(base: Path, tmp_path: Path) -> None:
    rows = [*DEMONSTRATIONS, {"id": "demonstration:empty", "messages": turns("is it?", " ")}]
    result = run_here(run_folder(tmp_path / "run", SFT | {"base": str(base), "max_tokens": 60}, demonstrations=rows))
    assert result["counts"]["left_out"] == 1
    assert told(tmp_path / "run") == [
        "1 of 5 demonstrations are left out: the last reply is empty (the first is demonstration:empty)"
    ]
    alone = run_folder(tmp_path / "alone", SFT | {"base": str(base)}, demonstrations=rows[-1:])
    with pytest.raises(InputError, match=r"0 of 1 .*the last reply is empty \(the first is demonstration:empty"):
        run_here(alone)


@pytest.mark.parametrize("template", [None, CHATML, NO_END], ids=["ours", "end of turn", "end of text"])
@pytest.mark.parametrize("stage", ["reward", "dpo", "kto"])
def test_an_empty_reply_can_be_ranked(stage: str, template: str | None, base: Path, tmp_path: Path) -> None:
    source = foreign_policy(tmp_path / "model", foreign_tokenizer(template)) if template else base
    config = {"stage": stage, "base" if stage == "reward" else "policy": str(source), "min_rows": 1, "log_every": 1}
    rows = [ranking(i, ("yes of course", "")) for i in range(2)]
    result = run_here(run_folder(tmp_path / "run", config, rankings=rows))
    assert result["metrics"]["loss"] == pytest.approx(result["metrics"]["loss"])
    assert result["metrics"]["skipped"] == 0


# --------------------------------------------------------------------------------------------------------- long prompts


@pytest.mark.parametrize("stage", ["ppo", "grpo", "sample"])
def test_prompts_longer_than_the_context_are_left_out_or_cut_and_counted(
    stage: str, base: Path, tmp_path: Path
) -> None:
    rows = [*prompts(3), {"id": "prompt:long", "messages": turns("the cat sat on the mat " * 20)}]
    sample: dict[str, Any] = {"stage": "sample", "sampling": {"max_new_tokens": 4}}
    config = {"ppo": PPO, "grpo": GRPO, "sample": sample}[stage]
    counts = {}
    for how in ("drop", "shorten"):
        folder = run_folder(tmp_path / how, config | {"policy": str(base), "long_prompts": how}, prompts=rows)
        result = run_here(folder)
        counts[how] = (result["counts"]["left_out/too_long"], result["counts"]["cut/question"])
        assert [message for message in told(folder) if "longer than" in message or "shortened to" in message]
    assert counts == {"drop": (1, 0), "shorten": (0, 1)}
    answered = (tmp_path / "shorten" / "output" / "samples.jsonl").read_text() if stage == "sample" else "prompt:long"
    assert "prompt:long" in answered


def test_a_window_is_the_context_of_replies(tmp_path: Path) -> None:
    """Mistral's window of 48 tokens slides in a context of 64, and our engine ends where it would begin to."""
    policy = tiny_folder(tmp_path / "policy", "mistral")
    rows = [
        *prompts(3),
        {"id": "prompt:long", "messages": turns("the cat sat " + "zebra " * 7)},
    ]
    length = len(ChatFormat(toy_tokenizer()).prompt([Turn(**turn) for turn in rows[-1]["messages"]]))
    assert 48 - 6 < length <= 64 - 6
    result = run_here(run_folder(tmp_path / "run", PPO | {"policy": str(policy)}, prompts=rows))
    assert result["counts"]["left_out/too_long"] == 1


# -------------------------------------------------------------------------------------------------------------- one row


ONE: dict[str, dict[str, Any]] = {
    "corpus": {"documents": [{"id": "1", "text": "the cat sat on the mat and it was the only text there was"}]},
    "tokenizer": {"corpus": [{"id": "1", "text": " ".join(TEXTS)}]},
    "pretrain": {"corpus": [{"id": "1", "text": "the cat sat"}]},
    "sft": {"demonstrations": DEMONSTRATIONS[:1]},
    "reward": {"rankings": [ranking()]},
    "ppo": {"prompts": prompts(1)},
    "dpo": {"rankings": [ranking()]},
    "kto": {"rankings": [ranking()]},
    "grpo": {"prompts": prompts(1)},
    "sample": {"prompts": prompts(1)},
    "evaluate": {"prompts": prompts(1), "rankings": [ranking()], "demonstrations": DEMONSTRATIONS[:1]},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "corpus": {}, "tokenizer": {"vocabulary": 300}, "pretrain": {"context": 32, "max_steps": 1},
    "sft": {"max_steps": 1, "max_tokens": 60}, "reward": {"min_rows": 1, "ties": "half"},
    "ppo": PPO | {"prompts_per_step": 1}, "dpo": {"min_rows": 1}, "kto": {"min_rows": 1}, "grpo": GRPO,
    "sample": {"replies": 1, "sampling": {"max_new_tokens": 4}},
    "evaluate": {"reward": "function:brevity", "sampling": {"max_new_tokens": 4}},
}  # fmt: skip


@pytest.mark.parametrize("stage", ONE)
def test_one_row_is_enough(stage: str, base: Path, tmp_path: Path) -> None:
    config = {"stage": stage, **SETTINGS[stage]}
    if stage not in ("corpus", "tokenizer"):
        config["base" if stage in ("pretrain", "sft", "reward") else "policy"] = str(base)
    if stage == "evaluate":
        config["baseline"] = str(base)
    result = run_here(run_folder(tmp_path, config, **ONE[stage]))
    assert all(np.isfinite(value) for value in result["metrics"].values())
    assert not result["metrics"].get("skipped", 0)


# ----------------------------------------------------------------------------------------------------------------- ties


@pytest.mark.parametrize("groups", [[[0], [1], [2]], [[0, 1, 2]]], ids=["no ties", "all ties"])
@pytest.mark.parametrize("ties", ["half", "davidson", "drop"])
def test_rankings_without_ties_or_of_nothing_else(
    ties: str, groups: list[list[int]], base: Path, tmp_path: Path
) -> None:
    rows = [ranking(i, ("yes", "no", "never"), groups) for i in range(4)]
    folder = run_folder(tmp_path, REWARD | {"base": str(base), "ties": ties}, rankings=rows, heldout=rows[:2])
    if ties == "drop" and len(groups) == 1:
        with pytest.raises(InputError, match="no ranking puts one reply above another"):
            run_here(folder)
        return
    result = run_here(folder)
    assert all(np.isfinite(value) for value in result["metrics"].values())
    assert result["metrics"]["skipped"] == 0
    assert ("heldout_accuracy" in result["metrics"]) == (len(groups) == 3)


# ------------------------------------------------------------------------------------------------ numbers that are none


POISON = "~"


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to which one character is infinitely large: whoever reads it gets NaN, and nobody else does."""
    folder = tiny_folder(tmp_path_factory.mktemp("poisoned") / "model", "llama", tie_word_embeddings=False)
    own = weights(folder)
    (token,) = ChatFormat(toy_tokenizer()).text(POISON)
    own["model.embed_tokens.weight"][token] = float("inf")
    save_file(own, folder / "model.safetensors", {"format": "pt"})
    return folder


def rows_of(stage: str, bad: int, good: int) -> dict[str, list[dict[str, Any]]]:
    """`bad` rows with the character and `good` without."""
    asked = [f"is it {POISON}?"] * bad + [f"is it {i}?" for i in range(good)]
    if stage == "sft":
        return {"demonstrations": [{"id": f"d:{i}", "messages": turns(ask, "yes of")} for i, ask in enumerate(asked)]}
    return {"rankings": [ranking(i) | {"messages": turns(ask)} for i, ask in enumerate(asked)]}


def config_of(stage: str, source: Path, **changed: Any) -> dict[str, Any]:
    own: dict[str, Any] = {
        "max_steps": 4,
        "epochs": 50,
        "max_tokens": 60,
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "log_every": 1,
    }
    own |= {"stage": stage, "base" if stage in ("sft", "reward") else "policy": str(source), "min_rows": 1}
    return own | {"batch_tokens": 64, "micro_tokens": 64, "learning_rate": 1e-2} | changed


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "kto"])
def test_a_step_whose_numbers_are_none_changes_nothing_and_is_counted(
    stage: str, poisoned: Path, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path, config_of(stage, poisoned, max_steps=2), **rows_of(stage, bad=1, good=0))
    result = run_here(folder)
    assert result["metrics"]["skipped"] == 2
    assert len([message for message in told(folder) if "no finite number" in message]) >= 2
    before, after = weights(poisoned), weights(folder / "model")
    kept = [name for name in after if "layers.0.mlp" in name]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_the_steps_beside_it_are_learned_from(stage: str, poisoned: Path, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, config_of(stage, poisoned, max_steps=8), **rows_of(stage, bad=1, good=11))
    result = run_here(folder)
    assert 0 < result["metrics"]["skipped"] < 8
    assert np.isfinite(result["metrics"]["loss"])
    before, after = weights(poisoned), weights(folder / "model")
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].isfinite().all()
    assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_twenty_such_steps_in_a_row_end_the_run_with_advice(stage: str, poisoned: Path, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, config_of(stage, poisoned, max_steps=40), **rows_of(stage, bad=1, good=0))
    with pytest.raises(TrainingError, match="no finite number for 20 steps in a row: lower the learning rate"):
        run_here(folder)
    assert events(folder, "failed")[0]["code"] == "diverged"
    assert len([message for message in told(folder) if "step is skipped" in message]) in (19, 20)


def test_a_prompt_that_breaks_the_policy_stops_the_run_before_it_learns(poisoned: Path, tmp_path: Path) -> None:
    rows = [*prompts(2), {"id": "prompt:bad", "messages": turns(f"is it {POISON}?")}]
    with pytest.raises(TrainingError, match="numbers that are not finite"):
        run_here(run_folder(tmp_path, PPO | {"policy": str(poisoned)}, prompts=rows))


def test_infinite_weights_and_settings_are_refused_by_name(base: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [DEMONSTRATIONS[0], {**DEMONSTRATIONS[1], "weight": float("inf")}]
    with pytest.raises(InputError, match=r"demonstrations\.jsonl:2: weight: .*finite number"):
        run_here(run_folder(tmp_path / "rows", SFT | {"base": str(base)}, demonstrations=rows))
    with pytest.raises(InputError, match=r"grad_clip: .*finite number"):
        run_here(run_folder(tmp_path / "config", SFT | {"grad_clip": float("inf")}, demonstrations=rows[:1]))


def test_ppo_goes_on_under_a_reward_model_that_is_constant(base: Path, tmp_path: Path) -> None:
    _, model = reward_from_language_model(str(base), CPU, LoraSettings())
    torch.nn.init.zeros_(model.head.weight)
    save_reward(model, toy_tokenizer(), tmp_path / "reward", {"max_tokens": 64, "temperature": 1.0})
    config = PPO | {"policy": str(base), "reward": str(tmp_path / "reward"), "steps": 3, "no_end_penalty": 0}
    folder = run_folder(tmp_path / "run", config, prompts=prompts())
    result = run_here(folder)
    assert result["metrics"]["objective/scores"] == 0
    assert len([message for message in told(folder) if "same score" in message]) == 1
    assert all(weight.isfinite().all() for weight in weights(folder / "model").values())
    assert all(np.isfinite(value) for value in result["metrics"].values())


# ------------------------------------------------------------------------------------------ adapters on tied embeddings


@pytest.mark.parametrize("targets", ["lm_head", "embed_tokens, q_proj"])
def test_a_new_adapter_on_tied_embeddings_is_refused(targets: str, base: Path, tmp_path: Path) -> None:
    config = SFT | {"base": str(base), "lora": {"rank": 2, "targets": targets}}
    with pytest.raises(InputError, match=r"lora.targets: embed_tokens and lm_head share their weights"):
        run_here(run_folder(tmp_path, config, demonstrations=DEMONSTRATIONS))
    untied = tiny_model("llama", tie_word_embeddings=False)
    assert add_adapter(untied, LoraSettings(rank=2, targets=targets)) is not None


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("end", ["head", "embedding"])
def test_an_adapter_from_elsewhere_on_tied_embeddings_is_merged_without_changing_both(
    kind: str, end: str, tmp_path: Path
) -> None:
    base = tiny_folder(tmp_path / "base", kind, **({} if kind == "gpt2" else {"tie_word_embeddings": True}))
    name = {"head": "lm_head", "embedding": "wte" if kind == "gpt2" else "embed_tokens"}[end]
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, target_modules=[name], task_type="CAUSAL_LM", init_lora_weights=False),
    )
    for parameter_name, parameter in adapted.named_parameters():
        if "lora_" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_model(adapted, toy_tokenizer(), tmp_path / "adapter", [1])
    ids = torch.tensor([ChatFormat(toy_tokenizer()).text("the cat sat on the mat")])
    with torch.no_grad():
        expected = adapted.eval()(ids).logits
        with adapted.disable_adapter():
            assert (adapted(ids).logits - expected).abs().max() > 1e-2
        whole = load_causal(str(tmp_path / "adapter"), CPU)
        assert torch.allclose(whole(ids).logits, expected, atol=1e-5)
        save_model(whole, toy_tokenizer(), tmp_path / "whole", [1])
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
        assert not json.loads((tmp_path / "whole" / "config.json").read_text())["tie_word_embeddings"]
        assert torch.allclose(again(ids).logits, expected, atol=1e-5)


# ---------------------------------------------------------------------------------------- a text that would begin twice


@pytest.mark.fp32
def test_every_stage_begins_a_text_once(tmp_path: Path) -> None:
    """The template writes the token for the beginning of text, and the tokenizer would add it once more."""
    tokenizer = foreign_tokenizer("{{ bos_token }}" + CHATML, adds_bos=True, pad_token="<pad>")
    bos = tokenizer.bos_token_id
    assert tokenizer(tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False))[
        "input_ids"
    ].count(bos) == 2  # fmt: skip
    policy = foreign_policy(tmp_path / "model", tokenizer)
    chat = ChatFormat(load_tokenizer(str(policy)))
    (learned, _), = encode_demonstrations(chat, [DemonstrationRow(**DEMONSTRATIONS[0])], 100).examples  # fmt: skip
    scored = encode_for_reward(chat, ASK, "yes", 100).encoded.ids
    pool = ModelPool(CPU, slots=1, max_models=1)
    pool.load("it", str(policy))
    served = existing(existing(pool.get("it")).chat).prompt(ASK)
    for ids in (learned.ids, scored, chat.prompt(ASK), served):
        assert (ids[0], ids.count(bos)) == (bos, 1)
    result = run_here(run_folder(tmp_path / "run", PPO | {"policy": str(policy)}, prompts=prompts()))
    assert result["metrics"]["objective/kl"] == pytest.approx(0, abs=1e-4)
