"""Requests to /v1/chat/completions and /v1/completions: what the model server implements of OpenAI's and vLLM's
interface. The site reads them with the same models, so both refuse the same things in the same words.

`null` for a parameter means its default. docs/serving.md has the table of all parameters.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from training.contract.parameters import check_parameters
from training.contract.refusals import RequestRefused
from training.contract.rows import Turn
from training.contract.wording import expects, give, give_without, problems

MAX_N: Final = 64
MAX_ALTERNATIVES: Final = 20
MAX_STOPS: Final = 16
MAX_STOP_LENGTH: Final = 256
TEXT_COMPLETION_TOKENS: Final = 16  # OpenAI's default for text completions

# What errors say is expected, where the type alone would not say it.
MODEL_NAME: Final = "the name of a model, as text of at most 300 characters"
TEXT_PART: Final = '{"type": "text", "text": "…"}'
CONTENT: Final = "a text or a list of text parts"
SEED: Final = "a whole number of at most 64 bits"
STOPS: Final = "a text or a list of texts"
PROMPTS: Final = "a text, a list of token ids, or a list of either"
B = TypeVar("B", bound="GenerationRequest")


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())


def _text_of(content: Any) -> Any:
    """OpenAI's list of parts as one text."""
    if not isinstance(content, list):
        return content
    for block in content:
        if not isinstance(block, dict):
            raise ValueError(give_without(CONTENT, block))
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            named = f" of type {block['type'][:40]}" if isinstance(block.get("type"), str) else ""
            raise ValueError(f"a part{named} is not supported, because these models read text only; give {TEXT_PART}")
    return "".join(block["text"] for block in content)


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[StrictStr, BeforeValidator(_text_of)] = Field(json_schema_extra=expects(CONTENT))

    @model_validator(mode="before")
    @classmethod
    def _no_tools(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("give a message, which is an object with `role` and `content`")
        if data.get("role") in ("tool", "function"):
            raise ValueError("tool messages are not supported; give what the tool said in a user message")
        if any(data.get(name) for name in ("tool_calls", "function_call")):
            raise ValueError("tool calls are not supported; give them as text, or leave the message out")
        if "content" in data and data["content"] is None:
            raise ValueError("`content` is null; give the text of the turn, or leave the message out")
        return data

    def turn(self) -> Turn:
        return Turn(role="system" if self.role == "developer" else self.role, content=self.content)


class StreamOptions(Body):
    include_usage: StrictBool = False


def _options(value: Any) -> Any:
    return {name: option for name, option in value.items() if option is not None} if isinstance(value, dict) else value


def _stops(stop: Any) -> Any:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list):
        raise ValueError(give(STOPS, stop))
    for text in stops:
        if not isinstance(text, str):
            raise ValueError(give_without(STOPS, text))
    if len(stops) > MAX_STOPS:
        raise ValueError(f"give at most {MAX_STOPS} texts, not {len(stops):,}")
    if too_long := next((text for text in stops if len(text) > MAX_STOP_LENGTH), ""):
        raise ValueError(f"give texts of at most {MAX_STOP_LENGTH} characters, not one of {len(too_long):,}")
    return [text for text in stops if text]


class GenerationRequest(Body):
    """What chat and text completions share. `user` tells people apart: their replies are begun in turn."""

    model: StrictStr = Field(min_length=1, max_length=300, json_schema_extra=expects(MODEL_NAME))
    max_tokens: StrictInt | None = Field(None, ge=1)
    temperature: StrictFloat | None = Field(None, ge=0, le=5)
    top_p: StrictFloat | None = Field(None, gt=0, le=1)
    top_k: StrictInt = Field(0, ge=-1)
    n: StrictInt = Field(1, ge=1, le=MAX_N)
    seed: StrictInt | None = Field(None, ge=-(1 << 63), lt=1 << 63, json_schema_extra=expects(SEED))
    stop: Annotated[list[str], BeforeValidator(_stops)] = Field(default_factory=list)
    stream: StrictBool = False
    stream_options: Annotated[StreamOptions, BeforeValidator(_options)] = Field(default_factory=StreamOptions)
    ignore_eos: StrictBool = False
    user: StrictStr = Field("", max_length=300)

    @property
    def limit(self) -> int | None:
        """Most tokens of a reply, where the request says it."""
        return self.max_tokens

    @property
    def replies(self) -> int:
        """How many replies the request asks for."""
        return self.n

    def opening(self) -> str:
        """What a conversation begins with and keeps while it goes on."""
        raise NotImplementedError


class ChatRequest(GenerationRequest):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: StrictInt | None = Field(None, ge=1)
    logprobs: StrictBool = False
    top_logprobs: StrictInt = Field(0, ge=0, le=MAX_ALTERNATIVES)

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: give logprobs: true with it")
        if not self.messages[-1].content.strip():
            raise ValueError("messages: the last message is empty, so there is nothing to reply to")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def turns(self) -> list[Turn]:
        return [message.turn() for message in self.messages]

    def opening(self) -> str:
        spoken = [message for message in self.messages if message.role in ("user", "assistant")]
        return (spoken or self.messages)[0].content


def _prompt_list(prompt: Any) -> Any:
    """`prompt` as a list of texts and lists of token ids, whichever of the four shapes it has."""
    if not isinstance(prompt, list | str):
        raise ValueError(give(PROMPTS, prompt))
    prompts = prompt if isinstance(prompt, list) and not (prompt and _is_id(prompt[0])) else [prompt]
    for item in prompts:
        ids = item if isinstance(item, list) else []
        wrong = [token for token in ids if not _is_id(token)] if isinstance(item, list | str) else [item]
        if wrong:
            raise ValueError(give_without(PROMPTS, wrong[0]))
    if not prompts or not all(prompts):
        raise ValueError("this is empty, so there is nothing to go on from; give some text")
    return prompts


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class CompletionRequest(GenerationRequest):
    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompt_list)] = Field(json_schema_extra=expects(PROMPTS))
    max_tokens: StrictInt | None = Field(TEXT_COMPLETION_TOKENS, ge=1)
    logprobs: StrictInt | None = Field(None, ge=0, le=MAX_ALTERNATIVES)

    @property
    def replies(self) -> int:
        return self.n * len(self.prompt)

    def opening(self) -> str:
        return str(self.prompt[0])


def read_request(data: Any, kind: type[B]) -> B:
    """`data`, as JSON gave it, as a request. Raises RequestRefused that names the parameter."""
    if not isinstance(data, dict):
        raise RequestRefused(NO_OBJECT, code="invalid_type")
    parameters = {name: value for name, value in data.items() if value is not None}
    return checked_body(check_parameters(parameters, frozenset(kind.model_fields)), kind)


M = TypeVar("M", bound=BaseModel)
CODES: Final = {"missing": "missing_required_parameter", "value_error": "invalid_value"}
NO_OBJECT: Final = "The body must be a JSON object."


def checked_body(data: Any, kind: type[M]) -> M:
    """`data` as `kind`. Raises RequestRefused with the first thing that is wrong."""
    if not isinstance(data, dict):
        raise RequestRefused(NO_OBJECT, code="invalid_type")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        path, message, type_ = problems(error.errors(), kind)[0]
    if not path and ": " in message:  # said about the request as a whole, by one of its own checks
        path, _, message = message.partition(": ")
    code = CODES.get(type_, "invalid_type" if type_.endswith(("type", "parsing")) else "invalid_value")
    raise RequestRefused(f"{path}: {message}.", param=path, code=code)
