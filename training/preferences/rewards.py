"""Everything that scores replies: a reward model or an ensemble of them, and terms that are computed. Their weighted
sum is the reward.

To add another source, write a RewardSource and let `source_of` make it from its term (training/contract/rewards.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from training.contract import PromptRow, TrainingError, parts_of_shaping
from training.contract.rewards import FunctionReward, NumericReward, RewardTermBase, is_usable, labels_of
from training.preferences.ensemble import Ensemble
from training.preferences.reward_functions import RewardBatch
from training.preferences.reward_process import RewardFailed, RewardProcess
from training.preferences.verifiers import reference_number

MODEL_LABEL: Final = "model"
Warner = Callable[[str], None]


class RewardSource(Protocol):
    """Scores batches. `start` raises InputError if it cannot be used; `score` raises RewardFailed if it fails, which
    the term's `on_failure` deals with. None: it has nothing to say of this reply."""

    def start(self) -> None: ...

    def score(self, batch: RewardBatch) -> Sequence[float | None]: ...


def source_of(term: RewardTermBase) -> RewardSource:
    """What computes the term."""
    return RewardProcess(term)


def can_check(term: RewardTermBase, row: PromptRow) -> bool:
    """Whether a prompt has what the term needs."""
    if isinstance(term, NumericReward) and reference_number(row.reference) is None:
        return False
    return is_usable(term, row.reference, row.data)


class ScoredReply(NamedTuple):
    score: float | None
    """The weighted sum; None if no reward has anything to say of it."""
    components: dict[str, float | None]
    """Each reward's own score, before its weight, by its label."""
    failed: tuple[str, ...] = ()
    """The labels of those that failed, whose score is their failure_score."""

    def named(self) -> dict[str, float]:
        """The components if they are several, for the detail of a sample."""
        scores = {name: value for name, value in self.components.items() if value is not None}
        return scores if len(self.components) > 1 else {}


class Rewards:
    """The sum of a reward model's score and of computed terms, each times its weight."""

    def __init__(
        self,
        terms: Sequence[RewardTermBase],
        ensemble: Ensemble | None = None,
        warn: Warner | None = None,
        noun: str = "reward",
    ) -> None:
        self.terms, self.ensemble, self.warn, self.noun = terms, ensemble, warn, noun
        self.labels = labels_of(list(terms))
        self.sources = [source_of(term) for term in terms]
        self.verifying = [label for label, term in zip(self.labels, terms, strict=True) if term.verifies]
        self.warned: set[str] = set()

    @property
    def names(self) -> list[str]:
        """The labels of all rewards, in the order of a reply's components."""
        return [MODEL_LABEL] * (self.ensemble is not None) + self.labels

    def start(self) -> None:
        """Find out whether all of them can be used. Raises InputError or TrainingError."""
        for label, source in zip(self.labels, self.sources, strict=True):
            try:
                source.start()
            except RewardFailed as failure:
                raise TrainingError(f"{self.noun} {label}: {failure}", code="reward_failed") from failure

    def can_score(self, row: PromptRow) -> bool:
        """Whether at least one of the rewards has what it needs of the prompt."""
        return self.ensemble is not None or any(can_check(term, row) for term in self.terms)

    def __call__(self, rows: Sequence[PromptRow], replies: Sequence[str]) -> list[ScoredReply]:
        """Scores of N replies to N prompts. Raises TrainingError if a reward fails whose `on_failure` is stop."""
        components: list[dict[str, float | None]] = [{} for _ in replies]
        totals: list[float | None] = [None] * len(replies)
        failed: list[tuple[str, ...]] = [()] * len(replies)
        if self.ensemble is not None:
            for i, score in enumerate(self.ensemble([row.messages for row in rows], replies)):
                components[i][MODEL_LABEL] = totals[i] = score
        batch = RewardBatch.of(rows, replies)
        for term, label, source in zip(self.terms, self.labels, self.sources, strict=True):
            usable = [i for i, row in enumerate(rows) if can_check(term, row)]
            scores = dict(zip(usable, self._scores(term, label, source, batch.part(usable)), strict=True))
            for i in range(len(replies)):
                is_failure = scores.get(i) == FAILED
                value = term.failure_score if is_failure else scores.get(i)
                failed[i] += (label,) * is_failure
                components[i][label] = value if value is None else float(value)
                if value is not None:
                    totals[i] = (totals[i] or 0.0) + term.weight * float(value)
        return [ScoredReply(*scored) for scored in zip(totals, components, failed, strict=True)]

    def _scores(self, term: RewardTermBase, label: str, source: RewardSource, batch: RewardBatch) -> list[Any]:
        """The term's scores of a batch, FAILED for each reply if it fails and may."""
        if not len(batch):
            return []
        try:
            return list(source.score(batch))
        except RewardFailed as failure:
            if term.on_failure == "stop":
                raise TrainingError(
                    f"{self.noun} {label}: {failure}. Start the run again once this is mended; it goes on from its "
                    "last checkpoint",
                    code="reward_failed",
                ) from failure
            if self.warn is not None and str(failure) not in self.warned:
                self.warned.add(str(failure))
                self.warn(f"{self.noun} {label}: {failure}; {len(batch)} replies get the score {term.failure_score:g}")
            return [FAILED] * len(batch)


FAILED: Final = "failed"


def function_terms(parts: Sequence[tuple[str, float]]) -> list[FunctionReward]:
    """Registered functions with their weights as terms: what a `shaping` setting says."""
    return [FunctionReward(name=name, weight=weight) for name, weight in parts]


def find_shaping(text: str, warn: Warner | None = None) -> Rewards | None:
    """The registered functions of a `shaping` setting, None if it names none. Raises InputError if one is not
    registered."""
    terms = function_terms(parts_of_shaping(text))
    return Rewards(terms, warn=warn, noun="shaping") if terms else None


def shaping_of(shaping: Rewards | None, rows: Sequence[PromptRow], replies: Sequence[str]) -> list[float]:
    """For each of N replies the functions' weighted sum, zeros if there is none."""
    return [reply.score or 0.0 for reply in shaping(rows, replies)] if shaping else [0.0] * len(replies)
