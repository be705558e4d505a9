"""The trunk of the Llama family (Llama, Mistral, Qwen2), written out for learning on a CPU.

Against transformers' modules it folds the norms' weights into the matrices behind them, rotates queries and keys as
complex numbers, in place, keeps for the backward pass only what cannot be had again for a few additions, and casts each
number once. Matrix products are in the dtype of autocast, where that is on; the residual
stream, norms and rotations are float32. T is the length of the packed row, H the width, d that of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from training.attention import Blocks, attend, attend_backward
from training.packing import Packed

FAMILY = ("llama", "mistral", "qwen2")
Gradients = tuple[Tensor | None, ...]


class Shape(NamedTuple):
    """What a layer's attention needs to know besides its weights."""

    heads: int
    kv_heads: int
    eps: float
    scale: float
    dtype: torch.dtype  # of the matrix products
    blocks: Blocks


def supports(model: PreTrainedModel) -> bool:
    """Whether `hidden` computes what the base model `model` does: its family, on a CPU, in float32, with plain weights
    that all learn or all do not, without dropout."""
    config = model.config
    if config.model_type not in FAMILY or config.hidden_act != "silu" or getattr(config, "attention_dropout", 0.0):
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
    """Last hidden states (T, H) of the row, float32."""
    config = model.config
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else torch.float32
    with torch.autocast("cpu", enabled=False):
        x = functional.embedding(packed.ids[0], model.embed_tokens.weight)
        cos, sin = model.rotary_emb(x[None], position_ids=packed.positions)
        half = cos.shape[-1] // 2
        rotation = torch.complex(cos[0, :, None, :half], sin[0, :, None, :half])
        for layer in model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            shape = Shape(
                config.num_attention_heads, config.num_key_value_heads, layer.input_layernorm.variance_epsilon,
                attention.scaling, dtype, packed.blocks,
            )  # fmt: skip
            projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
            x = Attention.apply(
                x, rotation, shape, layer.input_layernorm.weight,
                *(p.weight for p in projections), *(p.bias for p in projections),
            )  # fmt: skip
            after = layer.post_attention_layernorm
            if any(p.bias is not None for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)):
                x = x + mlp(after(x))
            else:
                x = MLP.apply(
                    x, after.variance_epsilon, dtype, after.weight,
                    mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight,
                )  # fmt: skip
        return functional.rms_norm(x, x.shape[-1:], model.norm.weight, model.norm.variance_epsilon)


class Attention(Function):
    """x (T, H) -> x + attention(norm(x)), (T, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rotation: Tensor, shape: Shape, norm: Tensor,
        wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor,
        bq: Tensor | None, bk: Tensor | None, bv: Tensor | None, bo: Tensor | None,
    ) -> Tensor:  # fmt: skip
        d = 2 * rotation.shape[-1]
        turned = in_pairs(torch.cat([wq, wk]), d).mul_(norm).to(shape.dtype)
        straight = (wv * norm).to(shape.dtype)
        inverse = inverse_rms(x, shape.eps)
        normed = (x * inverse).to(shape.dtype)
        bias = None if bq is None or bk is None else in_pairs(torch.cat([bq, bk]), d)
        heads = linear(normed, turned, bias).view(len(x), -1, d)
        value = linear(normed, straight, bv).view(len(x), -1, d)
        rotate(heads, rotation)
        query, key = heads.split([shape.heads, shape.kv_heads], dim=1)
        seen, sums = attend(query, key, value, shape.blocks, shape.scale)
        out = plus(x, seen.flatten(1), wo.to(shape.dtype), bo)
        ctx.shape = shape
        ctx.save_for_backward(
            x, rotation, norm, wq, wk, wv, wo, bq, bo, inverse, turned, straight, heads, value, seen, *sums
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, rotation, norm, wq, wk, wv, wo, bq, bo, inverse, turned, straight, heads, value, seen, *sums = (
            ctx.saved_tensors
        )
        shape: Shape = ctx.shape
        sizes, d = [shape.heads, shape.kv_heads], heads.shape[-1]
        down = grad.to(shape.dtype)
        d_heads, d_value = torch.empty_like(heads), torch.empty_like(value)
        attend_backward(
            torch.mm(down, wo.to(shape.dtype)).view_as(seen), (*heads.split(sizes, 1), value, seen, sums),
            (*d_heads.split(sizes, 1), d_value), shape.blocks, shape.scale,
        )  # fmt: skip
        rotate(d_heads, rotation.conj().resolve_conj())
        d_heads, d_value = d_heads.flatten(1), d_value.flatten(1)
        d_normed = torch.addmm(torch.mm(d_heads, turned), d_value, straight)
        d_x = norm_backward(grad, d_normed, x, inverse)
        if not ctx.needs_input_grad[4]:
            return d_x, *[None] * 11
        normed = (x * inverse).to(shape.dtype)
        d_turned = as_halves(torch.mm(d_heads.t(), normed).float(), d)
        d_straight = torch.mm(d_value.t(), normed).float()
        d_norm = torch.linalg.vecdot(d_turned, torch.cat([wq, wk]), dim=0) + torch.linalg.vecdot(d_straight, wv, dim=0)
        d_wq, d_wk = d_turned.mul_(norm).split([len(wq), len(wk)])
        d_wo = torch.mm(down.t(), seen.flatten(1)).float()
        d_biases: Gradients = (None, None, None)
        if bq is not None:
            d_bias = as_halves(d_heads.float().sum(0), d)
            d_biases = (*d_bias.split([len(wq), len(wk)]), d_value.float().sum(0))
        d_bo = None if bo is None else grad.sum(0)
        return d_x, None, None, d_norm, d_wq, d_wk, d_straight.mul_(norm), d_wo, *d_biases, d_bo


class MLP(Function):
    """x (T, H) -> x + down(silu(gate(norm(x))) * up(norm(x))), (T, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, dtype: torch.dtype, norm: Tensor, wg: Tensor, wu: Tensor, wd: Tensor
    ) -> Tensor:
        gates, ups = (wg * norm).to(dtype), (wu * norm).to(dtype)
        inverse = inverse_rms(x, eps)
        normed = (x * inverse).to(dtype)
        gate, up = torch.mm(normed, gates.t()), torch.mm(normed, ups.t())
        out = plus(x, functional.silu(gate).mul_(up), wd.to(dtype), None)
        ctx.save_for_backward(x, norm, wg, wu, wd, inverse, gates, ups, gate, up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, norm, wg, wu, wd, inverse, gates, ups, gate, up = ctx.saved_tensors
        down = grad.to(gate.dtype)
        d_acted = torch.mm(down, wd.to(gate.dtype))
        acted = functional.silu(gate)
        d_up = d_acted * acted
        d_gate = torch.ops.aten.silu_backward(d_acted.mul_(up), gate)
        d_x = norm_backward(grad, torch.addmm(torch.mm(d_gate, gates), d_up, ups), x, inverse)
        if not ctx.needs_input_grad[3]:
            return d_x, *[None] * 6
        d_wd = torch.mm(down.t(), acted.mul_(up)).float()
        normed = (x * inverse).to(gate.dtype)
        d_gates, d_ups = torch.mm(d_gate.t(), normed).float(), torch.mm(d_up.t(), normed).float()
        d_norm = torch.linalg.vecdot(d_gates, wg, dim=0) + torch.linalg.vecdot(d_ups, wu, dim=0)
        return d_x, None, None, d_norm, d_gates.mul_(norm), d_ups.mul_(norm), d_wd


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """(T, H) -> (T, 1)"""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def norm_backward(grad: Tensor, d_normed: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of x (T, H) through x * inverse_rms(x), added to `grad`, that past the layer."""
    d = d_normed.float()
    along = torch.linalg.vecdot(d, x).unsqueeze(-1)
    d_x = torch.addcmul(grad, d, inverse)
    return d_x.addcmul_(x, along.mul_(inverse**3).div_(-x.shape[-1]))


def plus(x: Tensor, inner: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x + inner @ weight.T + bias in float32: (T, H), (T, n), (H, n), (H) -> (T, H)"""
    one_dtype = inner.dtype == x.dtype
    out = torch.addmm(x, inner, weight.t()) if one_dtype else torch.mm(inner, weight.t()).float().add_(x)
    return out if bias is None else out.add_(bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias in the weight's dtype."""
    return functional.linear(x, weight, None if bias is None else bias.to(weight.dtype))


def rotate(heads: Tensor, rotation: Tensor) -> None:
    """Rotate heads (T, n, d), whose pairs are neighbours, by the complex numbers (T, 1, d / 2), in place."""
    if heads.dtype == torch.float32:
        torch.view_as_complex(heads.unflatten(-1, (-1, 2))).mul_(rotation)
    else:
        pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))
        heads.copy_(torch.view_as_real(pairs.mul_(rotation)).flatten(-2))


def in_pairs(x: Tensor, d: int) -> Tensor:
    """Rows of heads (d rows each) reordered so that the two of a rotation are neighbours."""
    return x.unflatten(0, (-1, 2, d // 2)).transpose(1, 2).flatten(0, 2)


def as_halves(x: Tensor, d: int) -> Tensor:
    """Undoes `in_pairs`."""
    return x.unflatten(0, (-1, d // 2, 2)).transpose(1, 2).flatten(0, 2)
