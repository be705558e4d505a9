"""Embeddings of single tokens that learn beside an adapter: those that a chat template brought to a base model.

PEFT's trainable_token_indices keeps a row for each such token, and puts it into a copy of the whole (V, H) matrix in
every pass. Here the rows take their place in what the layer gives, so that no copy of the matrix, and no gradient of
its size, is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from peft import PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils import TrainableTokensWrapper
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from training.contract import InputError

UNTRAINED: Final = "untrained_token_ids"  # the key in config.json, which training.models.new_tokens writes


class TokenRows(TrainableTokensLayer):
    """PEFT's layer around an embedding or an output matrix."""

    def forward_adapters(self, x: Tensor, active_adapters: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or not active_adapters:
            whole: Tensor = super().forward_adapters(x, active_adapters, *args, **kwargs)
            return whole
        name = active_adapters[0]
        ids = torch.tensor(self.token_indices[name], device=x.device)
        rows, embedded = self.trainable_tokens_delta[name], self.base_layer(x)
        if isinstance(self.base_layer, nn.Embedding):
            matches = x[..., None] == ids
            changed = rows[matches.int().argmax(dim=-1)].to(embedded.dtype)
            if (scale := self._get_embed_scale()) is not None:  # Gemma's
                changed = changed * scale.to(changed.dtype)
            return torch.where(matches.any(dim=-1, keepdim=True), changed, embedded)
        bias = self.base_layer.bias
        logits = functional.linear(x, rows.to(x.dtype), None if bias is None else bias[ids])
        replaced: Tensor = embedded.index_copy(-1, ids, logits.to(embedded.dtype))
        return replaced


class EndWithRows(TrainableTokensWrapper):
    """PEFT's wrapper, which besides its weight has what the wrapped layer has: num_embeddings, bias."""

    def _hasattr_wrapped(self, name: str, modules: Any) -> bool:  # noqa: ARG002 (PEFT's signature)
        return name == "weight" or hasattr(self.original_module, name)

    def _getattr_wrapped(self, name: str, modules: Any) -> Any:  # noqa: ARG002 (PEFT's signature)
        return with_rows(self) if name == "weight" else getattr(self.original_module, name)


def token_rows(model: PreTrainedModel, others: Sequence[str], *, tied: bool) -> dict[str, list[int]] | None:
    """PEFT's trainable_token_indices for a model whose config names tokens that nobody has trained; None if there are
    none. others: modules that learn in another way, which these rows would be part of.

    Raises InputError if an end of the model is of a kind that takes no rows of its own.
    """
    ids = getattr(model.config, UNTRAINED, None)
    if not ids:
        return None
    ends = [model.get_input_embeddings(), *([] if tied else [model.get_output_embeddings()])]
    names = {id(module): name.split(".")[-1] for name, module in model.named_modules()}
    indices = {}
    for end in ends:
        name = names[id(end)]
        if name in others:
            continue
        if not isinstance(end, nn.Embedding | nn.Linear):
            raise InputError(
                f"lora.rank: the embeddings of this model's new tokens have to be learned, and its {name} takes no "
                "rows of its own; set lora.rank to 0",
                code="model_unsupported",
            )
        indices[name] = sorted(map(int, ids))
    return indices or None


def place_rows(model: PeftModel) -> None:
    """Have the model's token adapters compute as is done here."""
    for module in model.modules():
        if type(module) is TrainableTokensLayer:
            module.__class__ = TokenRows
        elif type(module) is TrainableTokensWrapper:
            module.__class__ = EndWithRows


@torch.no_grad()
def copy_rows(model: nn.Module, source: str, target: str) -> None:
    """Give the adapter `target`, if there is one, the rows of `source`, frozen: TRL's copy of an adapter, which is its
    reference, leaves them as the base has them."""
    for module in model.modules():
        if isinstance(module, TokenRows) and target in module.trainable_tokens_delta:
            module.trainable_tokens_delta[target].copy_(module.trainable_tokens_delta[source])
            module.trainable_tokens_delta[target].requires_grad_(False)


def has_token_rows(model: nn.Module) -> bool:
    return any(isinstance(module, TrainableTokensWrapper) for module in model.modules())


def with_rows(wrapper: TrainableTokensWrapper) -> Tensor:
    """The (V, H) matrix that the wrapped embedding or linear layer applies now."""
    adapter = wrapper.token_adapter
    weight: Tensor = wrapper.original_module.weight
    if wrapper.disable_adapters or adapter.merged:
        return weight
    for name in adapter.active_adapters:
        if name in adapter.trainable_tokens_delta:
            ids = torch.tensor(adapter.token_indices[name], device=weight.device)
            weight = weight.index_copy(0, ids, adapter.trainable_tokens_delta[name].to(weight.dtype))
    return weight


def forget_untrained(model: PreTrainedModel) -> None:
    """Every token of the model has been learned by now."""
    model.config.__dict__.pop(UNTRAINED, None)
