"""LoRA and its variants: what learns, what generates, what is merged and what is written are one model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.training.toys import events, prompts, run_folder, run_here, tiny_folder, tiny_model, toy_tokenizer, turns
from training.contract import InputError, LoraSettings
from training.data.chat_format import ChatFormat
from training.engine import Engine, EngineRequest, SamplingParams
from training.engine.llama_inference import LlamaForward
from training.engine.weights import weight_of
from training.export.weights import open_weights
from training.models.adapters import add_adapter, merged
from training.models.compute import Compute
from training.models.loading import load_causal, save_model
from training.models.token_rows import TokenRows

CPU, CPU_BF16 = (Compute(torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16))
VARIANTS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "new tokens": {"use_dora": True, "new": [9, 12, 20]},
    "whole modules": {"use_dora": True, "use_rslora": True, "modules_to_save": "embed_tokens, lm_head, q_proj"},
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
IDS = torch.arange(8, 40).view(2, 16)
HEARD = [{"id": f"d:{i}", "messages": turns(f"the cat {i}", "sat on the mat")} for i in range(8)]
RANKED = [
    {
        "id": f"r:{i}",
        "messages": turns(f"the cat {i}"),
        "replies": ["sat on the mat", "no"],
        "groups": [[0], [1]],
    }
    for i in range(24)
]


def adapted(model: Any, **settings: Any) -> Any:
    """The model with an adapter whose numbers are random, as after some learning. new: tokens that nobody trained."""
    if new := settings.pop("new", None):
        model.config.untrained_token_ids = new
    model = add_adapter(model, LoraSettings(rank=4, **settings)).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        whole: torch.Tensor = model(IDS).logits.float()
    return whole


@variants
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_merged_it_gives_what_it_gave(variant: dict[str, Any], tied: bool) -> None:
    model = adapted(tiny_model("llama", tie_word_embeddings=tied), **variant)
    expected = logits(model)
    with model.disable_adapter():
        assert (logits(model) - expected).abs().max() > 0.1
    whole = merged(copy.deepcopy(model))
    torch.testing.assert_close(logits(whole), expected, atol=1e-4, rtol=1e-4)
    assert (whole.get_output_embeddings().weight is whole.get_input_embeddings().weight) == tied


@variants
def test_over_bf16_sums_are_made_in_fp32_and_rounded_once(variant: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama", tie_word_embeddings=False, dtype=torch.bfloat16)
    model = adapted(load_causal(str(base), CPU_BF16), **variant)
    save_model(model, toy_tokenizer(), tmp_path / "adapter", [1])
    whole = merged(load_causal(str(tmp_path / "adapter"), CPU_BF16, trainable=True, lora=LoraSettings(rank=4)))
    ours = dict(whole.named_parameters())
    with open_weights(str(tmp_path / "adapter")) as weights:  # computes it by itself, one tensor at a time
        for name in weights.names:
            expected = weights.read(name).to(torch.bfloat16)
            torch.testing.assert_close(ours[name], expected, atol=0, rtol=2**-8, msg=name)
            assert (ours[name] != expected).float().mean() < 1e-3, name  # but for sums in another order


def test_a_bf16_merge_for_a_file_in_fp32_loses_nothing() -> None:
    model = adapted(tiny_model("llama").bfloat16())
    expected = logits(copy.deepcopy(model).float())
    torch.testing.assert_close(logits(merged(copy.deepcopy(model), torch.float32)), expected, atol=1e-4, rtol=1e-4)
    assert (logits(merged(model)) - expected).abs().max() > 1e-3


@variants
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_what_generates_is_the_adapted_model_that_learns(
    kind: str, variant: dict[str, Any], dtype: torch.dtype
) -> None:
    model = adapted(tiny_model(kind).to(dtype), **variant)
    sampling = SamplingParams(temperature=0, max_new_tokens=12, stop_ids=frozenset())
    requests = [EngineRequest(ids, sampling) for ids in IDS.tolist()]
    engine = Engine(model, toy_tokenizer(), slots=2)
    assert isinstance(engine._forward, LlamaForward) == (kind != "gemma2"), "the fast forward takes them, too"
    within = 2e-4 if dtype is torch.float32 else 0.2
    for request, reply in zip(requests, engine.generate(requests), strict=True):
        with torch.no_grad():
            whole = model(torch.tensor([request.prompt + reply.tokens])).logits[0, len(request.prompt) - 1 : -1]
        expected = whole.float().log_softmax(-1).gather(-1, torch.tensor(reply.tokens)[:, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=within, rtol=1e-4)
    learned = [reply.tokens for reply in engine.generate(requests)]
    with model.disable_adapter():
        assert [reply.tokens for reply in engine.generate(requests)] != learned


def test_the_weight_of_a_dora_layer_is_the_one_it_applies() -> None:
    for module in adapted(tiny_model("llama"), use_dora=True).modules():
        if isinstance(module, LoraLayer):
            x = torch.randn(5, module.in_features)
            torch.testing.assert_close(x @ weight_of(module)[0].t(), module(x), atol=1e-4, rtol=1e-4)


STAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sft": ({"max_steps": 2}, {"demonstrations": HEARD}),
    "reward": ({"max_steps": 2}, {"rankings": RANKED}),
    "dpo": ({"max_steps": 2}, {"rankings": RANKED}),
    "kto": ({"max_steps": 2}, {"rankings": RANKED}),
    "ppo": ({"steps": 2, "value_warmup": 0, "reward": "function:digits"}, {"prompts": prompts(8)}),
    "grpo": ({"steps": 2, "samples_per_prompt": 4, "reward": "function:digits"}, {"prompts": prompts(8)}),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_every_part_of_it_learns_in_every_stage(stage: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tied = stage in ("sft", "reward", "ppo")  # the others copy the adapter, which shared embeddings do not survive
    base = tiny_folder(tmp_path / "base", "llama", tie_word_embeddings=tied, dtype=dtype)
    settings, rows = STAGES[stage]
    source = "base" if stage in ("sft", "reward") else "policy"
    config = {"stage": stage, source: str(base), "learning_rate": 1e-2, "weight_decay": 0.0, **settings}
    config |= {"precision": "bf16"} if dtype is torch.bfloat16 else {}
    if stage in ("ppo", "grpo"):
        config |= {"sampling": {"max_new_tokens": 6}}
    lora = {"rank": 2, "use_dora": True, "use_rslora": True, "modules_to_save": "embed_tokens"}
    folder = run_folder(tmp_path / "run", {**config, "lora": lora}, **rows)
    run_here(folder)
    if stage == "reward":  # merged into a whole model
        learned = load_file(folder / "model" / "model.safetensors")
        before = load_file(base / "model.safetensors")
        for name in ("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"):
            assert (learned[name] - before[name].float()).abs().max() > 1e-4, name
        return
    saved = load_file(folder / "model" / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    start = add_adapter(load_causal(str(base), CPU), LoraSettings(**lora))
    lengths = {name: value for name, value in start.named_parameters() if "magnitude" in name}
    for name, value in lengths.items():
        key = name.replace(".default.weight", "")
        assert (saved[key] - value).abs().max() > 1e-5, key
    assert any(value.abs().max() > 1e-4 for name, value in saved.items() if "lora_B" in name)
    words = "base_model.model.model.embed_tokens.weight"
    assert (
        saved[words] - load_file(base / "model.safetensors")["model.embed_tokens.weight"].float()
    ).abs().max() > 1e-4
    assert json.loads((folder / "model" / "adapter_config.json").read_text())["use_rslora"] is True


def test_an_adapter_with_whole_modules_goes_on_from_what_it_was_to_the_last_bit(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama", tie_word_embeddings=True, dtype=torch.bfloat16)
    lora = {"use_dora": True, "modules_to_save": "embed_tokens"}
    model = adapted(load_causal(str(base), CPU_BF16), **lora)
    save_model(model, toy_tokenizer(), tmp_path / "adapter", [1])
    again = load_causal(str(tmp_path / "adapter"), CPU_BF16, trainable=True, lora=LoraSettings(rank=4, **lora))
    assert isinstance(again, PeftModel)
    before = {name: value for name, value in model.named_parameters() if value.requires_grad}
    after = {name: value for name, value in again.named_parameters() if value.requires_grad}
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert again.get_output_embeddings().modules_to_save["default"].weight is again.get_input_embeddings().weight


def test_an_adapter_goes_on_as_it_was_made(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama")
    save_model(adapted(load_causal(str(base), CPU)), toy_tokenizer(), tmp_path / "adapter", [1])
    for name, value in (("use_dora", True), ("use_rslora", True), ("modules_to_save", "lm_head")):
        with pytest.raises(InputError, match=rf"lora\.{name}: .* is an adapter .* without it"):
            load_causal(str(tmp_path / "adapter"), CPU, trainable=True, lora=LoraSettings(rank=4, **{name: value}))


@pytest.mark.parametrize("stage", ["dpo", "kto", "grpo"])
def test_shared_embeddings_that_learn_whole_are_refused_where_the_adapter_is_copied(stage: str, tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama", tie_word_embeddings=True)
    settings, rows = STAGES[stage]
    config = {"stage": stage, "policy": str(base), **settings, "lora": {"rank": 2, "modules_to_save": "embed_tokens"}}
    with pytest.raises(InputError, match=r"lora\.modules_to_save: .* shares its embeddings"):
        run_here(run_folder(tmp_path / "run", config, **rows))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [("nothing", "this model has no nothing"), ("input_layernorm", "input_layernorm is neither an embedding nor")],
)
def test_modules_that_cannot_learn_whole_are_refused(names: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        add_adapter(tiny_model("llama"), LoraSettings(rank=2, modules_to_save=names))


def test_shared_embeddings_that_peft_would_part_are_refused() -> None:
    with pytest.raises(InputError, match="which PEFT cannot keep together"):
        add_adapter(tiny_model("gpt2"), LoraSettings(rank=2, modules_to_save="wte"))


@pytest.mark.parametrize("name", ["use_dora", "use_rslora", "modules_to_save"])
def test_a_setting_of_adapters_without_an_adapter_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}: this is about an adapter; set rank above 0"):
        LoraSettings(**{name: "lm_head" if name == "modules_to_save" else True})


NEW = [9, 12, 20]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_rows_of_new_tokens_compute_what_peft_computes_without_a_copy_of_the_matrix(kind: str, tied: bool) -> None:
    model = adapted(tiny_model(kind, tie_word_embeddings=tied), new=NEW)
    places = [module for module in model.modules() if isinstance(module, TokenRows)]
    assert len(places) == 2, "both ends"

    def gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    ours = gradients()
    for place in places:
        place.__class__ = TrainableTokensLayer
    theirs = gradients()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert [p.shape[0] for p in model.parameters() if p.requires_grad and p.shape[0] == len(NEW)] == [3] * (2 - tied)


def test_rows_of_new_tokens_leave_out_what_learns_in_another_way() -> None:
    model = tiny_model("llama", tie_word_embeddings=False)
    both = adapted(model, new=NEW, modules_to_save="embed_tokens")
    assert both.peft_config["default"].trainable_token_indices == {"lm_head": NEW}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("stage", STAGES)
def test_new_tokens_learn_beside_lora_and_go_on_in_every_stage(stage: str, tied: bool, tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama", tie_word_embeddings=tied, dtype=torch.bfloat16)
    end = ChatFormat(toy_tokenizer()).end_id
    config_file = base / "config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"untrained_token_ids": [end]}))
    common = {"learning_rate": 1e-2, "weight_decay": 0.0, "precision": "bf16", "lora": {"rank": 2}}
    sft = {"stage": "sft", "base": str(base), "max_steps": 2, **common}
    run_here(run_folder(tmp_path / "sft", sft, demonstrations=HEARD))
    taught = load_file(tmp_path / "sft" / "model" / "adapter_model.safetensors")
    rows = {name: value for name, value in taught.items() if "trainable_tokens_delta" in name}
    assert {(tuple(value.shape), value.dtype) for value in rows.values()} == {((1, 32), torch.float32)}
    assert len(rows) == 2 - tied
    words = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    first = next(value for name, value in rows.items() if "embed_tokens" in name)
    assert (first[0] - words[end].float()).abs().max() > 1e-4
    settings, data = STAGES[stage]
    source = "base" if stage in ("sft", "reward") else "policy"
    config = {"stage": stage, source: str(tmp_path / "sft" / "model"), **settings, **common}
    if stage in ("ppo", "grpo"):
        config |= {"sampling": {"max_new_tokens": 6}}
    run_here(run_folder(tmp_path / "run", config, **data))
    first_values = events(tmp_path / "run", "metric")[0]["values"]
    for name in ("rewards/margins", "kl", "objective/kl"):  # before anything is learned, it is its own reference
        assert abs(first_values.get(name, 0.0)) < 2e-3, (name, first_values)
    model = tmp_path / "run" / "model"
    if stage == "reward":
        learned = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
        assert (learned[end] - words[end].float()).abs().max() > 1e-4
        assert torch.equal(learned[end + 1], words[end + 1].float())
        return
    again = load_file(model / "adapter_model.safetensors")
    assert again.keys() == taught.keys()
    assert any((again[name] - rows[name]).abs().max() > 1e-6 for name in rows)
    with open_weights(str(model)) as weights:
        head = weights.read("lm_head.weight" if not tied else "model.embed_tokens.weight")
        merged_model = load_causal(str(model), CPU)
        torch.testing.assert_close(merged_model.get_output_embeddings().weight, head.float(), atol=1e-6, rtol=1e-6)
    assert not hasattr(merged_model.config, "untrained_token_ids")
