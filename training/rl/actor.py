"""The policy with its value head, as PPO computes with it: one trunk, and logits only where reply tokens are predicted.

M is the number of reply tokens in a micro-batch, H the hidden size.
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
from training.distributed.collectives import local_shard, passes_behind
from training.distributed.launch import world_size
from training.kernels.logprobs import TokenLogprobs
from training.models.forward import Forward
from training.models.loading import CausalModel
from training.models.trunk import Trunk
from training.rl.critic import Critic


class MicroBatch(NamedTuple):
    """Some replies of a rollout with their prompts. The flat tensors hold the reply tokens, row after row."""

    packed: Packed  # prompts and replies
    states: Tensor  # (M,) positions in the packed row whose hidden states predict the reply tokens
    targets: Tensor  # (M,) the reply tokens
    flat_index: Tensor  # (M,) their positions in the rollout's N * T tokens
    hidden: Tensor | None = None  # (M, H) the policy's hidden states at `states`, if they were kept


def pack_replies(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    pad: int,
    device: torch.device,
) -> MicroBatch:
    """These rows of a rollout as one micro-batch."""
    longest = max(map(len, replies))
    packed = pack([[*prompts[row], *replies[row]] for row in rows], pad)
    states, targets, flat_index = [], [], []
    for row, start in zip(rows, packed.starts.tolist(), strict=True):
        reply = replies[row]
        before_reply = start + len(prompts[row]) - 1
        states.append(torch.arange(before_reply, before_reply + len(reply)))
        targets.append(torch.tensor(reply, dtype=torch.long))
        flat_index.append(torch.arange(row * longest, row * longest + len(reply)))
    return MicroBatch(moved(packed, device), *(torch.cat(x).to(device) for x in (states, targets, flat_index)))


def rollout_batches(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    budget: int,
    pad: int,
    device: torch.device,
    pads: bool = False,
) -> list[MicroBatch]:
    """This process's share of these rows of a rollout, in micro-batches of at most `budget` tokens each; `pads`: some
    model computes them padded."""
    lengths = [len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)]
    sizes = Sizes.of(lengths, pads=pads)
    return [
        pack_replies(prompts, replies, batch.tolist(), pad=pad, device=device)
        for batch in local_shard(micro_batches(np.asarray(rows), sizes, budget, world_size()))
    ]


def spare_batches(
    forward: Forward,
    count: int,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    pad: int,
    device: torch.device,
) -> list[MicroBatch]:
    """One row for each pass that another process makes beyond this one's `count` through a sharded model; nothing for a
    whole one. Ask before the first pass."""
    behind = passes_behind(count) if forward.root is not None else 0
    return [pack_replies(prompts, replies, [0], pad=pad, device=device) for _ in range(behind)]


def scatter(table: Tensor, batch: MicroBatch, flat: Tensor) -> None:
    """Write a micro-batch's flat values (M,) into a rollout's table (N, T) on the CPU."""
    table.view(-1)[batch.flat_index.cpu()] = flat.detach().float().cpu()


@dataclass
class Actor:
    """The policy model with its value head. Dropout is off, so the same tokens always have the same
    log-probabilities."""

    model: CausalModel
    value_head: nn.Linear  # H -> 1
    temperature: float
    entropy_gradient: bool = False
    critic: Critic | None = None  # in place of the value head

    def __post_init__(self) -> None:
        self.model.eval()
        self.forward = Forward(self.model)

    @property
    def trunks(self) -> list[Trunk]:
        """All that computes on replies."""
        return [self.forward.trunk, *([self.critic.states] if self.critic else [])]

    def tokens(self, batch: MicroBatch) -> int:
        """How many tokens a pass over the policy computes, padding included."""
        return self.forward.trunk.tokens(batch.packed)

    def hidden(self, batch: MicroBatch) -> Tensor:
        """The trunk's last hidden state before each reply token, (M, H)."""
        return self.forward.hidden(batch.packed)[batch.states]

    def read(self, hidden: Tensor, targets: Tensor, *, entropy: bool = False) -> TokenLogprobs:
        """Log-probabilities and entropies (M,) from hidden states (M, H)."""
        return self.forward.read(
            hidden, targets, temperature=self.temperature, entropy=entropy, entropy_gradient=self.entropy_gradient
        )

    @property
    def value_module(self) -> nn.Module:
        """What learns to tell values."""
        return self.critic or self.value_head

    def estimate(self, batch: MicroBatch, hidden: Tensor) -> Tensor:
        """The values (M,) of a micro-batch whose hidden states (M, H) are given."""
        return self.values(hidden) if self.critic is None else self.critic(batch.packed, batch.states)

    def values(self, hidden: Tensor) -> Tensor:
        """(M, H) -> (M,)"""
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.value_head(hidden.float()).squeeze(-1)
            return values
