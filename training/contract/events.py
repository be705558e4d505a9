"""Lines of events.jsonl."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class EventBase(BaseModel):
    model_config = ConfigDict(extra="forbid")

    time: float = Field(description="seconds since the epoch")
    step: int = 0


class ProgressEvent(EventBase):
    type: Literal["progress"] = "progress"
    total: int = Field(description="steps in all; 0 when not known")
    phase: str = Field("", description="what is going on, in two words, for a person")
    eta: float | None = Field(None, description="seconds left")


class MetricEvent(EventBase):
    type: Literal["metric"] = "metric"
    values: dict[str, float]


class SampleEvent(EventBase):
    type: Literal["sample"] = "sample"
    prompt: str
    reply: str
    reward: float | None = None
    detail: dict[str, float] = Field(default_factory=dict)
    reference: str = Field("", description="the right answer, where the prompt has one")


class Warn(EventBase):
    type: Literal["warning"] = "warning"
    message: str


class Tracked(EventBase):
    """Where an experiment tracker shows the run."""

    type: Literal["tracked"] = "tracked"
    tracker: str = Field(description="a name of TRACKERS")
    url: str = Field("", description="the run's page; empty where there is none on the web")
    note: str = Field("", description="where it lies instead, and how to look at it")


class Checkpoint(EventBase):
    type: Literal["checkpoint"] = "checkpoint"
    folder: str


class Done(EventBase):
    type: Literal["done"] = "done"
    metrics: dict[str, float] = Field(default_factory=dict)


class Failed(EventBase):
    type: Literal["failed"] = "failed"
    message: str
    code: str = "failed"


Event = Annotated[
    ProgressEvent | MetricEvent | SampleEvent | Warn | Tracked | Checkpoint | Done | Failed,
    Field(discriminator="type"),
]
EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)
