"""A causal language model as every stage that learns computes with it: hidden states of packed sequences, then logits
at the positions that count and nowhere else.

T is the length of a packed row, M the number of positions that are read, H the width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.contract import InputError
from training.contract.memory import positions_at_once
from training.data.packing import Packed, TextBatch, moved, pack
from training.distributed.fsdp import Root, shard
from training.kernels.logprobs import TokenLogprobs, free_for_logits, logprobs_from_hidden
from training.models.compute import Compute
from training.models.loading import CausalModel, unwrap
from training.models.trunk import Trunk, autocast_of, computes_the_same

T = TypeVar("T")


class Forward:
    """The model taken apart into trunk and head. An architecture whose logits are not its last hidden states times its
    output embeddings, with the scales and soft caps that are known here, is refused with InputError.

    computes_in: the dtype of a model that a library made compute in another one than its weights have.
    """

    def __init__(self, model: CausalModel, computes_in: torch.dtype = torch.float32) -> None:
        self.model = model
        self.base = unwrap(model)
        self.trunk = Trunk(self.base.base_model)
        config = self.base.config.get_text_config()
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)  # Gemma
        self.scale = scale_of(config)
        self.root: Root | None = None  # of a frozen model that is sharded
        self._hold_against_whole_model(computes_in)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.base.device
        return device

    def shard(self, compute: Compute) -> None:
        """Leave each process a part of the model, which does not learn. `with_weights` then computes with it."""
        self.root = shard({"model": self.model}, compute.device, compute.dtype, learns=False)

    def with_weights(self, work: Callable[[], T]) -> T:
        """What `work` computes with the model. A collective of a sharded one."""
        return work() if self.root is None else self.root(work)

    @property
    def packs(self) -> bool:
        return self.trunk.packs

    def hidden(self, packed: Packed) -> Tensor:
        """(T, H)"""
        return self.trunk.hidden(packed)

    def logits(self, hidden: Tensor) -> Tensor:
        """(M, H) -> (M, V)"""
        logits: Tensor = self.base.get_output_embeddings()(hidden)
        if self.scale != 1:
            logits = logits * self.scale
        if self.cap:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits

    def read(
        self,
        hidden: Tensor,
        targets: Tensor,
        *,
        temperature: float = 1.0,
        entropy: bool = False,
        entropy_gradient: bool = False,
    ) -> TokenLogprobs:
        """Natural log-probabilities of targets (M,) and entropies from hidden states (M, H), a bounded number of logits
        at a time. Entropies cost passes over the logits: they are zeros unless wanted."""

        head = self.base.get_output_embeddings()
        if not self.cap and type(head) is nn.Linear:
            return logprobs_from_hidden(
                hidden, head.weight, head.bias, targets, self.scale / temperature,
                entropy=entropy, entropy_gradient=entropy_gradient,
            )  # fmt: skip
        logprobs = self._read_in_parts(hidden, targets, temperature, entropy)
        return logprobs if entropy_gradient else TokenLogprobs(logprobs.logprobs, logprobs.entropy.detach())

    def _read_in_parts(self, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool) -> TokenLogprobs:
        """For heads that are more than a matrix."""

        def part(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            logprobs, log_p = chosen_logprobs(self.logits(hidden), targets, temperature)
            return logprobs, entropy_of(log_p) if entropy else torch.zeros_like(logprobs)

        vocabulary = self.base.config.get_text_config().vocab_size
        step = positions_at_once(vocabulary, self.device.type, free_for_logits(self.device))
        chunks = []
        for states, target_ids in zip(hidden.split(step), targets.split(step), strict=True):
            if torch.is_grad_enabled() and len(targets) > step:
                chunks.append(checkpoint(part, states, target_ids, use_reentrant=False))
            else:
                chunks.append(part(states, target_ids))
        return TokenLogprobs(torch.cat([chunk[0] for chunk in chunks]), torch.cat([chunk[1] for chunk in chunks]))

    def losses(self, batch: TextBatch) -> Tensor:
        """Negative log-likelihoods (N,) of the batch's targets, nats."""
        return -self.read(self.hidden(batch.packed)[batch.states], batch.targets).logprobs

    @torch.no_grad()
    def _hold_against_whole_model(self, computes_in: torch.dtype) -> None:
        ids = torch.arange(4, device=self.device)
        with autocast_of(self.base.get_input_embeddings().weight):
            streamed = self.logits(self.hidden(moved(pack([ids.tolist()], 0), self.device))[:4])
            whole = self.model(input_ids=ids[None], use_cache=False).logits[0]
        if not computes_the_same(streamed, whole.to(computes_in)):
            raise InputError(
                f"the logits of {type(self.base).__name__} are not its last hidden states times its output embeddings, "
                "so it cannot be trained here; take another model",
                code="model_unsupported",
            )


def scale_of(config: Any) -> float:
    """By what the product of hidden states and output embeddings is multiplied."""
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    return float(scale * (getattr(config, "lm_head_multiplier", None) or 1.0))  # Falcon-H1


def chosen_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log p(target) and log p of every token: (M, V), (M,) -> (M,), (M, V), in float32."""
    log_p = (logits.float() / temperature if temperature != 1 else logits.float()).log_softmax(dim=-1)
    return -functional.nll_loss(log_p, targets, reduction="none"), log_p


def entropy_of(log_p: Tensor) -> Tensor:
    """(M, V) -> (M,), nats."""
    return -torch.einsum("mv,mv->m", log_p.exp(), log_p)
