"""The ready rewards that check a reply by itself: exact match, numbers, regular expressions, JSON schema, length and
language. Each is a function of (term, batch) -> scores. They run in a process of their own (reward_process.py)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from training.contract import InputError
from training.contract.rewards import (
    ExactReward,
    JSONSchemaReward,
    LanguageReward,
    LengthReward,
    NumericReward,
    RegexReward,
    RewardTermBase,
)
from training.preferences.numeric_answers import answer_of, same_number
from training.preferences.reward_functions import RewardBatch

MATCH_SECONDS: Final = 1.0  # for one reply's regular expression or schema, which may take time without end
FENCED: Final = re.compile(r"```[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)
EDGES: Final = re.compile(r"^\W+|\W+$")


def fenced_code(text: str) -> str:
    """The last fenced code block of a reply; the whole reply if it has none."""
    blocks = FENCED.findall(text)
    return blocks[-1] if blocks else text


# ----------------------------------------------------------------------------------------------- texts and numbers


def exact(term: ExactReward, batch: RewardBatch) -> list[float | None]:
    return [
        None if reference is None else float(is_exact(term, reply, reference))
        for reply, reference in zip(batch.replies, batch.references, strict=True)
    ]


def is_exact(term: ExactReward, reply: str, reference: Any) -> bool:
    references = reference if isinstance(reference, list) else [reference]
    expected = [normalized(as_text(value), term.normalize) for value in references]
    if term.compare == "last_line":
        reply = next((line for line in reversed(reply.split("\n")) if line.strip()), "")
    normalized_reply = normalized(reply, term.normalize)
    if term.compare == "contains":
        return any(
            text and f" {text} " in f" {normalized_reply} " if term.normalize else text in normalized_reply
            for text in expected
        )
    return normalized_reply in expected


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def normalized(text: str, normalize: bool) -> str:
    """Lower case, single spaces, and words without punctuation at their ends, as SQuAD's evaluation does it, but for
    articles, which other languages do not have."""
    if not normalize:
        return text.strip()
    return " ".join(filter(None, (EDGES.sub("", word) or word for word in text.casefold().split())))


def numeric(term: NumericReward, batch: RewardBatch) -> list[float | None]:
    scores: list[float | None] = []
    for reply, reference in zip(batch.replies, batch.references, strict=True):
        number = reference_number(reference)
        answer = answer_of(reply, term.answer)
        scores.append(None if number is None else float(same_number(answer, number, term.tolerance)))
    return scores


def reference_number(reference: Any) -> Fraction | None:
    """The number of a reference: a JSON number, or a text that ends with it, as GSM8K's answers do."""
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        return None
    return answer_of(reference if isinstance(reference, str) else json.dumps(reference))


def length(term: LengthReward, batch: RewardBatch) -> list[float | None]:
    return [length_score(term, len(r.split()) if term.unit == "words" else len(r)) for r in batch.replies]


def length_score(term: LengthReward, count: int) -> float:
    if count < term.minimum:
        return count / term.minimum
    return max(0.0, 1 - (count - term.maximum) / term.maximum) if count > term.maximum else 1.0


def language(term: LanguageReward, batch: RewardBatch) -> list[float | None]:
    from training.data import cleaning  # noqa: PLC0415 - takes a second, and the other rewards do not need it

    if term.language not in cleaning.languages():
        raise InputError(
            f"rewards.language: {term.language} is not recognized; the languages are {', '.join(cleaning.languages())}",
            code="config_invalid",
        )
    return [float(cleaning.language(reply) == term.language) for reply in batch.replies]


# --------------------------------------------------------------------------------------------- patterns and schemas


class TooSlow(Exception):
    """One reply took longer than its share of the time."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TooSlow inside the block once the time is over. For the main thread."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def regex(term: RegexReward, batch: RewardBatch) -> list[float | None]:
    """A reply on which the expression takes longer than MATCH_SECONDS does not match."""
    scores: list[float | None] = []
    for reply, reference in zip(batch.replies, batch.references, strict=True):
        pattern = term.pattern or reference
        scores.append(float(matches(term, pattern, reply)) if isinstance(pattern, str) and pattern else None)
    return scores


def matches(term: RegexReward, pattern: str, reply: str) -> bool:
    try:
        compiled = re.compile(pattern, re.IGNORECASE if term.ignore_case else 0)
    except re.error as error:
        raise ValueError(f"the reference {pattern[:60]!r} is no regular expression: {error}") from error
    try:
        with time_limit(MATCH_SECONDS):
            return bool(compiled.fullmatch(reply.strip()) if term.whole else compiled.search(reply))
    except TooSlow:
        return False


def json_schema(term: JSONSchemaReward, batch: RewardBatch) -> list[float | None]:
    schema = json.loads(term.json_schema) if term.json_schema.strip() else None
    return [
        float(fits_schema(reply, schema if schema is not None else data.get("schema", {})))
        for reply, data in zip(batch.replies, batch.data, strict=True)
    ]


def fits_schema(reply: str, schema: Any) -> bool:
    validator = validator_of(json.dumps(schema, sort_keys=True))
    try:
        document = json.loads(fenced_code(reply))
    except (ValueError, RecursionError):
        return False
    try:
        with time_limit(MATCH_SECONDS):
            return bool(validator.is_valid(document))
    except (TooSlow, RecursionError):
        return False


@lru_cache(maxsize=256)
def validator_of(schema: str) -> Any:
    """Checks documents. Raises InputError if this is no schema."""
    from jsonschema import Draft202012Validator, SchemaError, validators  # noqa: PLC0415 - the others do without
    from referencing import Registry  # noqa: PLC0415

    parsed = json.loads(schema)
    kind = validators.validator_for(parsed, default=Draft202012Validator)
    try:
        kind.check_schema(parsed)
    except SchemaError as error:
        raise InputError(f"rewards.json_schema: {error.message}", code="config_invalid") from error
    return kind(parsed, registry=Registry())  # an empty one: a $ref to an address is never fetched


VERIFIERS: Final[dict[type[RewardTermBase], Callable[[Any, RewardBatch], Sequence[float | None]]]] = {
    ExactReward: exact,
    NumericReward: numeric,
    RegexReward: regex,
    JSONSchemaReward: json_schema,
    LengthReward: length,
    LanguageReward: language,
}
