"""The trunk of the Llama family (Llama, Mistral, Qwen2), written out for learning on a CPU.

Against transformers' modules it joins the matrices that read the same numbers, keeps for the backward pass only what
cannot be had again for little, and does what lies between two matrix products in one pass over memory
(training/kernels). Matrix products are in the dtype of autocast, where that is on; the residual stream, norms and
rotations are float32. T is the number of tokens that are computed of the packed row, H the width, d that of a head.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from training.data.packing import Packed
from training.kernels import ops
from training.kernels.amx import Blocks
from training.kernels.attention import varlen_attention_backward, varlen_attention_forward
from training.kernels.native import as_on_gpu
from training.kernels.prefixes import SharedPrefixes
from training.models.checkpointing import is_recomputed

FAMILY = ("llama", "mistral", "qwen2")
Gradients = tuple[Tensor | None, ...]


class LayerShape(NamedTuple):
    """What a layer needs to know in addition to its weights."""

    heads: int
    kv_heads: int
    eps: float
    scale: float
    dtype: torch.dtype  # of the matrix products
    blocks: Blocks
    shared: SharedPrefixes | None

    @property
    def attention(self) -> tuple[Blocks, float, SharedPrefixes | None]:
        return self.blocks, self.scale, self.shared


def supports_training(model: PreTrainedModel) -> bool:
    """Whether `hidden` computes what the base model `model` does: its family, on a CPU, in float32, with plain weights
    that all learn or all do not, without dropout."""
    config = model.config
    if (
        as_on_gpu("cpu")
        or config.model_type not in FAMILY
        or config.hidden_act != "silu"
        or getattr(config, "attention_dropout", 0.0)
    ):
        return False
    plain = (nn.Linear, nn.Embedding)
    for module in model.modules():
        hooked = module._forward_hooks or module._forward_pre_hooks
        if hooked or (isinstance(module, plain) and type(module) not in plain) or hasattr(module, "base_layer"):
            return False
    weights = list(model.parameters())
    if any(type(w) is not nn.Parameter or w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        return False
    return len({w.requires_grad for w in weights}) == 1


def hidden(model: Any, packed: Packed) -> Tensor:
    """Last hidden states (T, H) of `packed.ids`, float32."""
    config = model.config
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else torch.float32
    with torch.autocast("cpu", enabled=False):
        x = functional.embedding(packed.ids[0], model.embed_tokens.weight)
        half = model.layers[0].self_attn.head_dim // 2
        cosine, sine = (table[0, :, :half].contiguous() for table in model.rotary_emb(x[None], packed.positions))
        apply: Any = LayerFunction.apply
        if torch.is_grad_enabled() and is_recomputed(model.layers[0]):
            apply = partial(checkpoint, apply, use_reentrant=False, preserve_rng_state=False)
        for layer in model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            shape = LayerShape(
                config.num_attention_heads, config.num_key_value_heads, layer.input_layernorm.variance_epsilon,
                attention.scaling, dtype, packed.blocks, packed.shared,
            )  # fmt: skip
            linears = (
                attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
                mlp.gate_proj, mlp.up_proj, mlp.down_proj,
            )  # fmt: skip
            x = apply(
                shape, x, cosine, sine, layer.input_layernorm.weight, layer.post_attention_layernorm.weight,
                *(linear_layer.weight for linear_layer in linears), *(linear_layer.bias for linear_layer in linears),
            )  # fmt: skip
        normed: Tensor = Norm.apply(x, model.norm.weight, model.norm.variance_epsilon)
        return normed


class LayerFunction(Function):
    """x (T, H) -> x + attention + feed-forward, (T, H), float32."""

    @staticmethod
    def forward(
        ctx: Any, shape: LayerShape, x: Tensor, cosine: Tensor, sine: Tensor, norm: Tensor, mlp_norm: Tensor,
        wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, wg: Tensor, wu: Tensor, wd: Tensor, *biases: Tensor | None,
    ) -> Tensor:  # fmt: skip
        bq, bk, bv, bo, bg, bu, bd = biases
        dtype, length = shape.dtype, len(x)
        x = x.contiguous()
        wo, wd = wo.to(dtype), wd.to(dtype)
        wqkv, wgu = fused_weight([wq, wk, wv], dtype), fused_weight([wg, wu], dtype)
        normed, inverse = ops.rms_norm(x, norm, shape.eps, dtype)
        qkv = functional.linear(normed, wqkv, fused_bias([bq, bk, bv], dtype)).view(length, -1, 2 * cosine.shape[1])
        ops.apply_rotary(qkv, cosine, sine, shape.heads + shape.kv_heads)
        query, key, value = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], 1)
        attended, log_sums = varlen_attention_forward(query, key, value, *shape.attention)
        middle, (normed, mlp_inverse) = ops.add_rms_norm(
            x, torch.mm(attended.flatten(1), wo.t()), bo, mlp_norm, shape.eps
        )
        gate_up = functional.linear(normed, wgu, fused_bias([bg, bu], dtype))
        out = ops.residual_add(middle, torch.mm(ops.swiglu(gate_up), wd.t()), bd)
        ctx.shape, ctx.biases = shape, [bias is not None for bias in biases]
        ctx.sizes = [len(wq), len(wk), len(wv)]
        ctx.save_for_backward(
            x, cosine, sine, norm, mlp_norm, wqkv, wo, wgu, wd,
            inverse, qkv, attended, log_sums, middle, mlp_inverse, gate_up,
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        (
            x, cosine, sine, norm, mlp_norm, wqkv, wo, wgu, wd,
            inverse, qkv, attended, log_sums, middle, mlp_inverse, gate_up,
        ) = ctx.saved_tensors  # fmt: skip
        shape: LayerShape = ctx.shape
        learns, heads = ctx.needs_input_grad[4], [shape.heads, shape.kv_heads, shape.kv_heads]
        grad = grad.contiguous()
        cast = grad.to(shape.dtype)
        d_gate_up, acted = ops.swiglu_backward(torch.mm(cast, wd), gate_up)
        mlp = ops.rms_norm_backward(grad, torch.mm(d_gate_up, wgu), middle, mlp_inverse, mlp_norm, learns)
        d_qkv = torch.empty_like(qkv)
        varlen_attention_backward(
            torch.mm(mlp.cast, wo).view_as(attended), (*qkv.split(heads, 1), attended, log_sums), d_qkv.split(heads, 1),
            *shape.attention,
        )  # fmt: skip
        ops.apply_rotary(d_qkv, cosine, sine, shape.heads + shape.kv_heads, back=True)
        d_qkv = d_qkv.flatten(1)
        attention = ops.rms_norm_backward(mlp.x, torch.mm(d_qkv, wqkv), x, inverse, norm, learns)
        if attention.out is None or mlp.out is None:  # frozen
            return None, attention.x, *[None] * 18
        changes = (
            *weight_gradient(d_qkv, attention.out).split(ctx.sizes), weight_gradient(mlp.cast, attended.flatten(1)),
            *weight_gradient(d_gate_up, mlp.out).chunk(2), weight_gradient(cast, acted),
        )  # fmt: skip
        d_biases: Gradients = (None,) * 7
        if any(ctx.biases):
            sums_of = [d_output.sum(0, dtype=torch.float32) for d_output in (d_qkv, d_gate_up)]
            bias_gradients = (*sums_of[0].split(ctx.sizes), mlp.x.sum(0), *sums_of[1].chunk(2), grad.sum(0))
            d_biases = tuple(
                d_output if has_bias else None for d_output, has_bias in zip(bias_gradients, ctx.biases, strict=True)
            )
        return None, attention.x, None, None, attention.weight, mlp.weight, *changes, *d_biases


class Norm(Function):
    """x (T, H) -> its RMSNorm, (T, H), float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, inverse = ops.rms_norm(x, weight, eps, x.dtype)
        ctx.save_for_backward(x, inverse, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, inverse, weight = ctx.saved_tensors
        gradients = ops.rms_norm_backward(None, grad.contiguous(), x, inverse, weight, ctx.needs_input_grad[1])
        return gradients.x, gradients.weight, None


def fused_weight(weights: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Matrices or biases that read the same numbers, one below the other."""
    sizes = [len(weight) for weight in weights]
    out = weights[0].new_empty(sum(sizes), *weights[0].shape[1:], dtype=dtype)
    for weight, target in zip(weights, out.split(sizes), strict=True):
        target.copy_(weight)
    return out


def fused_bias(biases: list[Tensor | None], dtype: torch.dtype) -> Tensor | None:
    present = [bias for bias in biases if bias is not None]
    return fused_weight(present, dtype) if present else None


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """(T, out), (T, in) -> (out, in), float32"""
    return torch.mm(grad.t(), x).float()
