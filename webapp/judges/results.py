"""What a job's answers come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotations.agreement import clustered_interval, ordinal_alpha, pair_agreement, ranking_agreement
from webapp.accounts.models import Project
from webapp.judges.items import Item, Items
from webapp.judges.models import JudgeAnswer, JudgeJob
from webapp.judges.protocol import PAIRWISE, Setup
from webapp.judges.statistics import Compared, Share, head_to_head, longer_preferred, mean_interval, wilson

Answers = Mapping[str, JudgeAnswer]
WORD_OF = {"first": 1, "second": -1, "tie": 0}


@dataclass(frozen=True)
class Judged:
    """An item as it was judged. `word`: 1 for the first reply, -1 for the second, 0 for a tie. `orders`: what was said
    in each of the two orders, as a word on the replies of the item. Equal replies have no orders."""

    item: Item
    word: int
    orders: tuple[int, int] | None = None
    scores: tuple[float, ...] = ()

    @property
    def flipped(self) -> bool:
        return self.orders is not None and self.orders[0] != self.orders[1]


def judged(item: Item, setup: Setup, answers: Answers) -> Judged | None:
    """None while there is no answer that can be used to each of its questions."""
    questions = item.questions(setup)
    if not questions:
        return Judged(item, 0)
    item_answers = [answers.get(question.key(setup)) for question in questions]
    usable = [answer for answer in item_answers if answer is not None and answer.usable]
    if len(usable) < len(questions):
        return None
    if setup.mode == PAIRWISE:
        orders = (WORD_OF[usable[0].verdict], -WORD_OF[usable[1].verdict])
        return Judged(item, orders[0] if orders[0] == orders[1] else 0, orders)
    scores = tuple(answer.score or 0.0 for answer in usable)
    word = (scores[0] > scores[-1]) - (scores[0] < scores[-1])
    return Judged(item, word, None, scores)


def is_unusable(item: Item, setup: Setup, answers: Answers) -> bool:
    """Whether it was asked about and an answer could not be used."""
    item_answers = [answers.get(question.key(setup)) for question in item.questions(setup)]
    return any(answer is not None and not answer.usable for answer in item_answers)


def summarize(job: JudgeJob, setup: Setup, all_items: Items, answers: Answers) -> dict[str, Any]:
    """The result of a job as far as it came, for its page and the API."""
    rows = [row for item in all_items.items if (row := judged(item, setup, answers)) is not None]
    result: dict[str, Any] = {
        "items": len(all_items.items),
        "judged": len(rows),
        "unusable": sum(is_unusable(item, setup, answers) for item in all_items.items),
        "left_out": all_items.left_out,
    }
    if not rows or job.kind == JudgeJob.Kind.TRY:
        return result
    if rows[0].scores:
        names = ("policy", "baseline")[: len(rows[0].scores)]
        result["scores"] = {
            name: mean_interval([row.scores[at] for row in rows]).as_json() for at, name in enumerate(names)
        }
    if job.kind != JudgeJob.Kind.SCORE:
        result |= bias(rows)
    if job.kind == JudgeJob.Kind.COMPARE:
        result |= head_to_head([compared(row.item, row.word) for row in rows])
    if job.kind == JudgeJob.Kind.AGREEMENT:
        result.pop("scores", None)  # their sides are by id, and mean nothing
        result |= with_people(rows, job.project)
    return result


def compared(item: Item, word: int) -> Compared:
    return Compared((word + 1) / 2, *(len(reply) for reply in item.replies))


def bias(rows: Sequence[Judged]) -> dict[str, Any]:
    """How often the order decides, which place is preferred then, and how often the longer reply is."""
    ordered = [row.orders for row in rows if row.orders is not None]
    flips = [orders for orders in ordered if orders[0] != orders[1]]
    # In the first order the item's first reply is shown first; in the other one it is shown second.
    decided = [(first, -second) for first, second in ordered]
    shown_first = [word for words in decided for word in words if word]
    return {
        "flips": wilson(len(flips), len(ordered)).as_json() if ordered else None,
        "first_place": wilson(sum(w > 0 for w in shown_first), len(shown_first)).as_json() if shown_first else None,
        "longer": longer_preferred([compared(row.item, row.word) for row in rows]),
    }


def majority(item: Item) -> int:
    """What most people said of a pair; 0 where they are split."""
    total = sum(item.words.values())
    return (total > 0) - (total < 0)


def with_people(rows: Sequence[Judged], project: Project) -> dict[str, Any]:
    """The judge beside people, and people beside each other over all the project's shared rankings."""
    decided = [(row.word, majority(row.item)) for row in rows if majority(row.item)]
    right = sum(pair_agreement(word, people) if word == 0 else float(word == people) for word, people in decided)
    by_prompt: dict[int | None, list[float]] = {}
    for row in rows:
        same = [pair_agreement(row.word, word) for word in row.item.words.values()]
        by_prompt.setdefault(row.item.prompt_id, []).extend(same)
    share = clustered_interval([sum(same) for same in by_prompt.values()], [len(same) for same in by_prompt.values()])
    people = ranking_agreement(project)
    return {
        "accuracy": wilson(right, len(decided)).as_json() if decided else None,
        "kappa": cohens_kappa([(row.word, majority(row.item)) for row in rows]),
        "alpha": ordinal_alpha([{0: row.word, 1: majority(row.item)} for row in rows]),
        "agreement": Share(*share, sum(map(len, by_prompt.values()))).as_json(),
        "people": {
            "agreement": Share(people.value, people.low, people.high, people.comparisons).as_json()
            if people.value is not None
            else None,
            "alpha": people.alpha,
            "longer": longer_preferred([compared(row.item, majority(row.item)) for row in rows]),
        },
    }


def cohens_kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960); None if chance alone explains all of it."""
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    values = {value for pair in pairs for value in pair}
    chance = sum(sum(a == v for a, _ in pairs) * sum(b == v for _, b in pairs) for v in values) / n**2
    return None if chance == 1 else (observed - chance) / (1 - chance)
