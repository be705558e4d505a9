"""The policy with its value head, as PPO computes with it: one trunk, logits on the replies' positions only.

Sequences are padded on the right, so causal attention alone keeps padding out of everything that counts, and no mask is
needed. L is the length of a micro-batch's longest sequence, M the number of reply tokens in it, H the width, V the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.contract import TrainingError
from training.models import CausalModel, hidden_states, unwrap

CHUNK = 1 << 24  # logits held at once: 64 MiB in float32


class MicroBatch(NamedTuple):
    """Some replies of a rollout with their prompts. The flat tensors run over the replies' tokens, row by row."""

    input_ids: Tensor  # (B, L) prompt and reply, padded on the right
    states: Tensor  # (M,) where in the flattened (B * L) positions each reply token is predicted
    targets: Tensor  # (M,) the reply tokens
    places: Tensor  # (M,) where in the flattened (N * T) tokens of the rollout they are

    @property
    def padded_tokens(self) -> int:
        return self.input_ids.numel()


class Evaluated(NamedTuple):
    logprobs: Tensor  # (M,)
    entropy: Tensor  # (M,), with a gradient only if asked for; zeros where not wanted
    values: Tensor  # (M,)


def micro_batches(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    budget: int,
    pad: int,
    device: torch.device,
) -> list[MicroBatch]:
    """The given rows of a rollout in forward passes of at most `budget` tokens, padding counted."""
    lengths = [len(prompts[row]) + len(replies[row]) for row in rows]
    longest = max(map(len, replies))
    found = []
    for part in packed(lengths, budget):
        chosen = [rows[i] for i in part]
        width = max(lengths[i] for i in part)
        ids = torch.full((len(chosen), width), pad, dtype=torch.long)
        states, targets, places = [], [], []
        for b, row in enumerate(chosen):
            prompt, reply = prompts[row], replies[row]
            ids[b, : len(prompt) + len(reply)] = torch.tensor([*prompt, *reply])
            start = b * width + len(prompt) - 1
            states.append(torch.arange(start, start + len(reply)))
            targets.append(torch.tensor(reply, dtype=torch.long))
            places.append(torch.arange(row * longest, row * longest + len(reply)))
        batch = (ids, torch.cat(states), torch.cat(targets), torch.cat(places))
        found.append(MicroBatch(*(tensor.to(device) for tensor in batch)))
    return found


def packed(lengths: Sequence[int], budget: int, overhead: int = 256) -> list[list[int]]:
    """Indices grouped so that padded tokens plus `overhead` a group, which is what one more pass costs in tokens, are
    fewest, no group's padded size above `budget` (a longer sequence gets a group of its own)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    size = np.array([lengths[i] for i in order])
    best = np.full(len(order) + 1, np.inf)  # best[j]: cost of the j longest
    best[0] = 0
    opened = np.zeros(len(order) + 1, dtype=int)
    for first in range(len(order)):
        most = max(1, budget // max(int(size[first]), 1))
        last = min(len(order), first + most)
        ends = np.arange(first + 1, last + 1)
        cost = best[first] + overhead + size[first] * (ends - first)
        better = cost < best[ends]
        best[ends[better]], opened[ends[better]] = cost[better], first
    groups, end = [], len(order)
    while end:
        groups.append(order[opened[end] : end])
        end = opened[end]
    return groups[::-1]


def chosen_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log p(target) and log p of every token: (M, V), (M,) -> (M,), (M, V), in float32."""
    log_p = (logits.float() / temperature if temperature != 1 else logits.float()).log_softmax(dim=-1)
    return -functional.nll_loss(log_p, targets, reduction="none"), log_p


def entropy_of(log_p: Tensor) -> Tensor:
    """(M, V) -> (M,), nats."""
    return -torch.einsum("mv,mv->m", log_p.exp(), log_p)


@dataclass
class Actor:
    """The policy model with its value head. Dropout is off: the same tokens have the same log-probabilities."""

    model: CausalModel
    value_head: nn.Linear  # H -> 1
    temperature: float
    entropy_gradient: bool = False

    def __post_init__(self) -> None:
        self.model.eval()
        self._base = unwrap(self.model)
        self._hold_against_whole_model()

    @property
    def device(self) -> torch.device:
        return self.value_head.weight.device

    def hidden(self, batch: MicroBatch) -> Tensor:
        """The trunk's last hidden state before each reply token, (M, H)."""
        return hidden_states(self.model, batch.input_ids).flatten(0, 1)[batch.states]

    def read(self, hidden: Tensor, targets: Tensor, *, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (M,) from hidden states (M, H), a bounded number of logits at a time.
        Entropies cost two passes over the logits: they are zeros unless wanted."""
        step = max(1, CHUNK // self._base.config.get_text_config().vocab_size)
        if len(targets) <= step:
            return self._read(hidden, targets, entropy)
        parts = []
        for part, wanted in zip(hidden.split(step), targets.split(step), strict=True):
            if torch.is_grad_enabled():
                parts.append(checkpoint(self._read, part, wanted, entropy, use_reentrant=False))
            else:
                parts.append(self._read(part, wanted, entropy))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def values(self, hidden: Tensor) -> Tensor:
        """(M, H) -> (M,)"""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.value_head(hidden.float()).squeeze(-1)

    def evaluate(self, batch: MicroBatch) -> Evaluated:
        hidden = self.hidden(batch)
        logprobs, entropy = self.read(hidden, batch.targets, entropy=True)
        return Evaluated(logprobs, entropy, self.values(hidden))

    def _read(self, hidden: Tensor, targets: Tensor, entropy: bool) -> tuple[Tensor, Tensor]:
        logprobs, log_p = chosen_logprobs(self._logits(hidden), targets, self.temperature)
        if not entropy:
            return logprobs, torch.zeros_like(logprobs)
        return logprobs, entropy_of(log_p if self.entropy_gradient else log_p.detach())

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self._base.get_output_embeddings()(hidden)
        config = self._base.config.get_text_config()
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scale := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scale
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.no_grad()
    def _hold_against_whole_model(self) -> None:
        """Taking trunk and head apart must not change the logits; an architecture where it does is refused."""
        ids = torch.arange(4, device=self.device)[None]
        parts = self._logits(hidden_states(self.model, ids))
        whole = self.model(input_ids=ids, use_cache=False).logits
        if not torch.allclose(parts.float(), whole.float(), atol=1e-3, rtol=1e-3, equal_nan=True):
            raise TrainingError(
                f"ppo: the logits of {type(self._base).__name__} are not its last hidden states times its output "
                "embeddings, so PPO cannot train it",
                code="model_unsupported",
            )
