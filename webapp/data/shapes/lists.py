"""Several replies to one prompt, with ranks or scores.

{prompt, replies, ranks} or {prompt, replies, scores}       the lowest rank or the highest score is best; equals tie
{prompt, answers: [{answer, rank}]}                         Nectar (berkeley-nest/Nectar)
{instruction, completions: [{response, overall_score}]}     UltraFeedback (openbmb/UltraFeedback), scores 1 to 10
{instruction, output: [better, worse]}                      LLaMA-Factory's older rankings, the best first
{prompt, response, score}                                   one scored reply a row; rows of one prompt stand together
{prompt, response, helpfulness, correctness, coherence}     HelpSteer and HelpSteer2, helpfulness 0 to 4
{prompt, completion, label}, {messages, label}              a judgment: TRL's KTO and the like; kto_tag: LLaMA-Factory
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from webapp.data.shapes.checks import judgment, ranking
from webapp.data.shapes.model import Item, Messages, Part, ScoredReply
from webapp.data.shapes.prompts import CHATS, after_marker, has_prompt, prompt_of, with_system
from webapp.data.shapes.row import Row, Skip, annotator_field, binary, is_verdict, label_fields, number, split_field
from webapp.data.shapes.turns import parse_chat, reply_of

REPLIES: Final = ("replies", "responses", "answers", "completions", "generations", "outputs", "candidates")
RANKS: Final = ("ranks", "rank", "rankings")
SCORE_LISTS: Final = ("scores", "ratings", "rewards", "overall_scores", "rating", "score")
RANK_KEYS: Final = ("rank",)
SCORE_KEYS: Final = ("overall_score", "score", "rating", "reward", "pm_score", "votes", "upvotes")
MAX_ULTRAFEEDBACK: Final = 10.0
REPLY: Final = ("completion", "response", "output", "answer", "reply", "generation")
VERDICTS: Final = (
    "label",
    "kto_tag",
    "good",
    "is_good",
    "thumb",
    "thumbs",
    "liked",
    "vote",
    "feedback",
    "is_preferred",
    "preferred",
    "accepted",
    "is_safe",
    "safe",
    "is_correct",
    "approved",
    "passed",
)
THUMBS: Final = frozenset({"thumb", "thumbs", "vote", "feedback"})  # 0 is no word here  # fmt: skip
SCORES: Final = ("score", "rating", "reward", "helpfulness", "overall_score", "overall", "quality")
HELPSTEER: Final = ("helpfulness", "correctness", "coherence")


# ----------------------------------------------------------------------------------------------------- several replies


def replies_column(row: Row) -> str | None:
    return next(
        (
            name
            for name in REPLIES
            if isinstance(row.record.get(name), list)
            and len(row.record[name]) > 1
            and (has_order(row) or all(isinstance(reply, dict) and order_key(reply) for reply in row.record[name]))
        ),
        None,
    )


def has_order(row: Row) -> bool:
    return any(isinstance(row.record.get(name), list) for name in (*RANKS, *SCORE_LISTS))


def order_key(reply: dict[str, Any]) -> str | None:
    return next((key for key in (*RANK_KEYS, *SCORE_KEYS) if reply.get(key) is not None), None)


def is_ranked(row: Row) -> bool:
    return has_prompt(row) and replies_column(row) is not None


def read_ranked(row: Row) -> Iterator[Item]:
    column = replies_column(row) or ""
    replies = row.get(column)
    ranks = ranks_beside(row, len(replies)) if has_order(row) else ranks_within(replies, row, column)
    texts = [reply_of(reply, row, column) if reply is not None else None for reply in replies]
    fields = label_fields(row)
    scores = [number(reply.get("overall_score")) if isinstance(reply, dict) else None for reply in replies]
    if column == "completions" and (strength := ultrafeedback_strength(scores)) is not None:
        fields["strength"] = strength
    yield ranking(prompt_of(row), texts, ranks, **fields)


def ranks_beside(row: Row, count: int) -> list[float]:
    """Ranks from a list of ranks, or of scores, beside the replies."""
    name = next(name for name in (*RANKS, *SCORE_LISTS) if row.is_list(name))
    values = [number(value) for value in row.get(name)]
    if len(values) != count or any(value is None for value in values):
        raise Skip(f"replies and {name} are not lists of the same length, with numbers in the second")
    return [value if name in RANKS else -value for value in values if value is not None]


def ranks_within(replies: list[Any], row: Row, column: str) -> list[float]:
    """Ranks from a rank or a score that each reply carries."""
    key = order_key(replies[0]) or ""
    values = [number(reply.get(key)) for reply in replies]
    if any(value is None for value in values):
        raise Skip(f"not every reply has a number as its {key}")
    texts = ("text", "content", "value", "response", "answer", "completion", "output", "role", "from")
    for reply in replies:
        row.nested.update(
            f"{column}[].{name}" for name, value in reply.items() if name != key and name not in texts and value
        )
    return [value if key in RANK_KEYS else -value for value in values if value is not None]


def ultrafeedback_strength(scores: list[float | None]) -> float | None:
    """A third of the distance between the two best of UltraFeedback's scores, which go from 1 to 10."""
    ordered = sorted((score for score in scores if score is not None), reverse=True)
    if len(ordered) < 2 or len(ordered) != len(scores) or not 1 <= ordered[-1] <= ordered[0] <= MAX_ULTRAFEEDBACK:
        return None
    lower = next((score for score in ordered if score < ordered[0]), None)
    return None if lower is None else (ordered[0] - lower) / 3


def is_output_list(row: Row) -> bool:
    return row.is_list("output") and len(row.peek("output")) > 1 and has_prompt(row)


def read_output_list(row: Row) -> Iterator[Item]:
    replies = [reply_of(reply, row, "output") for reply in row.get("output")]
    yield ranking(prompt_of(row), replies, [float(index) for index in range(len(replies))], **label_fields(row))


def is_unranked(row: Row) -> bool:
    """Several replies, and nothing that is known to say which is better. The answers of a question are right ones, if
    nothing judges them."""
    if not has_prompt(row):
        return False
    names = [name for name in REPLIES if row.has(name)]
    return any(name != "answers" or are_judged(row.peek(name)) for name in names)


def are_judged(answers: Any) -> bool:
    listed = answers if isinstance(answers, list) else []
    return any(is_verdict(str(key)) for answer in listed if isinstance(answer, dict) for key in answer)


def read_unranked(row: Row) -> Iterator[Item]:
    name = next(name for name in REPLIES if row.has(name) and (name != "answers" or are_judged(row.peek(name))))
    replies = row.peek(name)
    if not isinstance(replies, list):
        raise Skip(f"“{name}” is not a list of replies")
    if len(replies) < 2:
        raise Skip(f"fewer than two replies in “{name}”")
    if row.is_list("labels"):
        raise Skip(f"“{name}” are steps of one reply with a label each, which are not read")
    if are_judged(replies):
        raise Skip(f"several replies in “{name}” with verdicts that are not known")
    column = next(
        (str(candidate) for candidate in row.record if is_verdict(str(candidate)) and row.has(candidate)), None
    )
    if column is not None:
        raise Skip(f"several replies, and “{column}” judges them, in a way that is not known")
    raise Skip("several replies without ranks or scores")


# ---------------------------------------------------------------------------------------------------- one judged reply


def reply_column(row: Row) -> str | None:
    return row.first([name for name in REPLY if isinstance(row.record.get(name), str | list | dict)])


def is_judged(row: Row) -> bool:
    return verdict_of(row) is not None and (reply_column(row) is not None or ends_with_assistant(row))


def verdict_of(row: Row) -> tuple[str, bool] | None:
    """The column that calls the reply good or bad, and which it is."""
    for name in VERDICTS:
        if name in row.record:
            value = row.record[name]
            if name in THUMBS and number(value) == 0:
                continue
            if (good := binary(value)) is not None:
                return name, good
    return None


def ends_with_assistant(row: Row) -> bool:
    return any(
        isinstance(turns := row.record.get(name), list) and bool(turns) and isinstance(turns[-1], dict)
        for name in CHATS
    )


def read_judged(row: Row) -> Iterator[Item]:
    verdict = verdict_of(row)
    if verdict is None:
        raise Skip("its label is neither good nor bad")
    column, good = verdict
    row.use(column)
    fields = label_fields(row)
    messages, reply = prompt_and_reply(row)
    yield judgment(messages, reply, good, **fields)


def prompt_and_reply(row: Row) -> tuple[Messages, str]:
    column = reply_column(row)
    if column is not None:
        reply = reply_of(row.get(column), row, column)
        return prompt_of(row), after_marker(reply, row)
    name = next(name for name in CHATS if row.is_list(name))
    messages = with_system(parse_chat(row.get(name), row, name), row).messages
    if not messages or messages[-1]["role"] != "assistant":
        raise Skip("a judged chat does not end with the assistant's turn")
    return messages[:-1], messages[-1]["content"]


def is_scored(row: Row) -> bool:
    return (
        any(number(row.record.get(name)) is not None for name in SCORES)
        and (reply_column(row) is not None or ends_with_assistant(row))
        and has_prompt(row)
    )


def read_scored(row: Row) -> Iterator[Part]:
    helpsteer = all(number(row.peek(name)) is not None for name in HELPSTEER)
    column = next(name for name in SCORES if number(row.peek(name)) is not None)
    score = number(row.get("helpfulness" if helpsteer else column))
    messages, reply = prompt_and_reply(row)
    yield ScoredReply(
        messages,
        reply,
        score or 0.0,
        "helpfulness" if helpsteer else column,
        scale=4.0 if helpsteer else 0.0,
        **annotator_field(row),
        **split_field(row),
    )
