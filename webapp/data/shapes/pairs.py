"""Two replies of which one was chosen.

{chosen, rejected}                          HH transcripts, or whole conversations (TRL, implicit prompt)
{prompt, chosen, rejected, margin?}         TRL, explicit prompt: texts, or lists of messages
{prompt, chosen_response, rejected_response}                 the same by another name: response_j, response_k; better,
                                            worse; preferred_output, non_preferred_output; and more
{prompt, chosen: ["…"], rejected: ["…", "…"]}                RewardBench 2: each of the chosen over each of the rejected
{context, edited_response, original_response}                HelpSteer3's edits: the edit is the better one
{conversations, chosen, rejected}           LLaMA-Factory sharegpt ranking; {instruction, input, …} its alpaca ranking
{prompt, chosen, rejected, score_chosen, score_rejected}     UltraFeedback binarized, and others with scores
{input: {messages}, preferred_output, non_preferred_output}  OpenAI preference
Sources: huggingface.co/docs/trl/dataset_formats, LLaMA-Factory data/README.md, the OpenAI fine-tuning guide, the cards
of Anthropic/hh-rlhf and HuggingFaceH4/ultrafeedback_binarized.

Strength, 0 to 3, is read where its scale is known: `strength` and `margin` from 0 to 3 as they are; UltraFeedback's
scores from 1 to 10 as a third of their distance. Equal scores are a tie. Scores that contradict the order leave the row
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import ranking
from webapp.data.shapes.model import Item, Messages
from webapp.data.shapes.prompts import (
    ASKED,
    CHATS,
    after_marker,
    has_prompt,
    prompt_of,
    refuse_tools,
    system_turn,
)
from webapp.data.shapes.row import Row, Skip, binary, label_fields, number
from webapp.data.shapes.turns import is_transcript, parse_chat, parse_transcript, reply_of

SCORES: Final = (
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"), ("rating_chosen", "rating_rejected"), ("chosen_reward", "rejected_reward"),
    ("reward_chosen", "reward_rejected"), ("chosen_scores", "rejected_scores"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)  # fmt: skip
SCORE_COLUMNS: Final = frozenset(name for names in SCORES for name in names)
ULTRAFEEDBACK: Final = ("score_chosen", "score_rejected")
STRENGTHS: Final = ("strength", "margin", "preference_strength")
SIDES: Final = ("chosen", "rejected")
OTHER_SIDES: Final = (
    ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"),
    ("chosen_answer", "rejected_answer"), ("preferred_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"), ("preferred", "dispreferred"), ("preferred", "rejected"),
    ("accepted", "rejected"), ("better", "worse"), ("better_response", "worse_response"),
    ("winning_response", "losing_response"), ("response_j", "response_k"), ("good", "bad"),
    ("good_response", "bad_response"), ("good_edited_response", "bad_edited_response"),
    ("edited_response", "original_response"),
)  # fmt: skip
BEFORE: Final = ("context", "history")
DIFFERENT: Final = "chosen and rejected answer different prompts"


def is_pair(row: Row) -> bool:
    """Both columns are there, and one of them says something."""
    return all(side in row.record for side in SIDES) and any(row.has(side) for side in SIDES)


def other_sides(row: Row) -> tuple[str, str] | None:
    """Which columns hold the better and the worse reply, where they are called by none of the usual names."""
    return next((names for names in OTHER_SIDES if all(is_reply(row.record.get(name)) for name in names)), None)


def is_reply(value: Any) -> bool:
    return isinstance(value, list | dict) or (isinstance(value, str) and binary(value) is None)


def is_other_pair(row: Row) -> bool:
    return other_sides(row) is not None and (has_prompt(row) or has_prompt(row, BEFORE))


def read_other_pair(row: Row) -> Iterator[Item]:
    names = other_sides(row) or SIDES
    refuse_tools(row)
    replies = [reply_of(row.get(name), row, name) for name in names]
    messages = prompt_of(row) if has_prompt(row) else prompt_of(row, *BEFORE)
    ranks, strength = order_by_scores(row, names)
    fields: dict[str, Any] = {**label_fields(row), **({} if strength is None else {"strength": strength})}
    yield ranking(messages, [after_marker(reply, row) for reply in replies], ranks, **fields)


def texts_of(value: Any) -> list[str]:
    """A text, or a list of texts, as a list; empty if it is neither."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else []


def read_pair(row: Row) -> Iterator[Item]:
    if not row.has(*SIDES):
        raise Skip("fewer than two replies that are not empty")
    chosen, rejected = (texts_of(row.peek(side)) for side in SIDES)
    if chosen and rejected and any(row.is_list(side) for side in SIDES):
        row.use(*SIDES)
        ranks = [1.0] * len(chosen) + [2.0] * len(rejected)
        yield ranking(prompt_of(row), [*chosen, *rejected], ranks, **label_fields(row))
        return
    ranks, strength = order_by_scores(row)
    fields: dict[str, Any] = {**label_fields(row), **({} if strength is None else {"strength": strength})}
    refuse_tools(row)
    sides = [row.get(side) for side in SIDES]
    whole = [whole_conversation(side, row, name) for side, name in zip(sides, SIDES, strict=True)]
    if all(whole):
        messages, replies = shared_prompt(row, *[w or [] for w in whole])
    else:
        if not has_prompt(row):
            raise Skip("chosen and rejected are texts without a prompt")
        messages = prompt_of(row)
        replies = [after_marker(reply_of(value, row, name), row) for value, name in zip(sides, SIDES, strict=True)]
    yield ranking(messages, replies, ranks, **fields)


def whole_conversation(value: Any, row: Row, name: str) -> Messages | None:
    """A side as a conversation with its prompt; None if it is a reply only."""
    if isinstance(value, list):
        messages = parse_chat(value, row, name).messages
        return messages if any(m["role"] == "user" for m in messages) else None
    if not isinstance(value, str) or not value.startswith(("\n\nHuman:", "Human:")):
        return None
    if not has_prompt(row):
        return parse_transcript(value, is_prompt=False)
    prompt = row.peek(row.first((*ASKED, *CHATS)) or "")
    if isinstance(prompt, str) and is_transcript(prompt) and value.startswith(prompt.rstrip()):
        return parse_transcript(value, is_prompt=False)
    return None


def shared_prompt(row: Row, chosen: Messages, rejected: Messages) -> tuple[Messages, list[str]]:
    for name in ASKED:  # the same prompt stands in both; a system text beside them does not
        if row.is_text(name) and any(m["content"] == row.peek(name) for m in chosen):
            row.use(name)
    if not all(side and side[-1]["role"] == "assistant" for side in (chosen, rejected)):
        raise Skip("chosen or rejected does not end with the assistant's turn")
    if chosen[:-1] != rejected[:-1]:
        raise Skip(DIFFERENT)
    messages = [*system_turn(row, chosen), *chosen[:-1]]
    return messages, [chosen[-1]["content"], rejected[-1]["content"]]


def order_by_scores(row: Row, sides: tuple[str, str] = SIDES) -> tuple[list[float], float | None]:
    """Ranks of chosen and rejected, and how much better chosen is. Raises Skip if the scores say otherwise."""
    strength = given_strength(row)
    for names in SCORES if not SCORE_COLUMNS.isdisjoint(row.record) else ():
        chosen, rejected = (number(row.peek(name)) for name in names)
        if chosen is None or rejected is None:
            continue
        row.use(*names)
        if chosen < rejected:
            raise Skip(f"its scores contradict its order: {sides[1]} has the higher one")
        if chosen == rejected:
            return [1.0, 1.0], None
        if strength is None and names == ULTRAFEEDBACK and all(1 <= score <= 10 for score in (chosen, rejected)):
            strength = (chosen - rejected) / 3
        break
    return [1.0, 2.0], strength


def given_strength(row: Row) -> float | None:
    for name in STRENGTHS:
        value = number(row.peek(name))
        if value is None:
            continue
        if value < 0:
            raise Skip(f"its {name} contradicts its order: it is below 0")
        if value <= 3:
            row.use(name)
            return value
    return None


def is_openai_pair(row: Row) -> bool:
    return row.has("preferred_output", "non_preferred_output") and row.is_dict("input")


def read_openai_pair(row: Row) -> Iterator[Item]:
    input_row = Row(row.get("input"))
    refuse_tools(input_row)
    messages = parse_chat(input_row.get("messages"), row, "input.messages").messages
    row.nested.update(f"input.{name}" for name in input_row.unused() if name != "parallel_tool_calls")
    replies = [reply_of(row.get(name), row, name) for name in ("preferred_output", "non_preferred_output")]
    yield ranking(messages, replies, [1, 2], **label_fields(row))
