from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.toys import toy_policy
from training.contract import InputError, LoraSettings
from training.models import memory
from training.models.compute import Compute
from training.models.loading import load_causal
from training.models.memory import free_bytes, parameters_of

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


def test_a_model_that_does_not_fit_is_refused_with_both_figures(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 200_000)
    with pytest.raises(InputError, match=r"set lora\.rank to train an adapter.* 0\.0 GB are free on cpu"):
        load_causal(folder, CPU, trainable=True)
    assert load_causal(folder, CPU, trainable=True, lora=LoraSettings(rank=2)) is not None
    assert load_causal(folder, CPU) is not None
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    with pytest.raises(InputError, match="needed to hold it"):
        load_causal(folder, CPU)


def test_processes_of_one_machine_share_its_memory_and_fsdp_divides_what_is_needed(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = free_bytes(torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(torch.device("cpu")) < alone / 2
    monkeypatch.setattr(memory, "free_bytes", lambda _: parameters_of(folder) * 10)
    with pytest.raises(InputError, match="needed to train every weight"):
        load_causal(folder, CPU, trainable=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    load_causal(folder, CPU, trainable=True)
