"""Every stage that loads a model says in a sentence what is wrong with it, before anything is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

from tests.training.toys import (
    NO_END,
    TEXTS,
    events,
    foreign_policy,
    foreign_tokenizer,
    prompts,
    run_folder,
    run_here,
    tiny_folder,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.contract import InputError, LoraSettings, TrainingError
from training.data.chat_format import ChatFormat
from training.models.checks import check_vocabulary
from training.models.compute import Compute
from training.models.loading import load_causal
from training.models.memory import parameters_of
from training.preferences.reward_model import load_reward, reward_from_language_model, save_reward
from training.serve.pool import ModelPool
from training.stages.tokenizer import learn_vocabulary, wrap

CPU = Compute(torch.device("cpu"), torch.float32)
RANKINGS = [{"id": "ranking:1", "messages": turns("is it?"), "replies": ["yes", "no"], "groups": [[0], [1]]}]
SHORT = {"sampling": {"max_new_tokens": 4}}
ONE_STEP = {"min_rows": 1, "max_steps": 1}
STAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sft": ({"max_steps": 1}, {"demonstrations": [{"id": "d", "messages": turns("is it?", "yes of course")}]}),
    "reward": (ONE_STEP, {"rankings": RANKINGS}),
    "ppo": ({"reward": "function:brevity", "steps": 1, "prompts_per_step": 2, **SHORT}, {"prompts": prompts(2)}),
    "dpo": (ONE_STEP, {"rankings": RANKINGS}),
    "kto": (ONE_STEP, {"rankings": RANKINGS}),
    "grpo": (
        {"reward": "function:brevity", "steps": 1, "prompts_per_step": 1, "samples_per_prompt": 2, **SHORT},
        {"prompts": prompts(2)},
    ),
    "sample": ({"replies": 1, **SHORT}, {"prompts": prompts(2)}),
    "evaluate": (SHORT, {"prompts": prompts(2)}),
    "serve": ({}, {}),
}


def use(stage: str, model: Path, folder: Path, **changed: str) -> Path:
    """Do the stage's work with the model; the run folder."""
    if stage == "serve":
        ModelPool(CPU, slots=1, max_models=1).load("it", str(model))
        return folder
    config, data = STAGES[stage]
    source = "base" if stage in ("sft", "reward") else "policy"
    run_here(run_folder(folder, {"stage": stage, source: str(model), **config, **changed}, **data))
    return folder


def larger_tokenizer(model: Path) -> None:
    """One that knows more words than the model has embeddings."""
    words = [a + b for a in ("bl", "str", "kn", "wh", "tr") for b in ("oom", "ight", "ave", "ell", "urn")]
    wrap(learn_vocabulary(iter(words * 5 + TEXTS), 400, 140), 64).save_pretrained(model)


def without_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()


def without_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).unlink(missing_ok=True)


def half_written(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def a_shard_missing(model: Path) -> None:
    own = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(own)
    save_file({name: own[name] for name in names[:3]}, model / "model-00001-of-00002.safetensors", {"format": "pt"})
    where = {name: f"model-0000{1 if name in names[:3] else 2}-of-00002.safetensors" for name in names}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def bert(model: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (model / name).unlink()
    BertForMaskedLM(BertConfig(vocab_size=len(toy_tokenizer()), **shape)).save_pretrained(model)


def reward_model(model: Path) -> None:
    _, made = reward_from_language_model(str(model), CPU, LoraSettings())
    shutil.rmtree(model)
    model.mkdir()
    save_reward(made, toy_tokenizer(), model, {"max_tokens": 64, "temperature": 1.0})


def gguf_only(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-q4.gguf")


def bin_only(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def gone(model: Path) -> None:
    shutil.rmtree(model)


DAMAGES: dict[Callable[[Path], None], str] = {
    larger_tokenizer: r"tokenizer: it has \d+ tokens, .* knows \d+ only",
    without_template: "its tokenizer has no chat template",
    without_tokenizer: "this tokenizer folder is damaged or incomplete",
    half_written: "this model folder is damaged or incomplete",
    a_shard_missing: "this model folder is damaged or incomplete",
    bert: "this is no causal language model but BertForMaskedLM",
    reward_model: "this is a reward model; it gives scores, not replies",
    gguf_only: "has its weights as model-q4.gguf only; convert them to safetensors",
    bin_only: r"has its weights as pytorch_model.bin only; convert them to safetensors",
    gone: "there is no such (model|tokenizer) folder",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("stage", STAGES)
def test_what_is_wrong_with_a_model_is_told_by_every_stage(
    stage: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    model = toy_policy(tmp_path / "model")
    damage(model)
    if stage == "serve" and damage is without_template:
        assert use(stage, model, tmp_path / "run")  # it completes text, as base models do
        return
    with pytest.raises(InputError, match=DAMAGES[damage]) as caught:
        use(stage, model, tmp_path / "run")
    assert str(model) in caught.value.message
    assert caught.value.code != "internal"


@pytest.mark.parametrize("stage", STAGES)
def test_a_tokenizer_without_a_pad_token_works_everywhere_and_is_told(stage: str, tmp_path: Path) -> None:
    model = foreign_policy(tmp_path / "model", foreign_tokenizer(NO_END))
    folder = use(stage, model, tmp_path / "run")
    if stage != "serve":
        told = [event["message"] for event in events(folder, "warning")]
        assert len([message for message in told if "has no pad token; its end-of-text token </s> pads" in message]) == 1


def test_special_tokens_beyond_the_embeddings_that_no_talk_holds_are_let_be(tmp_path: Path) -> None:
    """Gemma 3's tokenizer has one token more than its text models have embeddings, for images."""
    tokenizer = foreign_tokenizer(NO_END, pad_token="<pad>")
    model = load_causal(str(foreign_policy(tmp_path / "model", tokenizer)), CPU)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    assert len(tokenizer) > model.config.vocab_size
    check_vocabulary(ChatFormat(tokenizer), model, "it")
    tokenizer.add_tokens(["zebra"])
    with pytest.raises(InputError, match=r"knows \d+ only"):
        check_vocabulary(ChatFormat(tokenizer), model, "it")


def test_a_bert_that_was_made_to_speak_is_a_language_model(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=len(toy_tokenizer()), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, is_decoder=True,
    )  # fmt: skip
    BertLMHeadModel(config).save_pretrained(tmp_path)
    assert load_causal(str(tmp_path), CPU) is not None
    config.is_decoder = False
    config.architectures = ["BertLMHeadModel"]
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no causal language model but BertLMHeadModel"):
        load_causal(str(tmp_path), CPU)


def test_an_architecture_that_cannot_be_saved_as_a_reward_model_is_refused_at_the_start(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "granite")
    with pytest.raises(InputError, match="no sequence classification for models of type granite"):
        use("reward", model, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}),
        ("mpt", {"d_model": 32, "n_layers": 1, "n_heads": 4, "max_seq_len": 64}),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_architecture_that_the_engine_cannot_run_is_told(
    tmp_path: Path, kind: str, sizes: dict[str, int], precision: str
) -> None:
    model = tiny_folder(tmp_path / "model", kind, **sizes)
    with pytest.raises(TrainingError, match=f"models of type {kind} cannot be generated from here"):
        use("ppo", model, tmp_path / "run", precision=precision)


# --------------------------------------------------------------------------------------------------------------- memory


def test_a_reward_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_policy(tmp_path / "model")
    reward_model(model)
    monkeypatch.setattr("training.models.memory.free_bytes", lambda _: 4 * parameters_of(str(model)))
    assert load_reward(str(model), CPU)
    monkeypatch.setattr("training.models.memory.free_bytes", lambda _: 4 * parameters_of(str(model)) - 1)
    with pytest.raises(InputError, match=r"GB are needed to hold it, and 0\.0 GB are free"):
        load_reward(str(model), CPU)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "serve"])
def test_a_model_that_does_not_fit_is_told_by_every_stage(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_policy(tmp_path / "model")
    monkeypatch.setattr("training.models.memory.free_bytes", lambda _: 1000)
    with pytest.raises(InputError, match=r"are needed.* are free on cpu; .*take a smaller model"):
        use(stage, model, tmp_path / "run")
