"""What requests may hold beside training/contract/completions.py, and errors in OpenAI's shape."""

from __future__ import annotations

import secrets
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field
from starlette.requests import Request as HTTPRequest

from training.contract import TrainingError
from training.contract.completions import Body, ChatMessage, GenerationRequest, checked_body, read_request
from training.contract.refusals import MAX_BODY_BYTES, RequestRefused, openai_error_body, parse_request, too_large
from training.contract.wording import expects
from training.engine import SamplingParams, derive_seed

RETRY_SECONDS: Final = 5
NO_CUT: Final = 1 << 30  # a top_k beyond every vocabulary, which a tensor still holds
CODES: Final = {
    401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large",
    415: "unsupported_media_type", 429: "rate_limit_exceeded", 500: "server_error", 503: "unavailable",
}  # fmt: skip
ASKED: Final = {  # failures that the request is the cause of, and what a client calls them
    "prompt_too_long": "context_length_exceeded",
    "prompt_empty": "invalid_value",
    "token_unknown": "invalid_value",
    "sampling_invalid": "invalid_value",
    "no_chat_template": "template_refused",
    "template_stopped": "template_stopped",
}
G = TypeVar("G", bound=GenerationRequest)
B = TypeVar("B", bound=BaseModel)


class APIError(Exception):
    """An answer other than success, in the shape that OpenAI's clients read."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = openai_error_body(
            message, status=status, param=param, code=code or CODES.get(status, "invalid_value")
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_SECONDS)} if self.status in (429, 503) else {}

    @classmethod
    def of(cls, error: TrainingError, param: str = "messages") -> APIError:
        """A failure of the engine or the template: what the request asks is 400, the rest is the server's."""
        if error.code in ASKED:
            return cls(400, error.message, param=param, code=ASKED[error.code])
        return cls(500, error.message)


class LoadBody(Body):
    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1, max_length=4096, json_schema_extra=expects("the path of a model's folder"))


class TokenizeBody(Body):
    model: str
    messages: list[ChatMessage] = Field(default_factory=list)
    prompt: str = ""


class UnloadBody(Body):
    lora_name: str = Field(min_length=1, max_length=200)


async def read_generation(request: HTTPRequest, kind: type[G]) -> G:
    """The request's JSON as `kind`. Raises APIError 400 or 413 that says what is wrong."""
    raw = await read_raw(request)
    try:
        return read_request(parse_request(raw), kind)
    except RequestRefused as refusal:
        raise APIError(refusal.status, refusal.message, param=refusal.param, code=refusal.code) from refusal


async def read_order(request: HTTPRequest, kind: type[B]) -> B:
    """What is to be loaded or unloaded. No other kind than application/json will do: a page of another site can make a
    browser send those without asking."""
    sent = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if sent != "application/json":
        raise APIError(415, "send this with Content-Type: application/json")
    raw = await read_raw(request)
    try:
        return checked_body(parse_request(raw), kind)
    except RequestRefused as refusal:
        raise APIError(refusal.status, refusal.message, param=refusal.param, code=refusal.code) from refusal


async def read_raw(request: HTTPRequest) -> bytes:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise APIError(413, too_large())
    return bytes(raw)


def sampling(request: GenerationRequest, *, limit: int, stop_ids: frozenset[int], top: int) -> list[SamplingParams]:
    """Parameters of the n replies; `limit` tokens each where the request sets no limit, `top` alternatives a token."""
    seed = secrets.randbits(62) if request.seed is None else request.seed
    shared: dict[str, Any] = {
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "top_k": min(max(request.top_k, 0), NO_CUT),
        "max_new_tokens": request.limit or limit,
        "stop": tuple(request.stop),
        "stop_ids": frozenset() if request.ignore_eos else stop_ids,
        "top_logprobs": top,
    }
    return [SamplingParams(seed=derive_seed(seed, i), **shared) for i in range(request.n)]
