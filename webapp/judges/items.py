"""What a job judges: replies of an evaluate or sample run, a sample of ranked pairs, or what somebody typed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from annotations.agreement import comparisons
from annotations.models import Prompt, Ranking, Response
from annotations.selectors import usable_rankings
from training.contract import SampleRow
from webapp.accounts.models import Project
from webapp.errors import Conflict
from webapp.judges.models import Judge, JudgeJob
from webapp.judges.protocol import PAIRWISE, Question, Setup, Turns
from webapp.runs.models import Run
from webapp.runs.outputs import read_sample_rows
from webapp.runs.selectors import SAMPLES

BASELINE: Final = "baseline.jsonl"
MAX_SAMPLE: Final = 2000  # ranked pairs in one job


@dataclass(frozen=True)
class Item:
    """A prompt with one or two replies. `words`: for a ranked pair what each person said, 1 where the first reply is
    better, -1 where the second is, 0 for a tie."""

    messages: Turns
    replies: tuple[str, ...]
    prompt_id: int | None = None
    words: dict[str, int] = field(default_factory=dict)

    def questions(self, setup: Setup) -> list[Question]:
        """A pair in both orders, or each reply by itself. Equal replies need no judge to be a tie."""
        if setup.mode == PAIRWISE:
            if len(set(self.replies)) == 1:
                return []
            question = Question(self.messages, self.replies, self.prompt_id)
            return [question, question.swapped()]
        return [Question(self.messages, (reply,), self.prompt_id) for reply in self.replies]


class Items(NamedTuple):
    """`left_out`: how many prompts were left out, by reason."""

    items: list[Item]
    left_out: dict[str, int]


def items_of(job: JudgeJob) -> Items:
    """The same ones in the same order every time, as long as nothing is withdrawn. Raises Conflict if its run has no
    replies."""
    if job.kind == JudgeJob.Kind.TRY:
        data = job.data
        return Items([Item(data["messages"], tuple(data["replies"]), data.get("prompt_id"), data.get("words", {}))], {})
    if job.kind == JudgeJob.Kind.AGREEMENT:
        return permitted(job.judge, list(sampled_items(job.data["pairs"])))
    if job.run is None:
        raise Conflict("The run whose replies this judges is gone.")
    files = [SAMPLES] if job.kind == JudgeJob.Kind.SCORE else [SAMPLES, BASELINE]
    replies = [{row.prompt_id: row for row in rows_of(job.run, name)} for name in files]
    items = [
        Item(
            [turn.model_dump() for turn in row.messages],
            tuple(by_prompt[prompt_id].reply for by_prompt in replies),
            row_number(prompt_id),
        )
        for prompt_id, row in replies[0].items()
        if all(prompt_id in by_prompt for by_prompt in replies)
    ]
    return permitted(job.judge, items)


def rows_of(run: Run, name: str) -> Iterator[SampleRow]:
    address = run.outputs.get(name)
    if not address:
        raise Conflict(f"{run.name} has no {name}. Choose an evaluate run that compared two models.")
    yield from read_sample_rows(address)


def row_number(row_id: str) -> int | None:
    """The id of the prompt that a row such as `prompt:12` was made of."""
    kind, _, number = row_id.partition(":")
    return int(number) if kind == "prompt" and number.isdecimal() and len(number) < 19 else None


def permitted(judge: Judge, items: list[Item]) -> Items:
    """Without prompts that were withdrawn, and for an outside judge without those that people wrote in chats, unless
    its settings say that it may read them."""
    ids = [item.prompt_id for item in items if item.prompt_id is not None]
    withdrawn: set[int] = set()
    chats: set[int] = set()
    for start in range(0, len(ids), 1000):
        prompts = Prompt.objects.filter(pk__in=ids[start : start + 1000])
        withdrawn |= set(prompts.exclude(withdrawn_at=None).values_list("pk", flat=True))
        if judge.is_outside and not judge.reads_chats:
            chats |= set(prompts.filter(source=Prompt.Source.CHAT).values_list("pk", flat=True))
    chats -= withdrawn
    permitted_items = [item for item in items if item.prompt_id not in withdrawn | chats]
    reasons = {"withdrawn": withdrawn, "from chats": chats}
    counts = {reason: sum(item.prompt_id in gone for item in items) for reason, gone in reasons.items()}
    return Items(permitted_items, {reason: count for reason, count in counts.items() if count})


# ------------------------------------------------------------------------------------------------- ranked pairs


def sample_pairs(project: Project, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Ranked pairs with what people said about them, one of each prompt before there is a second one of any."""
    words: dict[tuple[int, int, int], dict[str, int]] = defaultdict(dict)
    rankings = usable_rankings(project).only("prompt_id", "author_id", "annotator", "groups")
    for ranking in rankings.select_related(None):
        for (a, b), word in comparisons(ranking.groups).items():
            words[ranking.prompt_id, a, b][who_ranked(ranking)] = word
    by_prompt: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for pair in words:
        by_prompt[pair[0]].append(pair)
    draw = random.Random(seed)
    shuffled = [draw.sample(pairs, len(pairs)) for _, pairs in sorted(by_prompt.items())]
    draw.shuffle(shuffled)
    rounds = (
        pairs[turn] for turn in range(max(map(len, shuffled), default=0)) for pairs in shuffled if turn < len(pairs)
    )
    chosen = [pair for pair, _ in zip(rounds, range(min(size, MAX_SAMPLE)), strict=False)]
    return [{"prompt": prompt, "a": a, "b": b, "words": words[prompt, a, b]} for prompt, a, b in chosen]


def who_ranked(ranking: Ranking) -> str:
    return f"{ranking.author_id}:{ranking.annotator}" if ranking.annotator else str(ranking.author_id)


def sampled_items(pairs: Iterable[dict[str, Any]]) -> Iterator[Item]:
    """The pairs with their texts; those whose texts are gone are left out."""
    pairs = list(pairs)
    for start in range(0, len(pairs), 500):
        batch = pairs[start : start + 500]
        prompts = Prompt.objects.in_bulk([pair["prompt"] for pair in batch])
        replies = Response.objects.in_bulk([pair[name] for pair in batch for name in ("a", "b")])
        for pair in batch:
            prompt, a, b = prompts.get(pair["prompt"]), replies.get(pair["a"]), replies.get(pair["b"])
            if prompt and a and b and prompt.erased_at is None:
                yield Item(prompt.messages, (a.text, b.text), prompt.pk, pair["words"])
