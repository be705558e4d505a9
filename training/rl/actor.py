"""The policy with its value head, as PPO computes with it: one trunk, logits on the replies' positions only.

M is the number of reply tokens in a micro-batch, H the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from training.data.batching import Sizes, micro_batches
from training.data.packing import Packed, moved, pack
from training.distributed.collectives import mine
from training.distributed.launch import world
from training.models.forward import Forward, TokenLogprobs
from training.models.loading import CausalModel


class MicroBatch(NamedTuple):
    """Some replies of a rollout with their prompts. The flat tensors run over the replies' tokens, row by row."""

    packed: Packed  # prompt and reply
    states: Tensor  # (M,) where in the packed row each reply token is predicted
    targets: Tensor  # (M,) the reply tokens
    places: Tensor  # (M,) where in the flattened (N * T) tokens of the rollout they are

    @property
    def tokens(self) -> int:
        """How many are computed on, padding counted."""
        return self.packed.ids.numel()


class Evaluated(NamedTuple):
    logprobs: Tensor  # (M,)
    entropy: Tensor  # (M,), with a gradient only if asked for; zeros where not wanted
    values: Tensor  # (M,)


def rollout_batches(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    budget: int,
    pad: int,
    device: torch.device,
    divided: bool = True,
) -> list[MicroBatch]:
    """The given rows of a rollout in forward passes of at most `budget` tokens; unless they are not to be divided, this
    process's share of them."""
    sizes = Sizes.of([len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)])
    longest = max(map(len, replies))
    found = []
    pieces = micro_batches(np.asarray(rows), sizes, budget, world() if divided else 1)
    for piece in mine(pieces) if divided else pieces:
        packed = pack([[*prompts[row], *replies[row]] for row in piece], pad)
        states, targets, places = [], [], []
        for row, start in zip(piece.tolist(), packed.starts.tolist(), strict=True):
            first, reply = start + len(prompts[row]) - 1, replies[row]
            states.append(torch.arange(first, first + len(reply)))
            targets.append(torch.tensor(reply, dtype=torch.long))
            places.append(torch.arange(row * longest, row * longest + len(reply)))
        flat = (torch.cat(parts).to(device) for parts in (states, targets, places))
        found.append(MicroBatch(moved(packed, device), *flat))
    return found


@dataclass
class Actor:
    """The policy model with its value head. Dropout is off: the same tokens have the same log-probabilities."""

    model: CausalModel
    value_head: nn.Linear  # H -> 1
    temperature: float
    entropy_gradient: bool = False

    def __post_init__(self) -> None:
        self.model.eval()
        self.forward = Forward(self.model)

    def hidden(self, batch: MicroBatch) -> Tensor:
        """The trunk's last hidden state before each reply token, (M, H)."""
        return self.forward.hidden(batch.packed)[batch.states]

    def read(self, hidden: Tensor, targets: Tensor, *, entropy: bool = False) -> TokenLogprobs:
        """Log-probabilities and entropies (M,) from hidden states (M, H)."""
        return self.forward.read(
            hidden, targets, temperature=self.temperature, entropy=entropy, entropy_gradient=self.entropy_gradient
        )

    def values(self, hidden: Tensor) -> Tensor:
        """(M, H) -> (M,)"""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.value_head(hidden.float()).squeeze(-1)

    def evaluate(self, batch: MicroBatch) -> Evaluated:
        hidden = self.hidden(batch)
        return Evaluated(*self.read(hidden, batch.targets, entropy=True), self.values(hidden))
