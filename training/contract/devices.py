"""What a training machine computes on, as it reports it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DeviceReport(BaseModel):
    """What `python -m training.models.devices` prints: the device that `device: auto` takes there."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["cuda", "cpu"]
    name: str = Field(description="of the GPU, or of the CPU")
    memory: int = Field(ge=0, description="bytes of one device; of a CPU, what its processes may take")
    free: int = Field(0, ge=0, description="bytes of it that nothing holds at the moment")
    disk: int = Field(0, ge=0, description="bytes free on the disk of its run folders; 0: not known")
    count: int = Field(1, ge=1, description="devices of this kind")
    bf16: bool = Field(False, description="whether it multiplies bf16 by its own instructions")
    bitsandbytes: bool = Field(False, description="whether the library is there, for weights or moments in few bits")
    cores: int = Field(1, ge=1, description="CPU cores")
    trackers: list[str] | None = Field(None, description="packages of experiment trackers that are installed")
