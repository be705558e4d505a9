"""result.json."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Result(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    stage: str
    metrics: dict[str, float] = Field(description="final figures; names as in the metric events")
    intervals: dict[str, tuple[float, float, int]] = Field(
        default_factory=dict, description="for some metrics: low and high end of the 95 % interval, and n"
    )
    counts: dict[str, int] = Field(default_factory=dict, description="rows read, used, left out and why")
    seconds: dict[str, float] = Field(description="wall time by phase, and total")
    seed: int | None = Field(None, description="none where the stage has no random seed")
    device: str
    versions: dict[str, str]
    files: dict[str, str] = Field(description="sha256 of every file in model/ and output/, by path in the run folder")
    model: dict[str, Any] = Field(
        default_factory=dict,
        description="kind (full, adapter, reward, tokenizer), parameters, context, vocabulary, base, facts",
    )


class ExportAbout(BaseModel):
    """about.json of an export run: what the caller knows of the model that leaves."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    base: str = Field("", description="the model that training began with: its name on the hub, or empty")
    license: str = ""
    card: str = Field("", description="the model card's text in Markdown, without front matter")
