"""What the reward stage learns of the people who ranked, beside the scores: how reliable each one is, and how readily
they call a tie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from training.contract import RankingRow
from training.preferences.losses import Comparisons

PRIOR: Final = 0.5  # deviation of a reliability's logarithm


class TieRate(nn.Module):
    """Davidson's tie parameter, from the share of comparisons that are ties: at equal scores nu / (2 + nu)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        share = min(max(share, 0.01), 0.9)
        self.log_nu = nn.Parameter(torch.tensor(math.log(2 * share / (1 - share))))


class Annotators(nn.Module):
    """How reliable each person is beside the others: what multiplies the differences that they see, learned with the
    scores. A normal prior holds its logarithm near 0, so that whoever ranked little counts as the rest, and its mean
    over the rankings is 0, so that the scores keep their scale.

    Chen et al. 2013, "Pairwise ranking aggregation in a crowdsourced setting", learn a probability instead; a
    factor also fits people who are surer than most.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        """weights: of each person's rankings together, the first one nobody in particular."""
        super().__init__()
        person_weights = torch.tensor([float(weight) for weight in weights[1:]])
        self.free = nn.Parameter(torch.zeros(len(person_weights)))
        self.share: Tensor
        self.prior: Tensor
        self.register_buffer("share", person_weights / person_weights.sum(), persistent=False)
        self.register_buffer(
            "prior", torch.cat([torch.zeros(1), 1 / (2 * PRIOR**2 * person_weights)]), persistent=False
        )

    def logarithms(self) -> Tensor:
        """(annotators,), nobody in particular first and always 0."""
        return torch.cat([self.free.new_zeros(1), self.free - (self.free * self.share).sum()])

    def forward(self) -> Tensor:
        """(annotators,)"""
        return self.logarithms().exp()

    def penalty(self, comparisons: Comparisons) -> Tensor:
        """The prior's share that falls to these comparisons; over all rankings it is one prior a person, () in nats."""
        return (comparisons.weight * (self.prior * self.logarithms().square())[comparisons.annotator]).sum()


def annotators_of(rows: Sequence[RankingRow]) -> list[str]:
    """The names of the people who ranked; one's place, counted from 1, is the person's number."""
    return sorted({row.annotator for row in rows} - {""})


def weights_of(rows: Sequence[RankingRow]) -> list[float]:
    """Of the rankings of nobody in particular, and of each person."""
    return [sum(row.weight for row in rows if row.annotator == name) for name in ("", *annotators_of(rows))]
