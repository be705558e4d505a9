"""What is wrong with a value, for whoever sent it: which field it is, what is expected there, and what came instead.

The words are made from the models themselves, so that a new field or limit has its sentence at once. Where a validator
takes more shapes than the annotation says, the field names them: `Field(json_schema_extra=expects("a text or …"))`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

MAX_SHOWN: Final = 40  # characters of a text that is quoted
HUGE: Final = 2**53  # a limit of the machine rather than of the thing is not worth a word
PLAIN: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "an object"}
SEVERAL: Final = {"true or false": "values that are true or false", "text": "texts"}


class Problem(NamedTuple):
    place: str
    """The field as a dotted path; "" for the whole."""
    message: str
    """What to give there and what came, without a full stop."""
    type: str
    """pydantic's name for the kind of error."""

    @property
    def sentence(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


def expects(words: str) -> dict[str, Any]:
    """For `json_schema_extra` of a field: what is expected there, as in "give …"."""
    return {"expected": words}


def problems(details: Iterable[Mapping[str, Any]], kind: type[BaseModel]) -> list[Problem]:
    """What is wrong with data that should have been a `kind`, from `ValidationError.errors()`; one for each place."""
    by_place: dict[str, Problem] = {}
    for item in details:
        where, words = place_of(item["loc"], kind)
        by_place.setdefault(where, Problem(where, problem_message(item, words), item["type"]))
    return list(by_place.values())


def problem_message(item: Mapping[str, Any], words: str) -> str:
    if item["type"] == "value_error":  # of a validator of ours
        return str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return "is not a known setting"
    if item["type"] == "json_invalid":
        line, column = re.findall(r"\d+", item["ctx"]["error"])[-2:]
        return f"this is not valid JSON ({f'line {line}, ' if line != '1' else ''}column {column})"
    if item["type"] == "missing":
        return f"this is missing; give {words}"
    return give(words, item["input"])


def give(words: str, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        words = words.replace("a number", "a finite number", 1)
    if isinstance(value, int) and abs(value) > HUGE and "number" in words:
        return f"{json_text(value)} is too large a number; give {words}"
    if isinstance(value, list) and value and words.startswith("a list"):
        return f"give {words}, not of {len(value):,}"
    return f"give {words}, not {json_text(value)}"


def give_without(words: str, item: Any) -> str:
    """The same of a list that has a wrong item."""
    return f"give {words}, not a list with {json_text(item)} in it"


def json_text(value: Any) -> str:
    """A value in the terms of JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        quoted = f'the text "{value}"' if value else "an empty text"
        return quoted if len(value) <= MAX_SHOWN else f"text of {len(value):,} characters"
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    return str(value)[:MAX_SHOWN]


def place_of(location: Iterable[int | str], kind: type[BaseModel]) -> tuple[str, str]:
    """The dotted path of a field, and what is expected there. Tags that pydantic adds for the members of a union are no
    part of the path."""
    path: list[str] = []
    here: Any = kind
    words = object_words(kind)
    for key in location:
        inner = step(here, key)
        if inner is None:
            continue
        path.append(str(key))
        here, words = inner
    return ".".join(path), words


def step(annotation: Any, key: int | str) -> tuple[Any, str] | None:
    """What lies at `key` inside a value of this type: its type and words; none if nothing does."""
    for option in options(annotation):
        origin, arguments = get_origin(option) or option, get_args(option)
        if isinstance(option, type) and issubclass(option, BaseModel):
            if isinstance(key, str) and (field := option.model_fields.get(key)) is not None:
                return field.annotation, field_words(field)
            if isinstance(key, str) and option.model_config.get("extra") == "forbid" and option is annotation:
                return Any, "nothing"
        elif origin is list and isinstance(key, int):
            return arguments[0], words_of(arguments[0])
        elif origin is dict and key != "[key]":
            return arguments[1], words_of(arguments[1])
    return None


def options(annotation: Any) -> list[Any]:
    """The types that a value may have, without None and without annotations."""
    if get_origin(annotation) is Annotated:
        return options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for member in get_args(annotation) if member is not NoneType for inner in options(member)]
    return [annotation]


def field_words(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, Mapping) and "expected" in extra:
        return str(extra["expected"])
    return words_of(field.annotation, field.metadata)


def words_of(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What to give for a type, as in "give …"."""
    if get_origin(annotation) is Annotated:
        inner, *arguments = get_args(annotation)
        flat = [
            constraint
            for item in arguments
            for constraint in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        return words_of(inner, [*flat, *metadata])
    if get_origin(annotation) in (Union, UnionType):
        members = [words_of(member, metadata) for member in get_args(annotation) if member is not NoneType]
        return " or ".join(dict.fromkeys(members))
    if get_origin(annotation) is Literal:
        return any_of(get_args(annotation))
    limits = {type(item): item for item in metadata}
    low, high = getattr(limits.get(MinLen), "min_length", 0), getattr(limits.get(MaxLen), "max_length", None)
    if annotation is str:
        return text_words(low, high)
    if annotation in (int, float):
        numbers = {name: getattr(limits.get(kind), name, None) for kind, name in BOUNDS.items()}
        return number_words(PLAIN[annotation], **numbers)
    if get_origin(annotation) is list:
        return list_words(words_of(get_args(annotation)[0]), low, high)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return object_words(annotation)
    return PLAIN.get(get_origin(annotation) or annotation, "another value")


BOUNDS: Final[dict[Any, str]] = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}


def number_words(
    noun: str, *, ge: float | None = None, gt: float | None = None, le: float | None = None, lt: float | None = None
) -> str:
    """A number between its limits: `gt` and `lt` are themselves outside."""
    low = "" if ge is None or ge < -HUGE else f"{ge:,}"
    high = "" if le is None or le > HUGE else f"{le:,}"
    if low and high:
        return f"{noun} from {low} to {high}"
    lower = f"of {low} or more" if low else "" if gt is None else f"above {gt:,}"
    upper = f"at most {high}" if high else "" if lt is None or lt > HUGE else f"below {lt:,}"
    return " ".join([noun, " and ".join(filter(None, [lower, upper]))]).strip()


def text_words(low: int, high: int | None) -> str:
    if high is None:
        return "text that is not empty" if low else "text"
    return f"text of {low} to {high:,} characters" if low else f"text of at most {high:,} characters"


def list_words(item: str, low: int = 0, high: int | None = None) -> str:
    several = plural(item)
    if low and high:
        return f"a list of {low} to {high:,} {several}"
    return f"a list of {f'{low} or more ' if low else f'at most {high:,} ' if high else ''}{several}"


def plural(words: str) -> str:
    """ "a whole number from 1 to 7" as "whole numbers from 1 to 7"."""
    if words in SEVERAL:
        return SEVERAL[words]
    for singular, several in (("a whole number", "whole numbers"), ("a number", "numbers"), ("an object", "objects"),
                         ("text of", "texts of"), ("text that is", "texts that are"), ("a list of", "lists of")):  # fmt: skip
        if words.startswith(singular):
            return several + words.removeprefix(singular)
    return f"values, each {words}"


def object_words(kind: type[BaseModel]) -> str:
    required = [name for name, field in kind.model_fields.items() if field.is_required()]
    return f"an object with {joined(required, 'and')}" if required else "an object"


def any_of(values: Iterable[Any]) -> str:
    return joined(
        [f'"{value}"' if isinstance(value, str) else json_text(value) for value in values if value != ""], "or"
    )


def joined(words: Sequence[str], conjunction: str) -> str:
    return f" {conjunction} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
