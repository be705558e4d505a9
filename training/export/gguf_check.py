"""A GGUF file read back and held against the model it was written from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from training.contract import InputError
from training.data.chat_templates import render_template, special_tokens
from training.export import llama_cpp
from training.export.answers import Questions, answer, differences
from training.export.gguf_architectures import Architecture, in_halves
from training.export.gguf_file import TYPES, Type, planned
from training.export.gguf_tokenizer import read_tokenizer
from training.export.weights import Weights
from training.models.memory import free_bytes
from training.run.reporting import ProgressCallback

MAX_CONTEXT: Final = 4096  # tokens that the check needs room for
FRACTION: Final = {  # bits of a number's fraction, of which half a unit in the last place is rounded off
    Type.F32: 24,
    Type.F16: 11,
    Type.BF16: 8,
}
STEPS: Final = {  # of a block's scale, how far a number may be off
    Type.Q8_0: 0.5,
    Type.Q5_0: 1.0,  # the end of the range that is opposite to the largest number is one step short
    Type.Q4_0: 1.0,
    Type.Q5_1: 0.5,
    Type.Q4_1: 0.5,
}
LEVELS: Final = {Type.Q8_0: 127, Type.Q5_0: 16, Type.Q4_0: 8, Type.Q5_1: 31, Type.Q4_1: 15}
SCALE_ROUNDING: Final = 2.0**-10  # scales and minima are float16


TOLERANCE: Final = {"f16": 0.1, "bf16": 0.25}  # nats; see docs/decisions/exported-models.md
QUANTIZED_TOLERANCE: Final = 1.0


def check_gguf(
    path: Path,
    weights: Weights,
    architecture: Architecture,
    quantization: str,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    on_progress: ProgressCallback,
) -> list[str]:
    """Raises InputError unless the file holds the model's numbers, its tokenizer and its template, and llama.cpp, where
    its Python binding is installed, answers as transformers does with the file's numbers."""
    check_tensors(path, weights, architecture, quantization)
    check_tokens(path, tokenizer, questions)
    tensors = (
        f"Each of {len(weights.names)} tensors was read back and differs from the model's by no more than rounding"
    )
    prompts = f"The tokenizer in the file makes the same tokens of {len(questions.prompts)} prompts"
    checks = [f"{tensors} to {quantization} does.", f"{prompts}, and the template in it the same text."]
    if not llama_cpp.available():
        return [*checks, "llama.cpp was not installed where this was written, so it was not asked."]
    return checks + check_answers(path, weights, architecture, quantization, questions, on_progress)


def check_tokens(path: Path, tokenizer: PreTrainedTokenizerBase, questions: Questions) -> None:
    """Reads tokenizer and template from the file alone. Raises InputError if they make anything else of the prompts."""
    fields = read_fields(path)
    plain, special = read_tokenizer(fields), special_tokens(tokenizer.special_tokens_map)
    template = fields.get("tokenizer.chat_template", "")
    for number, (turns, prompt) in enumerate(zip(questions.conversations, questions.prompts, strict=True), 1):
        messages = [turn.model_dump(include={"role", "content"}) for turn in turns]
        text = turns[-1].content
        if questions.has_template:
            text = render_template(template, special, messages, open_turn=True)
            if text != questions.render(turns, True):
                raise differs(path, f"its chat template makes another text of prompt {number}")
        expected = tokenizer.encode(text, add_special_tokens=False)
        if plain.encode(text, add_special_tokens=False).ids != expected:
            raise differs(path, f"its tokenizer makes other tokens of prompt {number}")
        if questions.has_template and expected != prompt:
            raise differs(path, f"its template and tokenizer make another prompt of conversation {number}")


def check_answers(
    path: Path,
    weights: Weights,
    architecture: Architecture,
    quantization: str,
    questions: Questions,
    on_progress: ProgressCallback,
) -> list[str]:
    """llama.cpp's answers against those of transformers with the file's numbers. Where they part, transformers must
    find both tokens about as likely: llama.cpp rounds what it multiplies, and transformers does not."""
    needed = weights.numbers * torch.float32.itemsize
    if needed > (free := free_bytes(torch.device("cpu"))):
        return [
            f"llama.cpp was not asked: that takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free."
        ]
    model = dequantized_model(path, weights, architecture, quantization)
    context = min(architecture.context, MAX_CONTEXT)
    questions.fit(context)
    expected = answer(model, questions, questions.stop_ids, on_progress)
    asking = zip(questions.conversations, questions.prompts, questions.limits, strict=True)
    requests = [
        llama_cpp.chat_request(turns, limit) if questions.has_template else llama_cpp.text_request(prompt, limit)
        for turns, prompt, limit in asking
    ]
    file_replies: list[llama_cpp.Reply] = []
    for response in llama_cpp.ask(path, context, torch.get_num_threads(), requests):
        file_replies.append(llama_cpp.reply_of(response, questions.prompts[len(file_replies)]))
        on_progress(len(file_replies), len(requests))
    if lost := [number for number, reply in enumerate(file_replies, 1) if reply.prompt is None]:
        raise differs(path, f"llama.cpp makes another number of tokens of prompt {lost[0]}")
    limit = TOLERANCE.get(quantization, QUANTIZED_TOLERANCE)
    parted = differences(model, expected, file_replies)
    if wrong := [difference for difference in parted if difference.margin > limit]:
        raise differs(
            path,
            f"llama.cpp answers prompt {wrong[0].question + 1} otherwise, by a token {wrong[0].margin:.2f} nats less "
            f"likely ({limit} are allowed)",
        )
    return [
        f"llama.cpp gave the same tokens as transformers with the file's numbers for {len(expected) - len(parted)} of "
        f"{len(expected)} prompts, greedily; the others part where two tokens are within "
        f"{max((difference.margin for difference in parted), default=0.0):.2f} nats of each other."
        if parted
        else f"llama.cpp answered {len(expected)} of {len(expected)} prompts by the same tokens as transformers."
    ]


def read_fields(path: Path) -> dict[str, Any]:
    """The metadata of a file."""
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


def check_tensors(path: Path, weights: Weights, architecture: Architecture, quantization: str) -> float:
    """Dequantizes every tensor and compares it with the model's; the largest error of a number as a share of what its
    type allows. Raises InputError that names the first tensor that differs."""
    worst = 0.0
    for name, kind, tensor in dequantized(path, weights, architecture, quantization):
        expected = weights.read(name).float().numpy()
        share = float((np.abs(tensor.numpy() - expected) / allowed(expected, kind)).max())
        if not share <= 1:
            raise differs(
                path, f"{name} is not what the model has, {share:.3g} times what rounding to {kind.name} does"
            )
        worst = max(worst, share)
    return worst


def dequantized(
    path: Path, weights: Weights, architecture: Architecture, quantization: str
) -> Iterator[tuple[str, Type, Tensor]]:
    """The file's tensors in float32 by the names and in the order of transformers, with the types they have in the
    file. Raises InputError if one is missing."""
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, (gguf_name, kind) in planned(weights, architecture, TYPES[quantization][0]).items():
        tensor = stored.get(gguf_name)
        if tensor is None or tensor.tensor_type != kind:
            raise differs(path, f"{gguf_name} is missing or of another type")
        numbers = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, kind)).reshape(weights.shape(name)))
        if architecture.kind is gguf.MODEL_ARCH.LLAMA and name.split(".")[-2] in ("q_proj", "k_proj"):
            numbers = in_halves(numbers, architecture.heads if "q_proj" in name else architecture.kv_heads)
        yield name, kind, numbers


def dequantized_model(path: Path, weights: Weights, architecture: Architecture, quantization: str) -> PreTrainedModel:
    """The file's numbers in a model of transformers, in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_config(architecture.config, dtype=torch.float32)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, _, tensor in dequantized(path, weights, architecture, quantization):
            parameters[name].copy_(tensor)
    return model.eval()


def allowed(numbers: npt.NDArray[np.float32], kind: Type) -> npt.NDArray[np.float64]:
    """By how much rounding to a type may change each number."""
    size = np.abs(numbers.astype(np.float64))
    if kind in FRACTION:
        smallest = 2.0**-24 if kind is Type.F16 else 2.0**-126
        share: npt.NDArray[np.float64] = np.maximum(size * 2.0 ** -FRACTION[kind], smallest)
        return share
    blocks = numbers.astype(np.float64).reshape(-1, 32)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    spread = blocks.max(axis=1, keepdims=True) - blocks.min(axis=1, keepdims=True)
    width = spread if kind in (Type.Q5_1, Type.Q4_1) else largest
    off = STEPS[kind] * width / LEVELS[kind] + SCALE_ROUNDING * (largest + width) + 2.0**-24
    return np.broadcast_to(off, blocks.shape).reshape(numbers.shape)


def differs(path: Path, what: str) -> InputError:
    return InputError(f"{path.name} was written wrongly and is not offered: {what}", code="export_differs")
