"""Two replies in columns of their own, and who won.

{prompt, response_1, response_2, preference_strength}       HelpSteer2-preference: -3 (first) to 3 (second)
{context, response1, response2, overall_preference}         HelpSteer3: the same; context is a list of messages
{history, human_ref_A, human_ref_B, labels, score_ratio}    SHP: labels 1 is A
{input, output_1, output_2, label}                          LLMBar: 1 or 2; {instruction, …} OffsetBias
{instruction, input, output_1, output_2, preference}        AlpacaFarm, AlpacaEval: 1 to 2, 1.5 and 0 a tie
{instruction, input, response1, response2, annotator1, …}   PandaLM: 0 tie, 1 or 2; one ranking a person
{prompt, response_0, response_1, better_response_id}        PKU-SafeRLHF: 0 or 1
{question: {full_text}, answer_0, answer_1, score_0, …}     WebGPT comparisons: scores from -1 to 1
{info, summaries: [{text}], choice, worker}                 summarize-from-feedback: 0 or 1
{info, summary: {text, axes: {overall}}, worker}            the same, axis: rows of one post stand together
{goal, sol1, sol2, label}                                   PIQA: 0 or 1
{prompt, response_a, response_b, winner}                    a winner by name: a, model_a, response_a, left, tie, …

Strength, 0 to 3: HelpSteer's preference as it is; WebGPT's score from 0 to 1 three times; SHP's score ratio as its
binary logarithm, 3 at most (twice the votes: 1, eight times: 3).

Over 300 lines: the formats differ in little and share how they are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from webapp.data.shapes.checks import judgment, ranking
from webapp.data.shapes.model import Item, Messages, Part, ScoredReply
from webapp.data.shapes.prompts import has_prompt, prompt_of
from webapp.data.shapes.row import Row, Skip, annotator_field, is_blank, is_verdict, label_fields, number, split_field
from webapp.data.shapes.turns import reply_of

FIRST, SECOND, TIE, BOTH_BAD = "first", "second", "tie", "both bad"
WINNERS: Final = {
    "a": FIRST, "model_a": FIRST, "left": FIRST, "b": SECOND, "model_b": SECOND, "right": SECOND,
    "tie": TIE, "draw": TIE, "equal": TIE, "same": TIE, "both": TIE, "both good": TIE, "both_good": TIE,
    "tie (bothbad)": BOTH_BAD, "tie (both bad)": BOTH_BAD,
    "bothbad": BOTH_BAD, "both bad": BOTH_BAD, "both_bad": BOTH_BAD, "neither": BOTH_BAD,
}  # fmt: skip
WINNER_COLUMNS: Final = (
    "winner",
    "preference",
    "preferred",
    "choice",
    "comparison",
    "better",
    "chosen_model",
    "vote",
    "label",
    "chosen",
    "selected",
    "best",
)
NAMED_PAIRS: Final = (
    ("response_a", "response_b"), ("response_1", "response_2"), ("response1", "response2"),
    ("response_0", "response_1"), ("response_A", "response_B"), ("responseA", "responseB"),
    ("answer_a", "answer_b"), ("answer1", "answer2"), ("answer_1", "answer_2"), ("answer_0", "answer_1"),
    ("completion_a", "completion_b"), ("completion_1", "completion_2"), ("output_a", "output_b"),
    ("output_1", "output_2"), ("output1", "output2"), ("reply_a", "reply_b"), ("text_a", "text_b"),
    ("summary1", "summary2"), ("summary_a", "summary_b"),
)  # fmt: skip


@dataclass(frozen=True)
class Vote:
    """Who won, by how much where the scale is known, and who said so."""

    winner: str
    strength: float | None = None
    annotator: str = ""


@dataclass(frozen=True)
class TwoReplies:
    """`prompt` names the column that asks, none: any. `marks` are columns that must sit beside the replies."""

    replies: tuple[str, str]
    marks: tuple[str, ...]
    votes: Callable[[Row], list[Vote]]
    prompt: tuple[str, ...] = ()

    def fits(self, row: Row) -> bool:
        return row.has(*self.replies, *self.marks, *self.prompt) and (bool(self.prompt) or has_prompt(row))

    def read(self, row: Row) -> Iterator[Item]:
        votes = self.votes(row)
        replies = [reply_of(row.get(name), row, name) for name in self.replies]
        yield from voted(prompt_of(row, *self.prompt), replies, votes, **label_fields(row))


def voted(messages: Messages, replies: list[str], votes: list[Vote], **fields: Any) -> Iterator[Item]:
    """One ranking a vote; "both bad" says nothing of their order, but that each of them is bad."""
    for vote in votes:
        label_fields = {**fields, **({"annotator": vote.annotator} if vote.annotator else {})}
        if vote.winner == BOTH_BAD:
            for reply in replies:
                yield judgment(messages, reply, False, **label_fields)
            continue
        ranks = {FIRST: [1.0, 2.0], SECOND: [2.0, 1.0], TIE: [1.0, 1.0]}[vote.winner]
        strength = {"strength": vote.strength} if vote.strength is not None and vote.winner != TIE else {}
        yield ranking(messages, replies, ranks, **label_fields, **strength)


def by_name(value: Any, names: tuple[str, str]) -> str | None:
    """The winner that a text names: the column of its reply, or one of the usual words."""
    if not isinstance(value, str):
        return None
    word = value.strip()
    if word not in names:
        word = word.lower().replace(" ", "_")
    if word in names:
        return (FIRST, SECOND)[names.index(word)]
    return WINNERS.get(value.strip().lower())


def by_number(column: str, first_number: int, *, tie: int | None = None) -> Callable[[Row], list[Vote]]:
    """A column that holds `first_number` where the first reply won, and the number after it where the second did."""

    def votes(row: Row) -> list[Vote]:
        winner = {first_number: FIRST, first_number + 1: SECOND, **({} if tie is None else {tie: TIE})}.get(
            whole_number(row.get(column))
        )
        if winner is None:
            raise Skip(f"“{column}” does not say which of the replies is better")
        return [Vote(winner)]

    return votes


def whole_number(value: Any) -> int:
    parsed = number(value)
    return int(parsed) if parsed is not None and parsed == int(parsed) else -99


def by_preference(column: str) -> Callable[[Row], list[Vote]]:
    """HelpSteer: negative where the first reply is better, 0 a tie, and how much as its size, 3 at most."""

    def votes(row: Row) -> list[Vote]:
        value = number(row.get(column))
        if value is None or abs(value) > 3:
            raise Skip(f"“{column}” is not a number from -3 to 3")
        return [Vote(TIE if value == 0 else FIRST if value < 0 else SECOND, abs(value))]

    return votes


def shp_votes(row: Row) -> list[Vote]:
    label = whole_number(row.get("labels"))
    if label not in (0, 1):
        raise Skip("“labels” is neither 1 nor 0")
    scores = [number(row.get(name)) for name in ("score_A", "score_B")]
    if (
        None not in scores
        and (scores[0] or 0) != (scores[1] or 0)
        and ((scores[0] or 0) > (scores[1] or 0)) != (label == 1)
    ):
        raise Skip("its scores contradict its label")
    ratio = number(row.get("score_ratio"))
    strength = min(3.0, math.log2(ratio)) if ratio is not None and ratio >= 1 else None
    return [Vote(FIRST if label else SECOND, strength)]


def alpaca_votes(row: Row) -> list[Vote]:
    value = number(row.get("preference"))
    if value is None or not (value == 0 or 1 <= value <= 2):
        raise Skip("“preference” is not a number from 1 (the first) to 2 (the second), or 0 for a tie")
    return [Vote(TIE if value in (0, 1.5) else FIRST if value < 1.5 else SECOND)]


def panda_votes(row: Row) -> list[Vote]:
    names = [name for name in row.record if str(name).startswith("annotator") and str(name)[9:].isdecimal()]
    votes = []
    for name in names:
        winner = {0: TIE, 1: FIRST, 2: SECOND}.get(whole_number(row.get(name)))
        if winner is None:
            raise Skip(f"“{name}” is none of 0, 1 and 2")
        votes.append(Vote(winner, annotator=name))
    return votes


def webgpt_votes(row: Row) -> list[Vote]:
    scores = [number(row.get(name)) for name in ("score_0", "score_1")]
    if scores[0] is None or scores[1] is None:
        raise Skip("score_0 and score_1 are not numbers")
    if scores[0] == scores[1]:
        return [Vote(TIE)]
    return [Vote(FIRST if scores[0] > scores[1] else SECOND, min(3.0, 1.5 * abs(scores[0] - scores[1])))]


def is_webgpt(row: Row) -> bool:
    return row.has("question", "answer_0", "answer_1", "score_0", "score_1")


def read_webgpt(row: Row) -> Iterator[Item]:
    question = row.get("question")
    text = question.get("full_text") if isinstance(question, dict) else question
    if not isinstance(text, str):
        raise Skip("“question” has no text")
    replies = [reply_of(row.get(name), row, name) for name in ("answer_0", "answer_1")]
    yield from voted([{"role": "user", "content": text}], replies, webgpt_votes(row), **label_fields(row))


def is_summaries(row: Row) -> bool:
    return row.is_dict("info") and row.is_list("summaries") and row.has("choice")


def read_summaries(row: Row) -> Iterator[Item]:
    votes = by_number("choice", 0)(row)
    summaries = row.get("summaries")
    if len(summaries) != 2:
        raise Skip("“summaries” are not two")
    replies = [reply_of(summary, row, "summaries") for summary in summaries]
    yield from voted(post_to_sum_up(row), replies, votes, **label_fields(row))


def is_rated_summary(row: Row) -> bool:
    summary = row.peek("summary")
    return row.is_dict("info") and isinstance(summary, dict) and isinstance(summary.get("axes"), dict)


def read_rated_summary(row: Row) -> Iterator[Part]:
    summary = row.get("summary")
    score = number(summary["axes"].get("overall"))
    if score is None:
        raise Skip("its summary has no overall score")
    reply = reply_of(summary, row, "summary")
    fields: dict[str, Any] = {**annotator_field(row), **split_field(row)}
    yield ScoredReply(post_to_sum_up(row), reply, score, "summary.axes.overall", **fields)


def post_to_sum_up(row: Row) -> Messages:
    """The post with its title, followed by TL;DR:, as it was put to the models (Stiennon et al. 2020, appendix)."""
    info = row.get("info")
    paragraphs = [
        f"{name}: {info[key]}"
        for name, key in (("SUBREDDIT", "subreddit"), ("TITLE", "title"), ("POST", "post"), ("ARTICLE", "article"))
        if isinstance(info.get(key), str) and info[key].strip()
    ]
    if not paragraphs:
        raise Skip("“info” has no text to sum up")
    return [{"role": "user", "content": "\n\n".join([*paragraphs, "TL;DR:"])}]


KNOWN: Final = (
    TwoReplies(
        ("response_1", "response_2"), ("preference_strength",), by_preference("preference_strength"), ("prompt",)
    ),
    TwoReplies(("response1", "response2"), ("overall_preference",), by_preference("overall_preference"), ("context",)),
    TwoReplies(("human_ref_A", "human_ref_B"), ("labels",), shp_votes, ("history",)),
    TwoReplies(("output_1", "output_2"), ("preference",), alpaca_votes, ("instruction",)),
    TwoReplies(("output_1", "output_2"), ("label",), by_number("label", 1), ("instruction",)),
    TwoReplies(("output_1", "output_2"), ("label",), by_number("label", 1), ("input",)),
    TwoReplies(("response1", "response2"), ("annotator1",), panda_votes, ("instruction",)),
    TwoReplies(("response_0", "response_1"), ("better_response_id",), by_number("better_response_id", 0), ("prompt",)),
    TwoReplies(("sol1", "sol2"), ("label",), by_number("label", 0), ("goal",)),
)


def named_pair(row: Row) -> tuple[str, str] | None:
    return next((names for names in NAMED_PAIRS if row.has(*names)), None)


def is_named_pair(row: Row) -> bool:
    return named_pair(row) is not None and has_prompt(row)


def by_scores(row: Row, names: tuple[str, str]) -> list[Vote]:
    """The vote of two numbers, one a reply, in columns that end as theirs do: score_a and score_b. None: no vote."""
    for column in ("score", "rating", "reward", "votes"):
        columns = [f"{column}_{name[-1]}" for name in names]
        scores = [number(row.peek(name)) for name in columns]
        if scores[0] is not None and scores[1] is not None:
            row.use(*columns)
            return [Vote(TIE if scores[0] == scores[1] else FIRST if scores[0] > scores[1] else SECOND)]
    return []


def read_named_pair(row: Row) -> Iterator[Item]:
    names = named_pair(row) or ("", "")
    third = names[1][:-1] + chr(ord(names[1][-1]) + 1)
    if row.has(third):
        raise Skip(f"more than two replies in columns of their own (“{third}”), which are not read")
    votes = by_scores(row, names)
    for column in WINNER_COLUMNS:
        winner = by_name(row.peek(column), names)
        if winner is not None:
            row.use(column)
            replies = [reply_of(row.get(name), row, name) for name in names]
            yield from voted(prompt_of(row), replies, [Vote(winner)], **label_fields(row))
            return
        if not is_blank(row.peek(column)):
            raise Skip(f"which of its two replies won is not known from its {column}")
    if votes:
        replies = [reply_of(row.get(name), row, name) for name in names]
        yield from voted(prompt_of(row), replies, votes, **label_fields(row))
        return
    judging = next((str(name) for name in row.record if is_verdict(str(name)) and row.has(name)), None)
    if judging is not None:
        raise Skip(f"two replies, and “{judging}” judges them, in a way that is not known")
    raise Skip("two replies without a word which of them is better")


__all__ = ["KNOWN", "TwoReplies", "Vote", "annotator_field", "by_name", "voted"]
