"""Notices when a policy has gone wrong, so that a run stops by itself with a sentence and not with a ruined model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PATIENCE: Final = 5  # steps in a row
MOST_TOKEN_KL: Final = 3.0  # nats a token from the reference
LEAST_ENTROPY: Final = 0.005  # nats a token
LEAST_ENDED: Final = 0.05  # share of replies
AT_CAP: Final = 0.9  # mean length as a share of the most there may be
COLLAPSED: Final = 0.1  # mean length as a share of what it was at first


@dataclass
class Watch:
    """Keeps the last steps' figures and those of the first ones. What is not kept in check is not watched: the KL
    where its penalty is off."""

    kl_matters: bool
    cap: int  # tokens, at which a reply is cut
    first: list[dict[str, float]] = field(default_factory=list)
    last: list[dict[str, float]] = field(default_factory=list)

    def see(self, figures: Mapping[str, float]) -> str:
        """Take in a step's token_kl, entropy, ended and length (nats a token, nats a token, share of replies, tokens on
        average); returns what has gone wrong, or nothing."""
        if len(self.first) < PATIENCE:
            self.first.append(dict(figures))
        self.last = [*self.last, dict(figures)][-PATIENCE:]
        if len(self.last) < PATIENCE:
            return ""
        return self._verdict()

    def _verdict(self) -> str:
        if self.kl_matters and self._least("token_kl") > MOST_TOKEN_KL:
            return (
                f"the policy ran away from the reference (KL above {MOST_TOKEN_KL:g} nats a token for {PATIENCE} "
                "steps); raise the weight of the KL penalty or lower learning_rate"
            )
        if self._at_first("ended") > 0.5 and self._most("ended") < LEAST_ENDED:
            return (
                f"the replies ran away in length (fewer than {LEAST_ENDED:.0%} ended for {PATIENCE} steps); "
                "penalise replies that are long or do not end"
            )
        if verdict := self._length_verdict():
            return verdict
        if self._at_first("entropy") > 10 * LEAST_ENTROPY and self._most("entropy") < LEAST_ENTROPY:
            return (
                f"the policy's entropy collapsed (below {LEAST_ENTROPY:g} nats a token for {PATIENCE} steps): it "
                "gives each prompt one reply only and cannot learn more; raise the weight of the KL penalty "
                "if that is early"
            )
        return ""

    def _length_verdict(self) -> str:
        first = self._at_first("length")
        if first < self.cap / 2 and self._least("length") > AT_CAP * self.cap:
            return (
                f"the replies ran away in length (from {first:.0f} tokens to within a tenth of the {self.cap} at which "
                f"they are cut, for {PATIENCE} steps); penalise length, or raise the weight of the KL penalty"
            )
        if self._most("length") < COLLAPSED * first:
            return (
                f"the replies collapsed in length (from {first:.0f} tokens to fewer than {COLLAPSED * first:.1f} for "
                f"{PATIENCE} steps); look at what the reward gives to short replies"
            )
        return ""

    def _least(self, name: str) -> float:
        return min(figures[name] for figures in self.last)

    def _most(self, name: str) -> float:
        return max(figures[name] for figures in self.last)

    def _at_first(self, name: str) -> float:
        return sum(figures[name] for figures in self.first) / len(self.first)
