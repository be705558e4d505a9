"""The forward pass of the Llama family (Llama, Mistral, Qwen2, Qwen3), written out for generation.

Against the model's own forward it spares, at every step, the mask, the cache objects and the module calls, and does
in one product what reads the same input: query, key and value; gate and up. What one step costs is then little more
than its matrix products. The three matrices that are joined are copies, which `load` brings up to date; all others
are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.engine.cache import SlotCache
from training.engine.weights import plain_linears, weight_of
from training.models import CausalModel, unwrap

FAMILY = ("llama", "mistral", "qwen2", "qwen3")
ROPE = ("default", "linear", "llama3", "yarn")  # frequencies that do not change with the length of the text
SKINNY = range(2, 17)  # rows of x, and
LARGE = 1 << 18  # entries of a matrix, for which MKL is faster with the product turned round


@dataclass(slots=True)
class Layer:
    """Weights of a layer: [out, in] matrices with their biases [out] or None; norms [hidden]."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    head_norm: Tensor | None  # [heads + kv_heads, head_dim], Qwen3
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


def supports(model: CausalModel) -> bool:
    """Whether this forward computes exactly what `model`'s own does. A sliding window does not matter: the engine's
    context ends where it would begin to slide."""
    base: Any = unwrap(model)
    config = base.config
    if config.model_type not in FAMILY or not hasattr(base, "lm_head"):
        return False
    return config.hidden_act == "silu" and base.model.rotary_emb.rope_type in ROPE and plain_linears(base)


class LlamaForward:
    """`prefill` reads prompts into slots, `decode` moves the first n slots on by one token."""

    def __init__(self, model: CausalModel, cache: SlotCache, context: int) -> None:
        self.base: Any = unwrap(model)
        self.cache = cache
        config = self.base.config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps: float = config.rms_norm_eps
        self.rotation = self._rotation(context)
        self.load()

    def load(self) -> None:
        """Read the model's weights as they are now, active LoRA adapters folded in."""
        with torch.no_grad():
            self.embedding = self._cast(self.base.model.embed_tokens.weight)
            self.head = self._cast(weight_of(self.base.lm_head)[0])
            self.norm = self._cast(self.base.model.norm.weight)
            self.layers = [self._layer(layer) for layer in self.base.model.layers]

    def drop(self) -> None:
        """Let the weights that were read go, until they are read again."""
        self.layers = []
        self.embedding = self.head = self.norm = torch.empty(0)

    def release(self) -> None:
        """Let the model go: these weights are final."""
        self.base = None

    def prefill(self, prompts: Tensor, lengths: Tensor, slots: Tensor, rows: Tensor) -> Tensor:
        """Read prompts and give the logits [n, V], float32, of what follows each.

        prompts [n, T] token ids, padded on the right; lengths [n]; slots [m] take the prompts' keys and values, slot i
        those of prompt rows[i]. Padding on the right needs no mask: no real token looks at it.
        """
        n, longest = prompts.shape
        rotation = self.rotation[:longest, None]
        x = F.embedding(prompts, self.embedding)
        for i, layer in enumerate(self.layers):
            heads = self._project(layer, x, rotation).transpose(1, 2)  # [n, heads, T, head_dim]
            query, key, value = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            self.cache.fill(i, slots, rows, key, value)
            seen = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=1.0, enable_gqa=self.heads != self.kv_heads
            )
            x = x + linear(seen.transpose(1, 2).reshape(n, longest, -1), layer.out, layer.out_bias)
            x = x + self._mlp(layer, x)
        last = x[torch.arange(n, device=x.device), lengths - 1]
        return self._logits(last)

    def decode(self, tokens: Tensor, positions: Tensor, length: int) -> Tensor:
        """The logits [n, V], float32, after one more token a slot.

        tokens [n] and positions [n] of the first n slots; `length` is the largest position plus one.
        """
        n, groups = len(tokens), self.heads // self.kv_heads
        self.cache.advance(positions)
        bias = self.cache.bias[:n, None, None, :length]
        rotation = self.rotation[positions][:, None]
        x = F.embedding(tokens, self.embedding)
        for i, layer in enumerate(self.layers):
            heads = self._project(layer, x, rotation)  # [n, heads, head_dim]
            query, key, value = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            self.cache.append(i, positions, key, value)
            # A query's heads that share a key are rows of one small product.
            seen = F.scaled_dot_product_attention(
                query.view(n, self.kv_heads, groups, self.head_dim),
                self.cache.keys[i][:n, :, :length], self.cache.values[i][:n, :, :length], attn_mask=bias, scale=1.0,
            ).view(n, -1)  # fmt: skip
            x = x + linear(seen, layer.out, layer.out_bias)
            x = x + self._mlp(layer, x)
        return self._logits(x)

    def _project(self, layer: Layer, x: Tensor, rotation: Tensor) -> Tensor:
        """Queries (scaled), keys and values [..., heads + 2 kv_heads, head_dim] of x [..., hidden], rotated."""
        joined = linear(F.rms_norm(x, x.shape[-1:], layer.attention_norm, self.eps), layer.qkv, layer.qkv_bias)
        heads = joined.view(*x.shape[:-1], -1, self.head_dim)
        turned = heads[..., : self.heads + self.kv_heads, :]
        if layer.head_norm is not None:
            turned.copy_(F.rms_norm(turned, turned.shape[-1:], None, self.eps) * layer.head_norm)
        if heads.dtype == torch.float32:
            torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(rotation)
        else:
            pairs = torch.view_as_complex(turned.float().unflatten(-1, (-1, 2)))
            turned.copy_(torch.view_as_real(pairs * rotation).flatten(-2))
        return heads

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        joined = linear(F.rms_norm(x, x.shape[-1:], layer.mlp_norm, self.eps), layer.gate_up, layer.gate_up_bias)
        gate, up = joined.chunk(2, dim=-1)
        return linear(F.silu(gate).mul_(up), layer.down, layer.down_bias)

    def _logits(self, x: Tensor) -> Tensor:
        return linear(F.rms_norm(x, x.shape[-1:], self.norm, self.eps), self.head, None).float()

    def _rotation(self, context: int) -> Tensor:
        """The rotary embedding as complex numbers [context, 1, head_dim / 2], from the model's own module."""
        device = self.base.model.embed_tokens.weight.device
        places = torch.arange(context, device=device)[None]
        cos, sin = self.base.model.rotary_emb(torch.zeros(1, device=device), position_ids=places)
        half = self.head_dim // 2
        return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())

    def _layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, query_bias = weight_of(attention.q_proj)
        key, key_bias = weight_of(attention.k_proj)
        value, value_bias = weight_of(attention.v_proj)
        head_norm, scale = None, attention.scaling
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm.weight * scale] * self.heads + [attention.k_norm.weight] * self.kv_heads
            head_norm, scale = self._cast(self._pairs(torch.cat(norms)).view(-1, self.head_dim)), 1.0
        qkv = torch.cat([self._pairs(query * scale), self._pairs(key), value])
        bias = None
        if query_bias is not None and key_bias is not None and value_bias is not None:
            bias = self._cast(torch.cat([self._pairs(query_bias * scale), self._pairs(key_bias), value_bias]))
        gate, gate_bias = weight_of(mlp.gate_proj)
        up, up_bias = weight_of(mlp.up_proj)
        out, out_bias = weight_of(attention.o_proj)
        down, down_bias = weight_of(mlp.down_proj)
        joined_bias = torch.cat([gate_bias, up_bias]) if gate_bias is not None and up_bias is not None else None
        return Layer(
            self._cast(layer.input_layernorm.weight), self._cast(qkv), bias, head_norm,
            self._cast(out), self._cast(out_bias), self._cast(layer.post_attention_layernorm.weight),
            self._cast(torch.cat([gate, up])), self._cast(joined_bias),
            self._cast(down), self._cast(down_bias),
        )  # fmt: skip

    def _pairs(self, x: Tensor) -> Tensor:
        """Reorder each head's rows so that the two of a rotation are neighbours, and a rotation is one complex product.
        Queries and keys are reordered alike, so their products stay what they were."""
        heads = x.unflatten(0, (-1, 2, self.head_dim // 2))
        return heads.transpose(1, 2).reshape(x.shape)

    def _cast(self, x: Any) -> Any:
        return None if x is None else x.detach().to(self.cache.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed. For few rows on a CPU, weight times x transposed: the same
    numbers in up to a third of the time."""
    if (
        x.ndim == 2
        and len(x) in SKINNY
        and weight.numel() >= LARGE
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    ):
        product = torch.mm(weight, x.t()).t().contiguous()
        return product if bias is None else product.add_(bias)
    return F.linear(x, weight, bias)
