"""The forward pass of the Llama family (Llama, Mistral, Qwen2, Qwen3), written out for generation.

Against the model's own forward it spares, at every step, the mask, the cache objects and the module calls, does in one
product what reads the same input (query, key and value; gate and up), and in one pass over memory what lies between two
products (training/kernels). The residual stream, norms and rotations are float32. The matrices that are joined are
copies, which `load` brings up to date; where the dtype is the model's, all others are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.engine.kv_cache import LayerShape, PagedCache, Written
from training.engine.weights import plain_linears, weight_of
from training.kernels import amx, ops
from training.kernels.int8 import Int8Matrix, can_multiply_int8, int8_linear, quantize_int8
from training.kernels.logprobs import gives_float32, output_product
from training.kernels.ops import Places
from training.models.llama_training import fused_bias, fused_weight
from training.models.loading import CausalModel, unwrap

FAMILY = ("llama", "mistral", "qwen2", "qwen3")
ROPE = ("default", "linear", "llama3", "yarn")  # frequencies that do not change with the length of the text
SKINNY = range(2, 17)  # rows of x, and
LARGE = 1 << 18  # entries of a matrix, for which MKL is faster with the product turned round


Matrix = Tensor | Int8Matrix


@dataclass(slots=True)
class LayerWeights:
    """Weights of a layer: [out, in] matrices with their biases [out] or None; norms [hidden], float32."""

    attention_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    head_norm: Tensor | None  # [heads + kv_heads, head_dim], Qwen3
    scale: float  # of a query's products with keys
    out: Matrix
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Matrix
    gate_up_bias: Tensor | None
    down: Matrix
    down_bias: Tensor | None


def supports_inference(model: CausalModel) -> bool:
    """Whether this forward computes exactly what `model`'s own does. A sliding window does not matter: the engine's
    context ends where it would begin to slide."""
    base: Any = unwrap(model)
    config = base.config
    if config.model_type not in FAMILY or not hasattr(base, "lm_head"):
        return False
    return config.hidden_act == "silu" and base.model.rotary_emb.rope_type in ROPE and plain_linears(base)


def int8_obstacle(model: CausalModel) -> str:
    """Why the matrices of `model` cannot be kept in 8 bits; "" if they can."""
    base: Any = unwrap(model)
    if base.get_input_embeddings().weight.device.type != "cpu":
        return "8-bit weights are for CPUs"
    if not supports_inference(model):
        return f"8-bit weights are for {', '.join(FAMILY)}, not for this kind of {base.config.model_type}"
    return "" if can_multiply_int8() else "8-bit weights need a C++ compiler (c++) on the machine"


class LlamaForward:
    """`prefill` reads prompts, `decode` moves sequences on by one token. owned: nobody else uses the model, so it is
    taken apart while it is read. int8: matrices are kept in 8 bits (training/kernels/int8.py); the cache's dtype
    must be float32."""

    def __init__(
        self, model: CausalModel, cache: PagedCache, context: int, *, owned: bool = False, int8: bool = False
    ) -> None:
        self.base: Any = unwrap(model)
        self.cache = cache
        config = self.base.config
        self.eps: float = config.rms_norm_eps
        self.heads = ops.HeadLayout(config.num_attention_heads, config.num_key_value_heads, self.eps)
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.cosine, self.sine = self._rotation(context)
        shape = (self.heads.keys, self.head_dim)
        cache.shapes = [LayerShape(shape, shape)] * config.num_hidden_layers
        self._owned = owned
        self._int8 = int8
        self.load()

    def load(self) -> None:
        """Read the model's weights as they are now, active LoRA adapters folded in."""
        with torch.no_grad():
            self.embedding = self._cast(weight_of(self.base.model.embed_tokens)[0])
            self.head: Matrix = self._matrix(weight_of(self.base.lm_head)[0])
            self.norm = self.base.model.norm.weight.detach().float()
            self.layers = []
            for i, layer in enumerate(self.base.model.layers):
                self.layers.append(self._layer(layer))
                if self._owned:  # or its matrices would be in memory twice, for all layers
                    self.base.model.layers[i] = torch.nn.Identity()

    def drop(self) -> None:
        """Let the weights that were read go, until they are read again."""
        self.layers = []
        self.embedding = self.norm = torch.empty(0)
        self.head = torch.empty(0)

    def release(self) -> None:
        """Let the model go: these weights are final."""
        self.base = None

    def prefill(self, prompts: Tensor, lengths: Tensor, written: Written) -> Tensor:
        """Read prompts and give the logits [n, V] of what follows each.

        prompts [n, T] token ids, padded on the right; lengths [n]; `written`: where their keys and values go. Padding
        on the right needs no mask: no real token looks at it.
        """
        n, longest = prompts.shape
        queries, keys, dtype = self.heads.queries, self.heads.keys, self.cache.dtype
        cosine, sine = (table[:longest].repeat(n, 1) for table in (self.cosine, self.sine))
        x = F.embedding(prompts.flatten(), self.embedding).float()
        for i, layer in enumerate(self.layers):
            normed, _ = ops.rms_norm(x, layer.attention_norm, self.eps, dtype)
            qkv = linear(normed, layer.qkv, layer.qkv_bias).view(n * longest, -1, self.head_dim)
            if layer.head_norm is not None:
                ops.norm_heads(qkv[:, : queries + keys], layer.head_norm, self.eps)
            ops.apply_rotary(qkv, cosine, sine, queries + keys)
            heads = qkv.view(n, longest, -1, self.head_dim).transpose(1, 2)  # [n, heads, T, head_dim]
            query, key, value = heads.split([queries, keys, keys], dim=1)
            self.cache.fill(i, key, value, written)
            if compiled := amx.amx_kernels(qkv):
                q, k, v = qkv.split([queries, keys, keys], dim=1)
                attended = amx.amx_attention_forward(compiled, q, k, v, [(n, longest)], layer.scale)[0].flatten(1)
            else:
                attended = F.scaled_dot_product_attention(
                    query, key, value, is_causal=True, scale=layer.scale, enable_gqa=queries != keys
                )
                attended = attended.transpose(1, 2).reshape(n * longest, -1)
            x, (normed, _) = ops.add_rms_norm(
                x, linear(attended, layer.out, layer.out_bias), None, layer.mlp_norm, self.eps
            )
            x = ops.residual_add(x, self._mlp(layer, normed), None)
        last_states = x.view(n, longest, -1)[torch.arange(n, device=x.device), lengths - 1]
        return self._logits(ops.rms_norm(last_states, self.norm, self.eps, dtype).out)

    def decode(self, tokens: Tensor, places: Places) -> Tensor:
        """The logits [n, V] after one more token, tokens [n], of each of n sequences."""
        n, cache = len(tokens), self.cache
        x = F.embedding(tokens, self.embedding).float()
        normed, _ = ops.rms_norm(x, self.layers[0].attention_norm, self.eps, cache.dtype)
        after = [*(layer.attention_norm for layer in self.layers[1:]), self.norm]
        for layer, keys, values, norm in zip(self.layers, cache.keys, cache.values, after, strict=True):
            qkv = linear(normed, layer.qkv, layer.qkv_bias).view(n, -1, self.head_dim)
            ops.append_kv(qkv, self.heads, layer.head_norm, self.cosine, self.sine, places, keys, values)
            attended = ops.decode_attention(qkv, self.heads, keys, values, places, layer.scale)
            x, (normed, _) = ops.add_rms_norm(
                x, linear(attended, layer.out, layer.out_bias), None, layer.mlp_norm, self.eps
            )
            x, (normed, _) = ops.add_rms_norm(x, self._mlp(layer, normed), None, norm, self.eps)
        return self._logits(normed)

    def _logits(self, states: Tensor) -> Tensor:
        """[n, hidden] -> [n, V], as training computes them."""
        if isinstance(self.head, Int8Matrix) or not gives_float32(states):
            return linear(states, self.head, None)
        return output_product(states, self.head)

    def _mlp(self, layer: LayerWeights, normed: Tensor) -> Tensor:
        acted = ops.swiglu(linear(normed, layer.gate_up, layer.gate_up_bias))
        return linear(acted, layer.down, layer.down_bias)

    def _rotation(self, context: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [context, head_dim / 2] of the rotary embedding, from the model's own module."""
        device = self.base.model.embed_tokens.weight.device
        places = torch.arange(context, device=device)[None]
        tables = self.base.model.rotary_emb(torch.zeros(1, device=device), position_ids=places)
        cosine, sine = (table[0, :, : self.head_dim // 2].float().contiguous() for table in tables)
        return cosine, sine

    def _layer(self, layer: Any) -> LayerWeights:
        attention, mlp = layer.self_attn, layer.mlp
        query, query_bias = weight_of(attention.q_proj)
        key, key_bias = weight_of(attention.k_proj)
        value, value_bias = weight_of(attention.v_proj)
        head_norm = None
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm.weight] * self.heads.queries + [attention.k_norm.weight] * self.heads.keys
            head_norm = torch.stack(norms).float()
        gate, gate_bias = weight_of(mlp.gate_proj)
        up, up_bias = weight_of(mlp.up_proj)
        out, out_bias = weight_of(attention.o_proj)
        down, down_bias = weight_of(mlp.down_proj)
        dtype = self.cache.dtype
        return LayerWeights(
            layer.input_layernorm.weight.detach().float(), self._matrix(fused_weight([query, key, value], dtype)),
            fused_bias([query_bias, key_bias, value_bias], dtype), head_norm, attention.scaling,
            self._matrix(out), self._cast(out_bias), layer.post_attention_layernorm.weight.detach().float(),
            self._matrix(fused_weight([gate, up], dtype)), fused_bias([gate_bias, up_bias], dtype),
            self._matrix(down), self._cast(down_bias),
        )  # fmt: skip

    def _matrix(self, weight: Tensor) -> Matrix:
        """As products take it."""
        if self._int8:
            return quantize_int8(weight)
        cast: Tensor = self._cast(weight)
        return cast

    def _cast(self, x: Any) -> Any:
        return None if x is None else x.detach().to(self.cache.dtype)


def linear(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    """x [..., in] times weight [out, in] transposed. For few rows on a CPU, weight times x transposed: the same
    numbers in up to a third of the time."""
    if isinstance(weight, Int8Matrix):
        product = int8_linear(x, weight)
        return product if bias is None else product.add_(bias)
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
