"""The sample assistant's world: made from a seed, the same every time.

`build(seed, sizes)` gives everything a round of the loop starts from. Nothing that is asked on the training side
(demonstrations, prompts to rank, prompts for PPO) is asked on the held-out side: the questions about facts are in other
words there, the lists, the harmful requests and the turns of small talk are others altogether.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import corpus
from .cases import Case, SplitOf, draw_cases, split_keys
from .corpus import DirtyDocument
from .crowd import WRITERS, written_reply


@dataclass(frozen=True)
class WorldSizes:
    """How much of each there is."""

    documents: int = 3600
    demonstrations: int = 3500
    rank_prompts: int = 6000
    ppo_prompts: int = 1200
    heldout_share: float = 0.15
    heldout_demonstrations: int = 160
    heldout_rank_prompts: int = 120
    evaluation_prompts: int = 300


@dataclass(frozen=True)
class WrittenDemonstration:
    """A demonstration: a case, the reply that was written, and who wrote it."""

    case: Case
    reply: str
    writer: str


@dataclass(frozen=True)
class World:
    """Everything the sample project begins with."""

    seed: int
    documents: list[DirtyDocument]
    demonstrations: list[WrittenDemonstration]
    heldout_demonstrations: list[WrittenDemonstration]
    rank: list[Case]
    heldout_rank: list[Case]
    ppo: list[Case]
    evaluation: list[Case]

    def cases(self) -> dict[str, Case]:
        """Every case by the text of its conversation."""
        demos = (demo.case for demo in (*self.demonstrations, *self.heldout_demonstrations))
        return {
            case.text: case for case in (*demos, *self.rank, *self.heldout_rank, *self.ppo, *self.evaluation)
        }  # fmt: skip


def build(seed: int, sizes: WorldSizes, split_of: SplitOf) -> World:
    """The world of `seed`. `split_of` says on which side (train or heldout) a conversation falls where it is kept."""
    train, heldout = split_keys(seed, sizes.heldout_share, split_of)
    used_texts: set[str] = set()

    def cases(side: str, name: str, count: int) -> list[Case]:
        keys, rng = (train if side == "train" else heldout), random.Random(f"{seed}:{name}")
        return draw_cases(keys, count, rng, used_texts=used_texts, fits=lambda case: split_of(case.messages) == side)

    evaluation = cases("heldout", "evaluation", sizes.evaluation_prompts)
    heldout_rank = cases("heldout", "heldout rank", sizes.heldout_rank_prompts)
    heldout_demos = cases("heldout", "heldout demonstrations", sizes.heldout_demonstrations)
    demos = cases("train", "demonstrations", sizes.demonstrations)
    return World(
        seed=seed,
        documents=corpus.make_documents(train, heldout, sizes.documents, random.Random(f"{seed}:corpus")),
        demonstrations=_write(demos, random.Random(f"{seed}:crowd")),
        heldout_demonstrations=_write(heldout_demos, random.Random(f"{seed}:heldout crowd")),
        rank=cases("train", "rank", sizes.rank_prompts),
        heldout_rank=heldout_rank,
        ppo=cases("train", "ppo", sizes.ppo_prompts),
        evaluation=evaluation,
    )


def _write(cases: list[Case], rng: random.Random) -> list[WrittenDemonstration]:
    writers = [rng.choice(WRITERS) for _ in cases]
    return [
        WrittenDemonstration(case, written_reply(case, writer, rng), writer.name)
        for case, writer in zip(cases, writers, strict=True)
    ]
