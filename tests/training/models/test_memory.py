from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.toys import run_folder, run_here, toy_policy, turns
from training.contract import SPECS, DeviceReport, InputError, ModelFacts, SFTSettings, count_memory
from training.models import memory
from training.models.compute import Compute
from training.models.loading import load_causal
from training.models.memory import check_fits, facts_of_rewards, free_bytes, parameters_of

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Any:
    return str(toy_policy(tmp_path_factory.mktemp("policy") / "model"))


def test_parameters_are_counted_without_loading_them(folder: Any) -> None:
    assert parameters_of(folder) == sum(p.numel() for p in load_causal(folder, CPU).parameters())


def test_what_says_nothing_is_left_to_loading(tmp_path: Path) -> None:
    assert parameters_of(str(tmp_path)) == 0
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0rubbish!")
    assert parameters_of(str(tmp_path)) == 0


def test_some_memory_is_free() -> None:
    assert free_bytes(torch.device("cpu")) > 1e6


def test_a_model_that_cannot_be_held_is_refused_with_both_figures(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 200_000)
    assert load_causal(folder, CPU) is not None
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    with pytest.raises(InputError, match=r"0\.0 GB are needed to hold it, and 0\.0 GB are free on cpu"):
        load_causal(folder, CPU)


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = free_bytes(torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(torch.device("cpu")) < alone / 2


GPU = torch.device("cuda")
SHAPES = {
    "1B": ModelFacts(
        parameters=1_235_814_400, layers=16, hidden=2048, intermediate=8192, heads=32, kv_heads=8, head_dim=64,
        vocabulary=128_256, context=131_072, tied=True,
    ),
    "8B": ModelFacts(
        parameters=8_030_261_248, layers=32, hidden=4096, intermediate=14_336, heads=32, kv_heads=8, head_dim=128,
        vocabulary=128_256, context=131_072,
    ),
}  # fmt: skip


def gpu(memory: float) -> DeviceReport:
    return DeviceReport(kind="cuda", name="a GPU", memory=int(memory), free=int(memory), bf16=True)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("stage", [stage for stage, spec in SPECS.items() if spec.learns])
@pytest.mark.parametrize("rank", [0, 16])
def test_what_is_refused_is_what_the_launch_form_says_does_not_fit(
    name: str, stage: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {} if stage == "pretrain" else {"lora": {"rank": rank}}
    settings: Any = SPECS[stage].settings.model_validate(chosen)
    facts = SHAPES[name]

    def counted(memory: float) -> int:
        parts = count_memory(stage, settings.model_dump(), facts, gpu(memory), reward=facts)
        return sum(parts.values()) - parts["runtime"]

    def check(free: int) -> None:
        monkeypatch.setattr(memory, "free_bytes", lambda _: free)
        check_fits(settings, facts, device=GPU, dtype=torch.bfloat16, reward=facts)

    sizes = [2**power * 10**9 for power in range(12)]
    assert {counted(size) <= size for size in sizes} == {True, False}
    for size in sizes:
        if counted(size) <= size:
            check(size)
        else:
            needed = f"{counted(size) / 1e9:.1f} GB are needed"
            with pytest.raises(InputError, match=re.escape(needed)):
                check(size)


def test_fsdp_divides_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SFTSettings()
    monkeypatch.setattr(memory, "free_bytes", lambda _: 80 * 10**9)
    for name, value in {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="in each of 8 processes"):
        check_fits(settings, SHAPES["8B"], device=GPU, dtype=torch.bfloat16)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_fits(settings, SHAPES["8B"], device=GPU, dtype=torch.bfloat16)


def test_the_refusal_names_the_largest_parts_and_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 24 * 10**9)
    settings = SFTSettings(micro_tokens=1024)
    with pytest.raises(InputError) as refused:
        check_fits(settings, SHAPES["8B"], device=GPU, dtype=torch.bfloat16)
    assert "(optimizer 64.2 GB, weights 32.1 GB, gradients 32.1 GB), and 24.0 GB are free on cuda" in str(refused.value)
    assert "set lora.rank to train an adapter" in str(refused.value)


def test_a_run_that_does_not_fit_is_refused_before_its_model_is_loaded(tmp_path: Path) -> None:
    base = tmp_path / "base"  # the header of 8 billion weights, and none of them
    base.mkdir()
    header = json.dumps({"weights": {"dtype": "BF16", "shape": [80_000_000_000], "data_offsets": [0, 0]}}).encode()
    (base / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (base / "config.json").write_text(json.dumps({"num_hidden_layers": 32, "hidden_size": 4096, "vocab_size": 128_256}))
    rows = [{"id": "a", "messages": turns("a", "b")}]
    folder = run_folder(tmp_path / "run", {"stage": "sft", "base": str(base)}, demonstrations=rows)
    with pytest.raises(InputError, match=r"sft: about [\d.]+ GB are needed \(optimizer 640\.0 GB"):
        run_here(folder)


def test_ensembles_of_reward_models_are_counted_whole(folder: Any, tmp_path: Path) -> None:
    alone = facts_of_rewards([folder]).parameters
    ensemble = tmp_path / "ensemble"
    for place in (ensemble, ensemble / "member-2", ensemble / "member-3"):
        place.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(Path(folder) / name, place)
    assert facts_of_rewards([str(ensemble)]).parameters == 3 * alone
    assert facts_of_rewards([]).parameters == 0
