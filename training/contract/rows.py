"""Rows of data/*.jsonl and output/*.jsonl."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: str = Field(description="what the caller calls this row, e.g. ranking:12; comes back in results")


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class TextRow(Row):
    """One document, as collected (documents.jsonl) or cleaned (corpus.jsonl, heldout.jsonl, text.jsonl)."""

    text: str
    source: str = ""
    format: Literal["text", "html"] = "text"


class DroppedRow(Row):
    """A document that cleaning left out: a line of output/dropped.jsonl."""

    reason: str = Field(description="too short, no text, other language, copy, near copy")
    detail: str = Field("", description="of what it is a copy, which language it is in, ...")
    start: str = Field(description="its first 200 characters")


class PromptRow(Row):
    """A conversation up to and including the user's turn that wants a reply. `reference` and `data` are for rewards that
    check replies: the right answer, and whatever else they need, such as unit tests."""

    messages: list[Turn] = Field(min_length=1)
    reference: JsonValue = None
    data: dict[str, JsonValue] | None = None


class DemonstrationRow(Row):
    """A conversation that ends with the assistant's turn to learn; earlier assistant turns are learned too."""

    messages: list[Turn] = Field(min_length=2)
    masked_turns: list[int] = Field(
        default_factory=list, description="indices of assistant messages that are context only and are not learned"
    )
    weight: float = Field(1.0, ge=0)
    source: str = ""

    @model_validator(mode="after")
    def _ends_with_the_assistant(self) -> DemonstrationRow:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        if any(not 0 <= i < len(self.messages) or self.messages[i].role != "assistant" for i in self.masked_turns):
            raise ValueError("masked_turns must be indices of assistant messages")
        if len(self.messages) - 1 in self.masked_turns:
            raise ValueError("the last message cannot be masked: nothing would be learned at the end")
        return self


class RankingRow(Row):
    """One person's ordering of K replies to one prompt. `groups` holds indices into `replies`, best group first; replies
    that share a group are tied. `[[2], [0, 1]]`: reply 2 beats 0 and 1, which tie."""

    messages: list[Turn] = Field(min_length=1)
    replies: list[str] = Field(min_length=2)
    groups: list[list[int]] = Field(min_length=1)
    strength: float | None = Field(None, ge=0, description="how much better, where the person said so")
    weight: float = Field(1.0, ge=0, description="the annotator's reliability")
    annotator: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _groups_are_a_partition(self) -> RankingRow:
        if sorted(i for group in self.groups for i in group) != list(range(len(self.replies))):
            raise ValueError("groups must name each reply exactly once")
        return self


class JudgmentRow(Row):
    """One reply to a prompt that a person called good or bad, without another to compare it with."""

    messages: list[Turn] = Field(min_length=1)
    reply: str
    good: bool
    weight: float = Field(1.0, ge=0)
    annotator: str = ""
    source: str = ""


class SampleRow(Row):
    """A reply that a model gave: a line of output/samples.jsonl. `id` is `<prompt id>#<k>`."""

    prompt_id: str
    messages: list[Turn]
    reply: str
    tokens: int = Field(ge=0, description="length of the reply, end-of-text token included where it was produced")
    finish: Literal["stop", "length"]
    logprob: float = Field(description="mean log-probability a token, natural logarithm")
    reward: float | None = None
    rewards: dict[str, float | None] = Field(
        default_factory=dict, description="what each of several rewards gave, before its weight"
    )
    reference: JsonValue = None


class FrontierRow(Row):
    """A policy of a PPO or GRPO run, measured on held-out prompts: a line of output/frontier.jsonl. `id` is
    `step:<step>`."""

    step: int = Field(ge=0)
    kl: float = Field(description="from the policy that training began with, nats a reply")
    reward: float
    length: float = Field(description="tokens per reply")
    ended: float = Field(ge=0, le=1, description="share of replies that ended by themselves")
    on_frontier: bool = Field(description="no other step has as much reward for less KL, or more for as much")


class ScoresRow(Row):
    """What a reward says of a ranking's replies, in their order: a line of output/rankings.jsonl, under the ranking's
    id."""

    scores: list[float]
    agrees: float = Field(
        ge=0, le=1, description="share of the person's decided comparisons that it sees so; 0.5: equal"
    )
