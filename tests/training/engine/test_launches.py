"""How many operations a decoding step launches: on a GPU, a small model's step takes as long as that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from tests.training.toys import toy_tokenizer
from training.engine import Engine, EngineRequest, SamplingParams
from training.kernels import ops

# What looks at memory in another way and launches nothing.
VIEWS = {
    "_unsafe_view", "alias", "as_strided", "chunk", "detach", "detach_", "expand", "flatten", "lift_fresh", "permute",
    "reshape", "resolve_conj", "resolve_neg", "select", "slice", "split", "split_with_sizes", "squeeze", "t",
    "transpose", "unbind", "unsqueeze", "view",
}  # fmt: skip
WAITS = {"_local_scalar_dense", "is_nonzero", "item", "nonzero", "equal"}  # where the host waits for the device
MAX_LAUNCHES_PER_LAYER = 22
MAX_LAUNCHES_BESIDE_LAYERS = 45


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not say
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        self.operations[function.name().removeprefix("aten::").partition(".")[0]] += 1
        return function(*arguments, **(named or {}))


def operations_of_a_step(layers: int, sampling: Callable[[int], SamplingParams]) -> Counter[str]:
    """Of four sequences, after the step that reads their prompts."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=36, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, head_dim=4, max_position_embeddings=256,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().to(torch.bfloat16)
    engine = Engine(model, toy_tokenizer(), slots=8, live=False)
    for i in range(4):
        engine.submit(EngineRequest([9 + i] * 5, sampling(i)))
    engine.step()
    with torch.inference_mode(), Counting() as counting:
        engine.step()
    return counting.operations


def launches(operations: Counter[str]) -> int:
    return sum(count for name, count in operations.items() if name not in VIEWS)


def sampled(seed: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=30, seed=seed, stop_ids=frozenset())


def greedy_or_top_k(seed: int) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=30, seed=seed, stop_ids=frozenset(), temperature=seed % 2, top_k=5 * (seed % 3)
    )


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's operations, not by kernels for CPUs."""
    monkeypatch.setattr(ops, "kernels_for", lambda *_: None)


def test_a_decoding_step_launches_no_more_than_it_must() -> None:
    two, three = (operations_of_a_step(layers, sampled) for layers in (2, 3))
    per_layer = launches(three) - launches(two)
    assert per_layer <= MAX_LAUNCHES_PER_LAYER, three - two
    assert launches(two) - 2 * per_layer <= MAX_LAUNCHES_BESIDE_LAYERS, two


@pytest.mark.parametrize("sampling", [sampled, greedy_or_top_k])
def test_the_host_waits_for_the_device_only_to_read_what_was_drawn(sampling: Callable[[int], SamplingParams]) -> None:
    operations = operations_of_a_step(2, sampling)
    assert not WAITS & operations.keys()
