"""How many operations a packed training pass asks a GPU to launch, and that they do not grow with the sequences."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.training.engine.test_launches import Counting, launches
from training.data.packing import pack
from training.kernels.native import SWITCH, library
from training.models.trunk import Trunk

MAX_FORWARD_PER_LAYER = 40
MAX_BACKWARD_PER_LAYER = 95
FEW, MANY = [20, 30], [*range(9, 90, 8), 20, 30]  # lengths of sequences


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SWITCH, "as-gpu")
    library.cache_clear()
    yield
    library.cache_clear()


def launches_of_a_pass(layers: int, lengths: list[int]) -> tuple[int, int]:
    """Forward and backward, with weights in bf16."""
    config = Qwen2Config(
        vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    trunk = Trunk(Qwen2ForCausalLM(config).to(torch.bfloat16).model)
    packed = pack([[1] * n for n in lengths], 0)
    with Counting() as forward:
        total = trunk.hidden(packed).sum()
    with Counting() as backward:
        total.backward()
    assert forward.operations["tutelage::varlen_attention"] == layers
    return launches(forward.operations), launches(backward.operations)


def test_a_packed_pass_launches_no_more_than_it_must() -> None:
    two, three = (launches_of_a_pass(layers, MANY) for layers in (2, 3))
    assert three[0] - two[0] <= MAX_FORWARD_PER_LAYER
    assert three[1] - two[1] <= MAX_BACKWARD_PER_LAYER


def test_the_number_of_sequences_changes_nothing() -> None:
    assert launches_of_a_pass(2, FEW) == launches_of_a_pass(2, MANY)
