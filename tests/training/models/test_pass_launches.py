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
MAX_FORWARD_SHARING, MAX_BACKWARD_SHARING = 4, 17  # more per layer, where sequences begin alike
FEW, MANY = ([[i] * n for i, n in enumerate(lengths)] for lengths in ([24, 32], [*range(16, 97, 8), 24, 32]))
SHARING = [[99] * 40 + sequence for sequence in MANY]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SWITCH, "as-gpu")
    library.cache_clear()
    yield
    library.cache_clear()


def launches_of_a_pass(layers: int, sequences: list[list[int]]) -> tuple[int, int]:
    """Forward and backward, with weights in bf16."""
    config = Qwen2Config(
        vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    trunk = Trunk(Qwen2ForCausalLM(config).to(torch.bfloat16).model)
    packed = pack(sequences, 0)
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


def test_what_is_computed_once_is_laid_out_by_few_launches() -> None:
    two, three = (launches_of_a_pass(layers, SHARING) for layers in (2, 3))
    assert three[0] - two[0] <= MAX_FORWARD_PER_LAYER + MAX_FORWARD_SHARING
    assert three[1] - two[1] <= MAX_BACKWARD_PER_LAYER + MAX_BACKWARD_SHARING


def test_the_number_of_sequences_changes_nothing() -> None:
    assert launches_of_a_pass(2, FEW) == launches_of_a_pass(2, MANY)
