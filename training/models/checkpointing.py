"""Activation checkpointing: a pass keeps each layer's input alone, and the backward pass computes the layer again (Chen
et al. 2016, arXiv:1604.06174). Memory for activations goes down to that of one layer, for about a third more time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from training.contract import InputError


@contextmanager
def attention_of(config: Any, implementation: str) -> Iterator[None]:
    """The model of this config computes with that attention of transformers' interface."""
    before = config._attn_implementation
    config._attn_implementation = implementation
    try:
        yield
    finally:
        config._attn_implementation = before


class Recomputed:
    """The forward pass of a layer, computed again for the backward pass. transformers' own switch works in training
    mode only, and computes again with whatever attention the model has by then, which for a packed row is another one:
    here it is the attention of the pass itself."""

    def __init__(self, layer: nn.Module, config: Any) -> None:
        self.forward = layer.forward
        self.config = config

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*arguments, **named)
        implementation = self.config._attn_implementation

        def compute(*arguments: Any, **named: Any) -> Any:
            with attention_of(self.config, implementation):
                return self.forward(*arguments, **named)

        return checkpoint(compute, *arguments, use_reentrant=False, **named)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Have every layer of the model computed again for the backward pass. Raises InputError if its architecture has no
    layers of which transformers says that they can be."""
    base = model.base_model
    layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"activation_checkpointing: the layers of {type(model).__name__} cannot be computed again; switch it off, "
            "and lower micro_tokens",
            code="config_invalid",
        )
    for layer in layers:
        layer.forward = Recomputed(layer, base.config)


def is_recomputed(layer: nn.Module) -> bool:
    return isinstance(layer.forward, Recomputed)
