"""What requests may hold, and errors in OpenAI's shape."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request as HTTPRequest

from training.contract import TrainingError, Turn, describe
from training.engine import SamplingParams, seed_of

MOST_BYTES = 8 << 20
B = TypeVar("B", bound=BaseModel)


class APIError(Exception):
    """An answer other than success, in the shape that OpenAI's clients read."""

    def __init__(self, status: int, message: str, *, param: str | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": kind or HTTPStatus(status).phrase.title().replace(" ", "") + "Error",
                "param": param,
                "code": status,
            }
        }

    @classmethod
    def of(cls, error: TrainingError) -> APIError:
        """A failure of the engine: what the request asks is 400, the rest is the server's."""
        asked = error.code in {"prompt_too_long", "prompt_empty", "token_unknown", "sampling_invalid"}
        return cls(400 if asked else 500, error.message, param="messages" if asked else None)


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())


class TextPart(Body):
    type: Literal["text"]
    text: str


def _plain(content: Any) -> Any:
    """OpenAI's list of parts as one text; parts that are no text are refused by validation."""
    if isinstance(content, list):
        return "".join(TextPart.model_validate(part).text for part in content)
    return content


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_plain)]

    def turn(self) -> Turn:
        return Turn(role="system" if self.role == "developer" else self.role, content=self.content)


class StreamOptions(Body):
    include_usage: bool = False


class GenerationBody(Body):
    """What chat and text completions share. Penalties are not implemented, and are refused rather than ignored."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    n: int = Field(1, ge=1, le=64)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    def sampling(self, room: int, stop_ids: frozenset[int], alternatives: int) -> list[SamplingParams]:
        """Parameters of the n replies; `room` tokens each where the request sets no limit."""
        seed = secrets.randbits(62) if self.seed is None else self.seed
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [
            SamplingParams(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=max(self.top_k, 0),
                max_new_tokens=self.limit() or room,
                seed=seed_of(seed, i),
                stop=tuple(stop for stop in stops if stop),
                stop_ids=frozenset() if self.ignore_eos else stop_ids,
                top_logprobs=alternatives,
            )
            for i in range(self.n)
        ]

    def limit(self) -> int | None:
        return self.max_tokens


class ChatBody(GenerationBody):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)

    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(GenerationBody):
    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Literal[False] = False

    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, list) and not (self.prompt and isinstance(self.prompt[0], int)):
            return list(self.prompt)  # type: ignore[arg-type]  # the union's list[int] is excluded in this branch
        return [self.prompt]


class LoadBody(Body):
    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1)


class UnloadBody(Body):
    lora_name: str = Field(min_length=1)


async def read_body(request: HTTPRequest, kind: type[B]) -> B:
    """The request's JSON as `kind`. Raises APIError 400 or 413 that says what is wrong."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise APIError(413, f"the request is larger than {MOST_BYTES >> 20} MiB")
    try:
        data = json.loads(raw)
        broken = unsound(data)
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"the body is not valid JSON: {error}") from error
    if broken:
        raise APIError(400, broken)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = ".".join(str(part) for part in error.errors()[0]["loc"]) or None
        raise APIError(400, describe(error), param=first) from error


def unsound(data: Any, place: str = "body") -> str:
    """What is wrong with a text inside `data`, "" where all are sound: NUL characters and half surrogate pairs, which
    no tokenizer, database or client can carry on."""
    if isinstance(data, str):
        if "\0" in data:
            return f"{place}: NUL characters are not allowed in text"
        if any("\ud800" <= character <= "\udfff" for character in data):
            return f"{place}: the text has half a surrogate pair, which is no character"
        return ""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return next((found for key, value in items if (found := unsound(value, f"{place}.{key}"))), "")
