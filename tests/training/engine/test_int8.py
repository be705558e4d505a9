"""The engine with matrices in 8 bits, against transformers' generate with the same rounded numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.training.engine.test_engine import GREEDY, build, generated_alone, prompts
from tests.training.toys import toy_tokenizer
from training.engine import Engine, EngineRequest
from training.kernels.int8 import can_multiply_int8, dequantize_int8, quantize_int8

pytestmark = pytest.mark.skipif(not can_multiply_int8(), reason="there are no compiled kernels here")


def rounded(model: Any) -> Any:
    """Each matrix of the model as 8 bits hold it. Rows are rounded one by one, so joining matrices makes no difference.
    A tied embedding is looked up in full."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(dequantize_int8(quantize_int8(module.weight)))
    return model


def int8_engine(model: Any, slots: int = 5) -> Engine:
    return Engine(model, toy_tokenizer(), slots=slots, live=False, int8=True)


@pytest.mark.fp32
@pytest.mark.parametrize("name", ["llama", "llama with biases, scaled rope", "qwen2", "qwen3", "llama, tied"])
def test_greedy_replies_are_those_of_the_model_with_rounded_matrices(name: str) -> None:
    completions = int8_engine(build(name)).generate([EngineRequest(prompt, GREEDY) for prompt in prompts()])
    model = rounded(build(name))
    assert [reply.tokens for reply in completions] == [generated_alone(model, prompt) for prompt in prompts()]


def test_bf16_models_compute_in_float32() -> None:
    engine = int8_engine(build("llama").to(torch.bfloat16))
    assert engine.generate([EngineRequest(prompts()[0], GREEDY)])[0].tokens


def test_weights_that_change_and_other_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="weights that change cannot be kept in 8 bits"):
        Engine(build("llama"), toy_tokenizer(), int8=True)
    with pytest.raises(ValueError, match="not for this kind of gpt2"):
        int8_engine(build("gpt2"))
