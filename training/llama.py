"""The trunk of the Llama family (Llama, Mistral, Qwen2), written out for learning on a CPU.

Against transformers' modules it computes query, key and value, and gate and up, in one product each; folds the norms'
weights into the matrices behind them; keeps for the backward pass only what cannot be had again at the cost of an
addition; and casts each number once. Matrix products are in the dtype of autocast, where that is on; the residual
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

    @property
    def turned(self) -> int:
        """Heads that are rotated: queries and keys."""
        return self.heads + self.kv_heads


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
        weight = in_pairs(torch.cat([wq, wk, wv]), shape.turned, d).mul_(norm).to(shape.dtype)
        bias = None if bq is None or bk is None or bv is None else in_pairs(torch.cat([bq, bk, bv]), shape.turned, d)
        inverse = inverse_rms(x, shape.eps)
        normed = (x * inverse).to(shape.dtype)
        heads = linear(normed, weight, bias).view(len(x), -1, d)
        rotate(heads[:, : shape.turned], rotation)
        query, key, value = heads.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        seen, sums = attend(query, key, value, shape.blocks, shape.scale)
        out = plus(x, seen.flatten(1), wo.to(shape.dtype), bo)
        ctx.shape = shape
        ctx.save_for_backward(x, rotation, norm, wq, wk, wv, wo, bq, bo, inverse, weight, heads, seen, *sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, rotation, norm, wq, wk, wv, wo, bq, bo, inverse, weight, heads, seen, *sums = ctx.saved_tensors
        shape: Shape = ctx.shape
        sizes = [shape.heads, shape.kv_heads, shape.kv_heads]
        d = heads.shape[-1]
        down = grad.to(shape.dtype)
        d_heads = torch.empty_like(heads)
        attend_backward(
            torch.mm(down, wo.to(shape.dtype)).view_as(seen), (*heads.split(sizes, 1), seen, sums),
            d_heads.split(sizes, 1), shape.blocks, shape.scale,
        )  # fmt: skip
        rotate(d_heads[:, : shape.turned], rotation.conj().resolve_conj())
        flat = d_heads.flatten(1)
        d_x = norm_backward(grad, torch.mm(flat, weight), x, inverse)
        if not ctx.needs_input_grad[4]:
            return d_x, *[None] * 11
        joined = torch.cat([wq, wk, wv])
        d_joined = as_halves(torch.mm(flat.t(), (x * inverse).to(shape.dtype)).float(), shape.turned, d)
        d_norm = torch.linalg.vecdot(d_joined, joined, dim=0)
        d_weights = d_joined.mul_(norm).split([len(wq), len(wk), len(wv)])
        d_wo = torch.mm(down.t(), seen.flatten(1)).float()
        d_biases: Gradients = (None, None, None)
        if bq is not None:
            d_bias = as_halves(flat.float().sum(0), shape.turned, d)
            d_biases = d_bias.split([len(wq), len(wk), len(wv)])
        return d_x, None, None, d_norm, *d_weights, d_wo, *d_biases, None if bo is None else grad.sum(0)


class MLP(Function):
    """x (T, H) -> x + down(silu(gate(norm(x))) * up(norm(x))), (T, H)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, dtype: torch.dtype, norm: Tensor, wg: Tensor, wu: Tensor, wd: Tensor
    ) -> Tensor:
        weight = torch.cat([wg, wu]).mul_(norm).to(dtype)
        inverse = inverse_rms(x, eps)
        joined = torch.mm((x * inverse).to(dtype), weight.t())
        gate, up = joined.chunk(2, dim=1)
        out = plus(x, functional.silu(gate).mul_(up), wd.to(dtype), None)
        ctx.save_for_backward(x, norm, wg, wu, wd, inverse, weight, joined)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        x, norm, wg, wu, wd, inverse, weight, joined = ctx.saved_tensors
        gate, up = joined.chunk(2, dim=1)
        down = grad.to(joined.dtype)
        d_acted = torch.mm(down, wd.to(joined.dtype))
        acted = functional.silu(gate)
        d_joined = torch.empty_like(joined)
        d_gate, d_up = d_joined.chunk(2, dim=1)
        torch.mul(d_acted, acted, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_acted.mul_(up), gate, grad_input=d_gate)
        d_x = norm_backward(grad, torch.mm(d_joined, weight), x, inverse)
        if not ctx.needs_input_grad[3]:
            return d_x, *[None] * 6
        d_wd = torch.mm(down.t(), acted.mul_(up)).float()
        d_weight = torch.mm(d_joined.t(), (x * inverse).to(joined.dtype)).float()
        d_norm = torch.linalg.vecdot(d_weight, torch.cat([wg, wu]), dim=0)
        return d_x, None, None, d_norm, *d_weight.mul_(norm).chunk(2), d_wd


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


def in_pairs(x: Tensor, turned: int, d: int) -> Tensor:
    """Rows of the first `turned` heads (of d rows each) reordered so that the two of a rotation are neighbours."""
    first, rest = x[: turned * d], x[turned * d :]
    return torch.cat([first.unflatten(0, (-1, 2, d // 2)).transpose(1, 2).flatten(0, 2), rest])


def as_halves(x: Tensor, turned: int, d: int) -> Tensor:
    """Undoes `in_pairs`."""
    first, rest = x[: turned * d], x[turned * d :]
    return torch.cat([first.unflatten(0, (-1, d // 2, 2)).transpose(1, 2).flatten(0, 2), rest])
