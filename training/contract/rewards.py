"""Rewards besides reward models: what each one compares, and its parameters. They are the terms of a `rewards` setting.

A new kind is a model here, in RewardTerm and VERIFIERS or another source of training/preferences/reward_sources.py.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from training.contract.settings import setting

Term = TypeVar("Term", bound="RewardTermBase")


class RewardTermBase(BaseModel):
    """What every term has. `needs_reference`: it can say nothing of a reply whose prompt has no `reference`.
    `verifies`: 1 means that the reply is correct, so the share of such replies is reported."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    title: ClassVar[str]
    needs_reference: ClassVar[bool] = False
    needs_data: ClassVar[str] = ""
    """The key of a prompt's `data` without which it can say nothing."""
    verifies: ClassVar[bool] = False
    kind: str

    weight: float = setting(1.0, "What the score is multiplied by before it is added to the others.")
    timeout: float = setting(
        60.0,
        "How long one batch may take before the reward counts as hanging.",
        unit="seconds",
        gt=0,
        le=3600,
        advanced=True,
    )
    on_failure: Literal["stop", "score"] = setting(
        "stop",
        "When it fails or hangs: stop ends the run with the reason, which can then be resumed; score gives the replies "
        "failure_score, with a warning.",
        advanced=True,
    )
    failure_score: float = setting(0.0, "Score of a reply for which the reward failed.", advanced=True)

    @property
    def label(self) -> str:
        """What metrics and messages call it."""
        return self.kind


class ExactReward(RewardTermBase):
    """1 if the reply is the reference, or one of several; else 0."""

    title = "Exact match"
    needs_reference = True
    verifies = True
    kind: Literal["exact"] = "exact"
    compare: Literal["reply", "last_line", "contains"] = setting(
        "reply", "What is compared: the whole reply, its last line, or whether the reference stands anywhere in it."
    )
    normalize: bool = setting(True, "Ignore upper and lower case, punctuation at the ends of words, and extra spaces.")


class NumericReward(RewardTermBase):
    """1 if the reply's answer is the reference's number; else 0. GSM8K's `####`, `\\boxed{}`, fractions, percentages and
    thousands separators are read."""

    title = "Numeric answer"
    needs_reference = True
    verifies = True
    kind: Literal["numeric"] = "numeric"
    answer: Literal["any", "marked", "last"] = setting(
        "any",
        "Where the answer stands: marked by \\boxed{} or ####, the last number, or any of these: marked if it is there, "
        "else the last number.",
    )
    tolerance: float = setting(
        0.0, "Largest difference that counts as right, relative to the reference; 0 wants equal numbers.", ge=0, le=1
    )


class RegexReward(RewardTermBase):
    """1 if the reply matches a regular expression; else 0."""

    title = "Regular expression"
    verifies = True
    kind: Literal["regex"] = "regex"
    pattern: str = setting(
        "",
        "Python's regular expression; empty takes each prompt's reference as its pattern.",
        max_length=2000,
    )
    whole: bool = setting(False, "The whole reply must match, not a part of it.")
    ignore_case: bool = setting(False, "Ignore upper and lower case.")

    @field_validator("pattern")
    @classmethod
    def compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"this is no regular expression: {error}") from error
        return pattern


class JSONSchemaReward(RewardTermBase):
    """1 if the reply is JSON that fits a schema; else 0. JSON may stand in a fenced code block."""

    title = "JSON schema"
    verifies = True
    kind: Literal["json_schema"] = "json_schema"
    json_schema: str = setting(
        "",
        "The schema as JSON; empty takes `schema` from each prompt's data, and any JSON is right where it has none.",
        max_length=20_000,
    )

    @field_validator("json_schema", mode="before")
    @classmethod
    def as_text(cls, schema: Any) -> Any:
        return json.dumps(schema) if isinstance(schema, dict) else schema

    @field_validator("json_schema")
    @classmethod
    def is_json(cls, schema: str) -> str:
        if schema.strip():
            try:
                parsed = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"this is no JSON: {error}") from error
            if not isinstance(parsed, dict):
                raise ValueError("a schema is a JSON object")
        return schema


class LengthReward(RewardTermBase):
    """1 for a length between two limits, less in proportion to what is missing or too much, at least 0."""

    title = "Length"
    kind: Literal["length"] = "length"
    minimum: int = setting(0, "Shortest length that gets the full score.", ge=0)
    maximum: int = setting(200, "Longest length that gets the full score.", ge=1)
    unit: Literal["words", "characters"] = setting("words", "What is counted.")

    @model_validator(mode="after")
    def limits_are_in_order(self) -> LengthReward:
        if self.minimum > self.maximum:
            raise ValueError("minimum must not be above maximum")
        return self


class LanguageReward(RewardTermBase):
    """1 if the reply is in a language; else 0."""

    title = "Language"
    kind: Literal["language"] = "language"
    language: str = setting(
        "en",
        "Two-letter code of ISO 639, such as en or de.",
        pattern="^[a-z]{2,3}$",
    )


class CodeReward(RewardTermBase):
    """Runs the reply's Python code against the unit tests in `tests` of the prompt's data, in a process with limits. Only
    where the operator allows it (TUTELAGE_CODE_REWARDS)."""

    title = "Code with unit tests"
    needs_data = "tests"
    verifies = True
    kind: Literal["code"] = "code"
    score: Literal["all", "share"] = setting(
        "all", "1 if all tests pass and else 0, or the share of the tests that pass."
    )
    seconds: float = setting(5.0, "Time for one reply's tests.", unit="seconds", gt=0, le=300)
    memory: int = setting(512, "Memory of one program.", unit="MB", ge=64, le=65_536, advanced=True)


class FunctionReward(RewardTermBase):
    """A function of your own, registered by a module that TUTELAGE_REWARDS names."""

    title = "Registered function"
    kind: Literal["function"] = "function"
    name: str = setting("", "Its registered name.", max_length=200)
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for it.")

    @property
    def label(self) -> str:
        return self.name


class URLReward(RewardTermBase):
    """A server that scores replies: batches are posted to it as JSON."""

    title = "Server"
    kind: Literal["url"] = "url"
    url: str = setting(
        "",
        'Where batches of prompts, replies, references and data are posted; answers {"scores": […]}.',
        max_length=2000,
    )
    retries: int = setting(3, "How often a batch is sent again after a failure, with growing pauses.", ge=0, le=20)

    @field_validator("url")
    @classmethod
    def is_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port_is_valid = parts.port is None or parts.port > 0
        except ValueError as error:
            raise ValueError(f"this is no address: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
            raise ValueError("give an address that begins with https:// or http://")
        if parts.username or parts.password:
            raise ValueError("leave credentials out of the address; the operator sets them in TUTELAGE_REWARD_TOKENS")
        return url

    @property
    def label(self) -> str:
        return urlsplit(self.url).hostname or "url"


RewardTerm = Annotated[
    ExactReward
    | NumericReward
    | RegexReward
    | JSONSchemaReward
    | LengthReward
    | LanguageReward
    | CodeReward
    | FunctionReward
    | URLReward,
    Field(discriminator="kind"),
]
REWARD_TERMS: Final[dict[str, type[RewardTermBase]]] = {
    str(term.model_fields["kind"].default): term
    for term in (
        NumericReward, ExactReward, RegexReward, JSONSchemaReward, CodeReward, LengthReward, LanguageReward,
        FunctionReward, URLReward,
    )
}  # fmt: skip
MAX_TERMS: Final = 20


def rewards_field() -> Any:
    """Terms that are added to the reward model's score, or stand alone."""
    return Field(
        default_factory=list,
        max_length=MAX_TERMS,
        description="Rewards that are computed: each a kind with a weight and parameters. Their weighted sum is added to "
        "the reward model's score.",
        json_schema_extra={"rewards": True},
    )


def labels_of(terms: list[Any]) -> list[str]:
    """The terms' labels, numbered where several have the same: their names in metrics."""
    labels: list[str] = []
    for term in terms:
        count = sum(other.split("#")[0] == term.label for other in labels)
        labels.append(f"{term.label}#{count + 1}" if count else term.label)
    return labels


def is_usable(term: RewardTermBase, reference: Any, data: dict[str, Any] | None) -> bool:
    """Whether a prompt with this reference and data has what the term needs."""
    if isinstance(term, RegexReward) and not term.pattern:
        return isinstance(reference, str) and bool(reference)
    if term.needs_reference and reference is None:
        return False
    return not term.needs_data or bool((data or {}).get(term.needs_data))
