"""What llama.cpp has to know of a model beside its numbers: shapes, rotary embeddings, the names of its tensors.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md) and the metadata that llama.cpp reads for each
architecture. Models that need more than is written here are refused.
"""

from __future__ import annotations

from typing import Any, Final

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PretrainedConfig

from training.contract import InputError

ARCHITECTURES: Final = {  # transformers' model type: llama.cpp's architecture
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
ROPE_FREQS: Final = "rope_freqs.weight"


class Architecture:
    """A model as llama.cpp knows it. Raises InputError for one that cannot be written for certain."""

    def __init__(self, config: PretrainedConfig) -> None:
        if config.model_type not in ARCHITECTURES:
            raise InputError(
                f"GGUF files are written for {', '.join(ARCHITECTURES)}, and this is {config.model_type}; export it as "
                "a Hugging Face folder, which llama.cpp's own converter reads",
                code="model_unsupported",
            )
        self.config = config
        self.kind = ARCHITECTURES[config.model_type]
        self.name = gguf.MODEL_ARCH_NAMES[self.kind]
        self.layers = int(config.num_hidden_layers)
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads or config.num_attention_heads)
        self.head_width = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.rope: dict[str, Any] = dict(config.rope_parameters or {})
        self._names = gguf.get_tensor_name_map(self.kind, self.layers)
        if config.hidden_act not in ("silu", "swish"):
            raise refused(f"its activation is {config.hidden_act}")
        if self.rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise refused("it rotates a part of each head only")
        if self.rope_type not in ("default", "linear", "yarn", "llama3"):
            raise refused(f"its rotary embeddings are scaled by {self.rope_type}")

    @property
    def rope_type(self) -> str:
        return str(self.rope.get("rope_type", "default"))

    @property
    def window(self) -> int | None:
        """The sliding window of its attention; llama.cpp has none for these architectures."""
        window = getattr(self.config, "sliding_window", None)
        if self.config.model_type != "mistral" and not getattr(self.config, "use_sliding_window", False):
            return None
        return int(window) if window else None

    @property
    def context(self) -> int:
        """Tokens up to which llama.cpp computes what transformers does."""
        context = int(self.config.max_position_embeddings)
        return min(context, self.window) if self.window else context

    def describe(self, writer: Any) -> None:
        """Writes the metadata."""
        config = self.config
        writer.add_block_count(self.layers)
        writer.add_context_length(self.context)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(self.head_width)
        writer.add_value_length(self.head_width)
        writer.add_rope_dimension_count(self.head_width)
        writer.add_rope_freq_base(float(self.rope.get("rope_theta", 10_000.0)))
        writer.add_vocab_size(config.vocab_size)
        if self.rope_type == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(self.rope["factor"]))
        if self.rope_type == "yarn":
            self._describe_yarn(writer)

    def _describe_yarn(self, writer: Any) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(self.rope["factor"]))
        original = self.rope.get("original_max_position_embeddings") or self.config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(int(original))
        unwritten = {"mscale", "mscale_all_dim", "attention_factor", "truncate"}
        if changed := sorted(name for name in unwritten if self.rope.get(name) is not None):
            raise refused(f"its YaRN scaling sets {changed[0]}")
        if (fast := self.rope.get("beta_fast")) is not None:
            writer.add_rope_scaling_yarn_beta_fast(float(fast))
        if (slow := self.rope.get("beta_slow")) is not None:
            writer.add_rope_scaling_yarn_beta_slow(float(slow))

    def rope_factors(self) -> npt.NDArray[np.float32] | None:
        """By what Llama 3.1 divides each of its frequencies (D / 2,); None for other models."""
        if self.rope_type != "llama3":
            return None
        base, factor = float(self.rope["rope_theta"]), float(self.rope["factor"])
        low, high = float(self.rope["low_freq_factor"]), float(self.rope["high_freq_factor"])
        original = float(self.rope["original_max_position_embeddings"])
        exponents = np.arange(0, self.head_width, 2, dtype=np.float64) / self.head_width
        turns = original * base**-exponents / (2 * np.pi)  # how often a pair turns in the original context
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        factors: npt.NDArray[np.float32] = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
        return factors

    def tensor_name(self, name: str) -> str:
        """llama.cpp's name. Raises InputError for a tensor that it does not know."""
        known: str | None = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise refused(f"llama.cpp has no place for {name}")
        return known

    def arranged(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor in llama.cpp's order: it rotates neighbors (0, 1), (2, 3), … of Llama's heads, where transformers
        rotates halves (0, D/2), (1, D/2 + 1), …"""
        part = name.split(".")[-2] if "." in name else ""
        if self.kind is not gguf.MODEL_ARCH.LLAMA or part not in ("q_proj", "k_proj"):
            return tensor
        return interleaved(tensor, self.heads if part == "q_proj" else self.kv_heads)


def interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows (or a bias) of H heads of width D: within each head, row i of the first half is followed by row i of the
    second."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def in_halves(tensor: Tensor, heads: int) -> Tensor:
    """The way back, computed by indices, so that one checks the other."""
    width = tensor.shape[0] // heads
    order = torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])
    rows = (torch.arange(heads)[:, None] * width + order[None, :]).flatten()
    return tensor[rows]


def refused(why: str) -> InputError:
    return InputError(
        f"this model cannot be written as GGUF for certain: {why}; export it as a Hugging Face folder",
        code="model_unsupported",
    )
