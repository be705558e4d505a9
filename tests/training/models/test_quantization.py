"""Weights in 4 bits and moments in 8, where bitsandbytes is installed; without it, the sentences that say so."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.models.test_adapters import CPU, HEARD, IDS, RANKED, STAGES
from tests.training.toys import run_folder, run_here, tiny_folder
from training.contract import InputError, LoraSettings
from training.engine import Engine, EngineRequest, SamplingParams
from training.engine.transformers_forward import GeneralForward
from training.export.weights import open_weights
from training.models.compute import Compute
from training.models.loading import load_causal, load_tokenizer, model_info
from training.optim import optimizers

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (pip install bitsandbytes)"
)
QLORA = {"rank": 4, "load_in_4bit": True}
WIDE = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False}  # 4 bits come in blocks of 64


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "base", "llama", **WIDE)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize(
    ("settings", "name"),
    [({"lora": QLORA}, "lora.load_in_4bit"), ({"optimizer": "adamw_8bit"}, "optimizer: adamw_8bit")],
)
def test_without_the_library_a_run_says_what_to_install(
    settings: dict[str, Any], name: str, base: Path, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path / "run", {"stage": "sft", "base": str(base), **settings}, demonstrations=HEARD)
    with pytest.raises(InputError, match=f"{name} needs the library bitsandbytes.*pip install bitsandbytes"):
        run_here(folder)


def test_a_library_that_cannot_compute_on_the_device_is_told_before_anything_is_learned(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Optimizers:
        @staticmethod
        def AdamW8bit(*_: Any, **__: Any) -> Any:  # noqa: N802 (the library's name)
            raise NotImplementedError("no kernel for cpu")

    monkeypatch.setattr(optimizers, "bitsandbytes", lambda _: type("Library", (), {"optim": Optimizers}))
    config = {"stage": "sft", "base": str(base), "optimizer": "adamw_8bit"}
    with pytest.raises(InputError, match=r"does not work on cpu .*no kernel for cpu.*set optimizer to adamw"):
        run_here(run_folder(tmp_path / "run", config, demonstrations=HEARD))


@pytest.mark.parametrize(
    ("variable", "settings"), [("lora", {"lora": QLORA}), ("optimizer", {"optimizer": "adamw_8bit"})]
)
def test_what_cannot_be_sharded_is_refused_with_fsdp(
    variable: str, settings: dict[str, Any], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (optimizers, sys.modules["training.models.quantization"]):
        monkeypatch.setattr(module, "is_sharded", lambda: True)
    folder = run_folder(tmp_path / "run", {"stage": "sft", "base": str(base), **settings}, demonstrations=HEARD)
    with pytest.raises(InputError, match=f"{variable}.*FSDP"):
        run_here(folder)


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_base_lies_in_4_bits_and_the_adapter_learns_in_fp32(base: Path, dtype: torch.dtype) -> None:
    whole = load_causal(str(base), CPU)
    model = load_causal(str(base), Compute(torch.device("cpu"), dtype), trainable=True, lora=LoraSettings(**QLORA))
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    assert (layer.base_layer.weight.dtype, layer.base_layer.weight.numel()) == (torch.uint8, 64 * 128 // 2)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.get_input_embeddings().weight.dtype == dtype
    assert model_info(model)["parameters"] == model_info(whole)["parameters"] + model_info(model)["trainable"]
    with torch.no_grad():
        exact, rounded = whole(IDS).logits, model(IDS).logits.float()
    error = (exact - rounded).norm() / exact.norm()
    assert 1e-3 < error < 0.5


@needs_library
def test_replies_come_from_the_model_in_4_bits_itself(base: Path) -> None:
    model = load_causal(str(base), CPU, trainable=True, lora=LoraSettings(**QLORA))
    engine = Engine(model, load_tokenizer(str(base)), slots=2)
    assert isinstance(engine._forward, GeneralForward)
    sampling = SamplingParams(temperature=0, max_new_tokens=8, stop_ids=frozenset())
    reply = engine.generate([EngineRequest(IDS[0].tolist(), sampling)])[0]
    with torch.no_grad():
        logits = model(torch.tensor([IDS[0].tolist() + reply.tokens])).logits[0, 15:-1]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(reply.tokens)[:, None]).squeeze(-1)
    torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=2e-4, rtol=1e-4)


@needs_library
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "lora", [QLORA, {**QLORA, "use_dora": True, "modules_to_save": "embed_tokens"}], ids=["LoRA", "DoRA"]
)
def test_every_stage_learns_over_4_bits_with_moments_in_8(
    stage: str, lora: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    settings, rows = STAGES[stage]
    source = "base" if stage in ("sft", "reward") else "policy"
    config = {"stage": stage, source: str(base), "learning_rate": 1e-2, "optimizer": "adamw_8bit", **settings}
    if stage in ("ppo", "grpo"):
        config |= {"sampling": {"max_new_tokens": 6}}
    folder = run_folder(tmp_path / "run", config | {"lora": lora}, **rows)
    result = run_here(folder)
    assert result["metrics"].get("skipped", 0) == 0
    if stage == "reward":
        learned, before = load_file(folder / "model" / "model.safetensors"), load_file(base / "model.safetensors")
        assert learned.keys() - {"score.weight"} == before.keys() - {"lm_head.weight"}
        moved = [float((learned[name] - before[name]).abs().max()) for name in before.keys() & learned.keys()]
        assert max(moved) > 1e-4
        assert {value.dtype for value in learned.values()} == {torch.float32}
        return
    saved = load_file(folder / "model" / "adapter_model.safetensors")
    assert any(value.abs().max() > 1e-4 for name, value in saved.items() if "lora_B" in name)
    assert not any(value.dtype == torch.uint8 for value in saved.values())


@needs_library
def test_an_adapter_over_4_bits_is_merged_into_the_published_weights(base: Path, tmp_path: Path) -> None:
    config = {"stage": "sft", "base": str(base), "learning_rate": 1e-2, "max_steps": 2, "lora": QLORA}
    folder = run_folder(tmp_path / "run", config, demonstrations=HEARD)
    run_here(folder)
    merged_here = dict(load_causal(str(folder / "model"), CPU).named_parameters())
    before = load_file(base / "model.safetensors")
    with open_weights(str(folder / "model")) as weights:
        for name in weights.names:
            torch.testing.assert_close(merged_here[name], weights.read(name).float(), atol=1e-6, rtol=1e-5)
    adapter = load_file(folder / "model" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    delta = adapter[f"base_model.model.{name}.lora_B.weight"] @ adapter[f"base_model.model.{name}.lora_A.weight"]
    torch.testing.assert_close(merged_here[f"{name}.weight"], before[f"{name}.weight"] + 16 / 4 * delta)


@needs_library
def test_a_linear_layer_in_4_bits_cannot_learn_whole(base: Path) -> None:
    lora = LoraSettings(**QLORA, modules_to_save="q_proj")
    with pytest.raises(InputError, match="q_proj is in 4 bits, which do not learn"):
        load_causal(str(base), CPU, trainable=True, lora=lora)


@needs_library
@pytest.mark.parametrize("rows", [HEARD, RANKED], ids=["sft", "dpo"])
def test_moments_in_8_bits_learn_what_moments_in_fp32_do(rows: list[Any], tmp_path: Path) -> None:
    base = tiny_folder(tmp_path / "base", "llama", **WIDE)
    losses = {}
    for optimizer in ("adamw", "adamw_8bit"):
        config = {"learning_rate": 3e-3, "optimizer": optimizer, "max_steps": 20, "epochs": 20, "warmup": 0.0}
        if rows is HEARD:
            folder = run_folder(
                tmp_path / optimizer, {"stage": "sft", "base": str(base), **config}, demonstrations=rows
            )
        else:
            folder = run_folder(tmp_path / optimizer, {"stage": "dpo", "policy": str(base), **config}, rankings=rows)
        losses[optimizer] = run_here(folder)["metrics"]["loss"]
    assert losses["adamw_8bit"] != losses["adamw"]
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.25)
