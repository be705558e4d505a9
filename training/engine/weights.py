"""Reading a model's weights with its LoRA adapters folded in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def weight_of(module: Any) -> tuple[Tensor, Tensor | None]:
    """The [out, in] matrix and the bias that `module`, a linear layer, with or without LoRA, applies now."""
    if not hasattr(module, "base_layer"):
        return module.weight, module.bias
    weight = module.base_layer.weight
    if not module.merged and not module.disable_adapters:
        for adapter in module.active_adapters:
            if adapter in module.lora_A:
                weight = weight + module.get_delta_weight(adapter)
    return weight, module.base_layer.bias


def plain_linears(model: Any) -> bool:
    """Whether every weight is read correctly by `weight_of` or is a plain parameter: linear layers, plain LoRA on
    linear layers and norms, nothing quantized, no other kind of adapter, no hooks that change what a layer gives."""
    for module in model.modules():
        if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
            return False
        if hasattr(module, "base_layer"):
            if not hasattr(module, "lora_A") or type(module.base_layer) is not nn.Linear:
                return False
            if module.lora_variant or any(layer.bias is not None for layer in module.lora_B.values()):
                return False
        elif type(module).__name__ == "ModulesToSaveWrapper" or (
            isinstance(module, nn.Linear) and type(module) is not nn.Linear
        ):
            return False
    return True
