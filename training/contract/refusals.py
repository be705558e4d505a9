"""A request that cannot be answered, and JSON that cannot be read; the same at the model server and at the site."""

from __future__ import annotations

import json
import math
from typing import Any, Final

MAX_BODY_BYTES: Final = 10 << 20  # of any request to the site or the model server, but uploads of files
MAX_DEPTH: Final = 64  # lists and objects inside each other; a request for tools, which goes deepest, has ten


def too_large(limit: int = MAX_BODY_BYTES) -> str:
    return f"This is too large. At most {limit >> 20:,} MB can be sent here."


class RequestRefused(ValueError):
    """`message` says what is wrong and how to mend it, `param` which parameter it is, `code` is for programs."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str = "invalid_value"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code


KINDS: Final = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
}  # fmt: skip


def openai_error_body(message: str, *, status: int, param: str | None = None, code: str) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def parse_request(raw: bytes) -> Any:
    """What the body says. Raises RequestRefused if it is no JSON, nested too deeply, or holds what no tokenizer,
    database or client can carry on: NUL characters, half surrogate pairs, numbers that are not finite."""
    try:
        data = json.loads(raw)
    except RecursionError as error:
        raise RequestRefused(too_deep(), code="invalid_json") from error
    except ValueError as error:
        raise RequestRefused(f"The body is not valid JSON: {syntax_problem(error)}.", code="invalid_json") from error
    check_sound(data)
    return data


SYNTAX: Final = {  # how the messages of Python's parser begin, and what they mean to a person
    "Expecting value": "a value is missing",
    "Expecting property name": "a name in double quotes is missing",
    "Expecting ','": "a comma or a closing bracket is missing",
    "Expecting ':'": "a colon is missing",
    "Illegal trailing comma": "the comma before the end is one too many",
    "Extra data": "something follows the end",
    "Unterminated string": "the text that begins there has no end",
    "Invalid control character": "a line break or another control character is not escaped",
    "Invalid \\": "what follows the backslash is not an escape of JSON",
    "Unexpected UTF-8 BOM": "a byte order mark comes first",
}


def syntax_problem(error: ValueError) -> str:
    """What is wrong with a text that is no JSON, and where."""
    if isinstance(error, json.JSONDecodeError):
        problem = next((words for begins, words in SYNTAX.items() if error.msg.startswith(begins)), "it cannot be read")
        return f"{problem} (line {error.lineno:,}, column {error.colno:,})"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start + 1:,})"
    return "it holds an integer of more than 4,300 digits"  # the only other thing that Python's parser refuses


def too_deep() -> str:
    return f"The body is not valid JSON for this: more than {MAX_DEPTH} lists and objects stand inside each other."


def check_sound(data: Any) -> None:
    """Raises RequestRefused, naming the place, where a value inside `data` is none that can be carried on."""
    stack: list[tuple[Any, tuple[str, ...]]] = [(data, ())]
    while stack:
        value, path = stack.pop()
        if len(path) > MAX_DEPTH:
            raise RequestRefused(too_deep(), code="invalid_json")
        if isinstance(value, dict):
            for key, inner in value.items():
                check_text(key, path)
                stack.append((inner, (*path, key)))
        elif isinstance(value, list):
            stack += [(inner, (*path, str(i))) for i, inner in enumerate(value)]
        elif isinstance(value, str):
            check_text(value, path)
        elif isinstance(value, float) and not math.isfinite(value):
            raise wrong(path, "NaN and Infinity are not numbers in JSON; give a finite one")


def check_text(text: str, path: tuple[str, ...]) -> None:
    if "\0" in text:
        raise wrong(path, "this text has a NUL character, which cannot be used; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise wrong(path, "this text has half a surrogate pair, which is not a character; remove it") from None


def wrong(path: tuple[str, ...], problem: str) -> RequestRefused:
    return RequestRefused(f"{'.'.join(path) or 'body'}: {problem}.", param=".".join(path) or None)
