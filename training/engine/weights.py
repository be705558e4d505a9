"""Reading a model's weights with its LoRA adapters folded in."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from training.models.adapters import GivesDtype
from training.models.token_rows import TokenRows, with_rows


def weight_of(module: Any) -> tuple[Tensor, Tensor | None]:
    """The [out, in] matrix and the bias that `module`, a linear layer, with or without LoRA, or an embedding, applies
    now. Sums are in float32."""
    if isinstance(module, TrainableTokensWrapper):
        return with_rows(module), getattr(module, "bias", None)
    module = active_module(module)
    if not hasattr(module, "base_layer"):
        return module.weight, getattr(module, "bias", None)
    weight = module.base_layer.weight
    if not module.merged and not module.disable_adapters:
        for adapter in module.active_adapters:
            if adapter in module.lora_A:
                weight = weight + module.get_delta_weight(adapter).float()
                if adapter in module.lora_variant:
                    weight = with_magnitude(weight, module.lora_magnitude_vector[adapter].weight)
    return weight, module.base_layer.bias


def active_module(module: Any) -> Any:
    """Of a module that learns whole beside an adapter, the one that is switched on now; else the module."""
    if not isinstance(module, ModulesToSaveWrapper):
        return module
    if module.disable_adapters or not module.active_adapters:
        return module.original_module
    return module.modules_to_save[module.active_adapters[0]]


def frozen_module(module: Any) -> Any:
    """Of a module that learns, whole or in some rows, beside an adapter, the base's own, which has the dtype of the
    others."""
    return module.original_module if isinstance(module, ModulesToSaveWrapper | TrainableTokensWrapper) else module


def with_magnitude(weight: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA (Liu et al. 2024, arXiv:2402.09353, equation 5): each output's weights at a length of their own."""
    lengths: Tensor = magnitude / torch.linalg.norm(weight, dim=1)
    return weight * lengths.view(-1, 1)


def plain_linears(model: Any) -> bool:
    """Whether every weight is read correctly by `weight_of` or is a plain parameter: linear layers, LoRA or DoRA on
    linear layers, embeddings and linear layers that learn whole or in some rows beside it, and norms; nothing
    quantized, no other kind of adapter, no hooks that change what a layer gives."""
    for module in model.modules():
        if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
            return False
        if isinstance(module, TokenRows):
            continue
        if hasattr(module, "base_layer") and not isinstance(module, ModulesToSaveWrapper):
            if not hasattr(module, "lora_A") or type(module.base_layer) is not nn.Linear:
                return False
            if any(type(variant) is not DoraLinearVariant for variant in module.lora_variant.values()):
                return False
            if len(module.lora_variant) and len(module.active_adapters) > 1:  # each of which has lengths of its own
                return False
            if any(layer.bias is not None for layer in module.lora_B.values()):
                return False
        elif isinstance(module, nn.Linear) and type(module) is not nn.Linear and not isinstance(module, GivesDtype):
            return False
    return True
