"""Models in GGUF files, turned into Hugging Face folders by transformers' own reader.

What that reader leaves out or guesses is checked here: architectures, kinds of quantization, the memory that plain
numbers take, and the scaling of Llama 3's rotary embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from training.contract import GB, InputError
from training.models.checks import DAMAGE
from training.models.memory import free_bytes
from training.models.model_files import check_room

Type = gguf.GGMLQuantizationType
WHOLE: Final = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}
READABLE: Final = {*WHOLE, *gguf.quants._type_traits}
ENCODERS: Final = frozenset({"t5", "t5encoder", "umt5", "bert", "nomic-bert"})
LARGEST_HALF: Final = 65504.0
LLAMA3_FACTORS: Final = (8.0, 32.0)  # of Llama 3.1 and 3.3, and of Llama 3.2


def gguf_to_folder(path: Path, target: Path, step: Callable[[int, int], None]) -> None:
    """Write the model, tokenizer and chat template of a GGUF file to `target` as safetensors. `step` is told of the
    tensors that were read, and how many there are; it may raise.

    Whole numbers keep their precision; quantized ones become float16, which holds their scales exactly.
    Raises InputError if the file is damaged, its architecture or quantization cannot be read, or memory or disk are
    too small.
    """
    reader = open_gguf(path)
    dtype = stored_type(reader.tensors)
    numbers = sum(int(np.prod(tensor.shape)) for tensor in reader.tensors)
    check_memory(numbers)
    check_room(target, numbers * dtype.itemsize, "for its weights as safetensors")
    factors = rope_factors(reader)
    card = card_of(reader)
    template = text_field(reader, "tokenizer.chat_template")
    width = number_field(reader, f"{text_field(reader, 'general.architecture')}.attention.key_length")
    try:
        with read_once(reader, step):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
            if width and hasattr(config, "head_dim"):  # which transformers' reader leaves at its default
                config.head_dim = width
            model, report = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, config=config, dtype=torch.float32, output_loading_info=True
            )
    except (*DAMAGE, NotImplementedError, IndexError, ImportError) as error:
        if "ignore_mismatched_sizes" in str(error):
            error = ValueError("its weights have other shapes than its metadata says")
        raise unreadable(error) from error
    if missing := sorted(report["missing_keys"]):
        raise unreadable(ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}"))
    if factors is not None:
        scale_rope(model, factors)
    if template and not tokenizer.chat_template:
        tokenizer.chat_template = template
    forget_quantization(model)
    if ends := end_ids(reader, len(tokenizer)):
        model.generation_config.eos_token_id = ends
    if dtype is torch.float16 and any(
        float(weight.detach().abs().max()) > LARGEST_HALF for weight in model.parameters()
    ):
        dtype = torch.float32
    model.to(dtype).save_pretrained(target)
    tokenizer.save_pretrained(target)
    if card:
        (target / "README.md").write_text(card)


@contextmanager
def read_once(reader: gguf.GGUFReader, step: Callable[[int, int], None]) -> Iterator[None]:
    """Meanwhile transformers takes this reader, where it would read the file's vocabulary anew five times, and its
    progress bar over the tensors is `step`."""

    def each(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for number, tensor in enumerate(tensors):
            step(number, len(tensors))
            yield tensor

    replaced = [(gguf, "GGUFReader", lambda *_: reader), (modeling_gguf_pytorch_utils, "tqdm", each)]
    originals = [getattr(module, name) for module, name, _ in replaced]
    for module, name, value in replaced:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replaced, originals, strict=True):
            setattr(module, name, original)


def open_gguf(path: Path) -> gguf.GGUFReader:
    """The file's metadata and its tensors' places. Raises InputError if it cannot be read, now or by transformers."""
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:  # numpy's and the library's own, for whatever is wrong with the bytes
        raise unreadable(error) from error
    architecture = text_field(reader, "general.architecture")
    if text_field(reader, "general.type") in ("adapter", "mmproj"):
        raise InputError(
            f"this GGUF file holds no whole model but an {text_field(reader, 'general.type')}; take the model's own",
            code="model_unsupported",
        )
    if "split.count" in reader.fields and int(reader.fields["split.count"].contents()) > 1:
        raise InputError(
            "this GGUF file is one of several that make the model; join them with llama-gguf-split --merge",
            code="model_unsupported",
        )
    if architecture not in GGUF_SUPPORTED_ARCHITECTURES or architecture in ENCODERS:
        raise InputError(
            f"GGUF files of the architecture {architecture[:60] or '(none is named)'} cannot be read here; take the "
            "model's safetensors, from which the file was made",
            code="model_unsupported",
        )
    if kinds := sorted({tensor.tensor_type.name for tensor in reader.tensors if tensor.tensor_type not in READABLE}):
        raise InputError(
            f"this GGUF file has weights of the kind {kinds[0]}, which cannot be turned back into numbers here; take "
            "one in Q8_0, Q6_K or F16, or the model's safetensors",
            code="model_unsupported",
        )
    if "rope_freqs.weight" in {tensor.name for tensor in reader.tensors} and architecture != "llama":
        raise InputError(
            f"this GGUF file scales the rotary embeddings of {architecture}, which is not read here; take the model's "
            "safetensors",
            code="model_unsupported",
        )
    return reader


def largest_number(model: PreTrainedModel) -> float:
    return max(float(weight.detach().abs().max()) for weight in model.parameters())


def text_field(reader: gguf.GGUFReader, name: str) -> str:
    field = reader.fields.get(name)
    value = field.contents() if field else ""
    return value if isinstance(value, str) else ""


def number_field(reader: gguf.GGUFReader, name: str) -> int:
    field = reader.fields.get(name)
    return int(field.contents()) if field else 0


def end_ids(reader: gguf.GGUFReader, vocabulary: int) -> list[int]:
    """The tokens at which a reply ends, as the file names them: the end of a turn, of the text, and of a message to a
    tool. Numbers beyond the vocabulary are passed over."""
    named = []
    for name in ("eot", "eos", "eom"):
        field = reader.fields.get(f"tokenizer.ggml.{name}_token_id")
        value = field.contents() if field else None
        if isinstance(value, int) and 0 <= value < vocabulary:
            named.append(value)
    return list(dict.fromkeys(named))


def stored_type(tensors: Iterable[Any]) -> torch.dtype:
    """The precision to keep: that of the matrices, if they are whole numbers."""
    kinds = {tensor.tensor_type for tensor in tensors if len(tensor.shape) > 1}
    if len(kinds) == 1 and (dtype := WHOLE.get(next(iter(kinds)))):
        return dtype
    return torch.float32 if kinds <= {Type.F32, Type.BF16} else torch.float16


def check_memory(numbers: int) -> None:
    needed, free = 4 * numbers, free_bytes(torch.device("cpu"))
    if needed > free:
        raise InputError(
            f"{needed / GB:.1f} GB of memory are needed to convert this GGUF file, and {free / GB:.1f} GB are free; "
            "take the model's safetensors, or a machine with more memory",
            code="too_large",
        )


def rope_factors(reader: gguf.GGUFReader) -> np.ndarray[Any, Any] | None:
    """By what the file divides each rotary frequency (D / 2,); None if it does not."""
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            return np.array(tensor.data, dtype=np.float64)
    return None


def scale_rope(model: PreTrainedModel, factors: np.ndarray[Any, Any]) -> None:
    """Set the scaling of Llama 3's rotary embeddings, which transformers' reader leaves out. Raises InputError if the
    file's factors are not those of a Llama 3."""
    if np.allclose(factors, 1):
        return
    theta = float(model.config.rope_parameters["rope_theta"])
    for factor in LLAMA3_FACTORS:
        if factors.shape == (model.config.head_dim // 2,) and np.allclose(
            factors, llama3_factors(theta, model.config.head_dim, factor), rtol=1e-3
        ):
            model.config.rope_parameters = {
                "rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            }  # fmt: skip
            return
    raise InputError(
        "this GGUF file scales its rotary embeddings in a way that is not read here; take the model's safetensors",
        code="model_unsupported",
    )


def llama3_factors(theta: float, width: int, factor: float) -> np.ndarray[Any, Any]:
    """As Llama 3.1's reference code computes them: frequencies that turn rarely in 8,192 tokens are divided by the
    factor, those that turn often are kept, and those between are mixed."""
    turns = 8192 * theta ** -(np.arange(0, width, 2) / width) / (2 * np.pi)
    share = np.clip((turns - 1.0) / (4.0 - 1.0), 0, 1)
    factors: np.ndarray[Any, Any] = 1 / ((1 - share) / factor + share)
    return factors


def forget_quantization(model: PreTrainedModel) -> None:
    """The weights are plain numbers by now, and their config must not say otherwise."""
    model.config.__dict__.pop("quantization_config", None)
    for name, value in (("is_quantized", False), ("hf_quantizer", None), ("quantization_method", None)):
        setattr(model, name, value)


def card_of(reader: gguf.GGUFReader) -> str:
    """A card's front matter with the license, languages and tags that the file names; empty if it names none."""
    lines = []
    if license_name := text_field(reader, "general.license"):
        lines.append(f"license: {plain(license_name)}")
    for name, key in (("general.languages", "language"), ("general.tags", "tags")):
        field = reader.fields.get(name)
        values = field.contents() if field else None
        if isinstance(values, list) and values:
            lines += [f"{key}:", *(f"- {plain(str(value))}" for value in values[:50])]
    return "---\n" + "\n".join(lines) + "\n---\n" if lines else ""


def plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+ /-]", "", text)[:100].strip()


def unreadable(error: Exception) -> InputError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return InputError(
        f"this GGUF file cannot be read ({reason}); fetch it again, or take another", code="model_damaged"
    )
