"""Several reward models that score as one: by their mean, less what they disagree by (Coste et al. 2023,
arXiv:2310.02743). K is the number of members, N that of replies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from training.contract import Turn
from training.models.compute import Compute
from training.preferences.reward_model import RewardModel, score
from training.run.reporting import ProgressCallback, ignore_progress

Scores = NDArray[np.float64]


class Ensemble:
    """A scorer made of reward models with their tokenizers; one alone gives its own scores.

    `last` (K, N) is what each member said about the replies that were scored last. A member's scores are free by a
    constant, which would count as disagreement: the mean that it gave to what it learned from is taken off.
    """

    def __init__(
        self,
        members: Sequence[tuple[RewardModel, PreTrainedTokenizerBase]],
        compute: Compute,
        pessimism: float = 0.0,
        on_progress: ProgressCallback = ignore_progress,
    ) -> None:
        self.members = members
        self.compute = compute
        self.pessimism = pessimism
        self.on_progress = on_progress
        self.last: Scores = np.zeros((len(members), 0))

    def __call__(self, prompts: Sequence[Sequence[Turn]], replies: Sequence[str]) -> list[float]:
        answered = [[*a, Turn(role="assistant", content=r)] for a, r in zip(prompts, replies, strict=True)]
        with self.compute.autocast():
            scores = np.array(
                [score(model, tokenizer, answered, on_progress=self.on_progress) for model, tokenizer in self.members]
            )
        self.last = centered(scores, [model.mean for model, _ in self.members])
        pessimistic: list[float] = combined(self.last, self.pessimism).tolist()
        return pessimistic


def centered(scores: Scores, means: Sequence[float]) -> Scores:
    """(K, N) less each member's mean; the scores of one member as they are."""
    return scores - np.array(means)[:, None] if len(scores) > 1 else scores


def combined(scores: Scores, pessimism: float) -> Scores:
    """(K, N) -> (N,): the mean less `pessimism` standard deviations. Coste et al.'s uncertainty-weighted optimization
    (section 4.2) takes the variance; the deviation has the scores' unit, so one weight fits all of them."""
    pessimistic: NDArray[np.float64] = scores.mean(axis=0) - pessimism * spreads(scores)
    return pessimistic


def spreads(scores: Scores) -> Scores:
    """(K, N) -> (N,): the members' standard deviation; zeros for one member."""
    return scores.std(axis=0, ddof=1) if len(scores) > 1 else np.zeros(scores.shape[1])


def disagreement(scorer: object) -> float | None:
    """The members' standard deviation, its mean over the replies scored last; None for one reward alone, or without
    replies."""
    ensemble = getattr(scorer, "ensemble", scorer)
    if not isinstance(ensemble, Ensemble) or len(ensemble.last) < 2 or not ensemble.last.size:
        return None
    return float(spreads(ensemble.last).mean())
