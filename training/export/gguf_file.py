"""A GGUF file: what llama.cpp, Ollama and LM Studio run. Written one tensor at a time, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.contract import InputError
from training.export.answers import Questions
from training.export.gguf_architectures import ROPE_FREQS, Architecture
from training.export.gguf_tokenizer import Vocabulary, adds_bos, write_vocabulary
from training.export.templates import portable_template
from training.export.weights import Weights

Type = gguf.GGMLQuantizationType
TYPES: Final = {
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q5_1": (Type.Q5_1, gguf.LlamaFileType.MOSTLY_Q5_1),
    "q5_0": (Type.Q5_0, gguf.LlamaFileType.MOSTLY_Q5_0),
    "q4_1": (Type.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
ENDS: Final = ("token_embd.weight", "output.weight")
BLOCK: Final = 32  # numbers that share a scale in these types


@dataclass(frozen=True)
class Tokens:
    """What a chat needs beside the vocabulary. stop_ids: tokens that end a reply, the end of a turn first."""

    template: str
    stop_ids: list[int]
    bos_id: int | None
    pad_id: int | None
    adds_bos: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, questions: Questions) -> Tokens:
        template = portable_template(str(tokenizer.get_chat_template())) if questions.has_template else ""
        return cls(
            template, questions.stop_ids, tokenizer.bos_token_id, tokenizer.pad_token_id, adds_bos(tokenizer, questions)
        )


@dataclass(frozen=True)
class About:
    """Who the model is, for the file's metadata."""

    name: str
    license: str = ""


def stored_type(name: str, shape: tuple[int, ...], wanted: Type) -> Type:
    """The type in which a tensor is stored. Vectors stay in float32. Embeddings and the output layer, which suffer
    most, have 8 bits at least; a matrix whose rows are no whole blocks stays in 16 bits."""
    if len(shape) == 1:
        return Type.F32
    quantized = wanted not in (Type.F16, Type.BF16)
    if quantized and shape[-1] % BLOCK:
        return Type.F16
    return Type.Q8_0 if quantized and name in ENDS else wanted


def planned(weights: Weights, architecture: Architecture, wanted: Type) -> dict[str, tuple[str, Type]]:
    """By tensor, llama.cpp's name for it and its type."""
    names = {name: architecture.tensor_name(name) for name in weights.names}
    return {name: (gguf_name, stored_type(gguf_name, weights.shape(name), wanted)) for name, gguf_name in names.items()}


def file_bytes(weights: Weights, architecture: Architecture, quantization: str) -> int:
    """Bytes of all tensors."""
    plan = planned(weights, architecture, TYPES[quantization][0])
    return sum(stored_bytes(weights.shape(name), kind) for name, (_, kind) in plan.items())


def stored_bytes(shape: tuple[int, ...], kind: Type) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return torch.Size(shape).numel() // block * size


def write_gguf(
    path: Path,
    weights: Weights,
    architecture: Architecture,
    vocabulary: Vocabulary,
    tokens: Tokens,
    about: About,
    quantization: str,
    step: Callable[[int], None],
) -> None:
    """Raises InputError for what cannot be written for certain."""
    weight_type, file_type = TYPES[quantization]
    writer = gguf.GGUFWriter(path, architecture.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about.name)
    writer.add_license(about.license)
    writer.add_file_type(int(file_type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    architecture.describe(writer)
    write_vocabulary(writer, vocabulary)
    write_chat(writer, tokens)
    plan = planned(weights, architecture, weight_type)
    factors = architecture.rope_factors()
    if factors is not None:
        writer.add_tensor_info(ROPE_FREQS, factors.shape, factors.dtype, factors.nbytes)
    for name, (gguf_name, kind) in plan.items():
        shape = weights.shape(name)
        writer.add_tensor_info(gguf_name, shape, np.dtype(np.float32), stored_bytes(shape, kind), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, (_, kind) in plan.items():
            tensor = architecture.arranged(name, weights.read(name))
            writer.write_tensor_data(quantized(name, tensor, kind))
            step(tensor.numel())
    finally:
        writer.close()


def write_chat(writer: Any, tokens: Tokens) -> None:
    if tokens.template:
        writer.add_chat_template(tokens.template)
        writer.add_eot_token_id(tokens.stop_ids[0])
    if tokens.stop_ids:
        writer.add_eos_token_id(tokens.stop_ids[0])
    if len(tokens.stop_ids) > 1:
        writer.add_eom_token_id(tokens.stop_ids[1])  # llama.cpp ends at all three
    if tokens.bos_id is not None:
        writer.add_bos_token_id(tokens.bos_id)
    if tokens.pad_id is not None:
        writer.add_pad_token_id(tokens.pad_id)
    writer.add_add_bos_token(tokens.adds_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def quantized(name: str, tensor: Tensor, kind: Type) -> npt.NDArray[Any]:
    """The tensor's bytes in a type. Raises InputError if a number is too large for it."""
    numbers = tensor.float().numpy()
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} has values that are no numbers; this model is broken", code="model_damaged")
    with np.errstate(over="ignore"):
        stored: npt.NDArray[Any] = gguf.quants.quantize(numbers, kind)
    if kind not in (Type.F32, Type.BF16) and not np.isfinite(gguf.quants.dequantize(stored, kind)).all():
        raise InputError(
            f"{name} reaches {np.abs(numbers).max():.4g}, which {kind.name} cannot hold; export as gguf-bf16",
            code="out_of_range",
        )
    return stored
