"""Detects a policy that has diverged, so that the run stops with a reason instead of saving a ruined model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PATIENCE: Final = 5  # consecutive steps
MAX_TOKEN_KL: Final = 3.0  # nats per token from the reference
MIN_ENTROPY: Final = 0.005  # nats per token
MIN_ENDED: Final = 0.05  # share of replies
NEAR_CAP: Final = 0.9  # mean length as a share of the maximum
COLLAPSED: Final = 0.1  # mean length as a share of the initial one


@dataclass
class DivergenceMonitor:
    """Compares the figures of the last PATIENCE steps with those of the first ones and with fixed limits. The KL counts
    only if it is penalized."""

    kl_penalized: bool
    cap: int  # tokens at which a reply is cut
    initial: list[dict[str, float]] = field(default_factory=list)  # figures of the first PATIENCE steps
    recent: list[dict[str, float]] = field(default_factory=list)  # figures of the last PATIENCE steps

    def update(self, figures: Mapping[str, float]) -> str:
        """Add a step's token_kl and entropy (nats per token), ended (share of replies) and length (mean tokens).
        Returns why the run should stop, or an empty string."""
        if len(self.initial) < PATIENCE:
            self.initial.append(dict(figures))
        self.recent = [*self.recent, dict(figures)][-PATIENCE:]
        if len(self.recent) < PATIENCE:
            return ""
        return self._kl_verdict() or self._length_verdict() or self._entropy_verdict()

    def _kl_verdict(self) -> str:
        if self.kl_penalized and self._recent_min("token_kl") > MAX_TOKEN_KL:
            return (
                f"the policy ran away from the reference (KL above {MAX_TOKEN_KL:g} nats per token for {PATIENCE} "
                "steps); raise the weight of the KL penalty or lower learning_rate"
            )
        return ""

    def _length_verdict(self) -> str:
        initial = self._initial_mean("length")
        if self._initial_mean("ended") > 0.5 and self._recent_max("ended") < MIN_ENDED:
            return (
                f"the replies ran away in length (fewer than {MIN_ENDED:.0%} ended for {PATIENCE} steps); "
                "penalize replies that are long or do not end"
            )
        if initial < self.cap / 2 and self._recent_min("length") > NEAR_CAP * self.cap:
            return (
                f"the replies ran away in length (from {initial:.0f} tokens to within a tenth of the {self.cap} at "
                f"which they are cut, for {PATIENCE} steps); penalize length, or raise the weight of the KL penalty"
            )
        if self._recent_max("length") < COLLAPSED * initial:
            return (
                f"the replies collapsed in length (from {initial:.0f} tokens to fewer than {COLLAPSED * initial:.1f} "
                f"for {PATIENCE} steps); check how the reward scores short replies"
            )
        return ""

    def _entropy_verdict(self) -> str:
        if self._initial_mean("entropy") > 10 * MIN_ENTROPY and self._recent_max("entropy") < MIN_ENTROPY:
            return (
                f"the policy's entropy collapsed (below {MIN_ENTROPY:g} nats per token for {PATIENCE} steps): it gives "
                "each prompt only one reply and cannot learn more; if this happened early, raise the weight of the KL "
                "penalty"
            )
        return ""

    def _recent_min(self, name: str) -> float:
        return min(figures[name] for figures in self.recent)

    def _recent_max(self, name: str) -> float:
        return max(figures[name] for figures in self.recent)

    def _initial_mean(self, name: str) -> float:
        return sum(figures[name] for figures in self.initial) / len(self.initial)

    def state(self) -> dict[str, Any]:
        return {"first": self.initial, "last": self.recent}

    def load(self, state: dict[str, Any]) -> None:
        self.initial, self.recent = state["first"], state["last"]
