"""What adding a model from elsewhere takes, said before it starts: disk, memory and time, beside what there is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

from django.template.defaultfilters import filesizeformat

from training.contract import ARCHIVES, DeviceReport, hub_place, is_gguf, is_model_file
from webapp.accounts.models import User
from webapp.errors import BadInput
from webapp.model_names import check_model_name, is_hub_name
from webapp.params import read_int, read_text
from webapp.registry.facts import read_facts
from webapp.runs.fitting import size_words
from webapp.runs.hub_models import ask_hub
from webapp.runs.machines import listed_models, newest_machine
from webapp.runs.models import UPLOADED, Run

SPARE: Final = 512 << 20  # bytes of the disk that stay free, as training/models/model_files.py has it
HALF: Final = 2  # bytes of a number in bf16 or float16, in which nearly all models are published
WHOLE: Final = 4
BITS: Final = {  # that a number takes in a GGUF file, by what its name says of its quantization
    "F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8": 8.5, "Q6": 6.6, "Q5": 5.7, "Q4": 4.8, "Q3": 3.9, "Q2": 3.2,
    "IQ4": 4.5, "IQ3": 3.6, "IQ2": 2.7, "IQ1": 1.9,
}  # fmt: skip
QUANTIZATION: Final = re.compile(r"(?:^|[^A-Z0-9])(BF16|F16|F32|I?Q[1-8])(?=[^0-9]|$)", re.IGNORECASE)
PAST: Final = 8  # runs from which the time is taken
Kind = Literal["hub", "folder", "file"]


@dataclass(frozen=True)
class Source:
    """fetched: bytes that come over the network; files: bytes of all that is taken; weights: those of its numbers.
    parameters: 0 if nobody says. gguf: the name of a GGUF file, which says how it is quantized."""

    kind: Kind
    files: int
    weights: int
    parameters: int = 0
    gguf: str = ""

    @property
    def numbers(self) -> float:
        if self.parameters:
            return float(self.parameters)
        if not self.gguf:
            return self.weights / HALF
        match = QUANTIZATION.search(self.gguf)
        return self.weights * 8 / (BITS[match[1].upper()] if match else BITS["Q4"])


@dataclass(frozen=True)
class Addition:
    """Bytes; `disk_free` and `memory_free` are 0 where no worker has said. seconds: None if nothing like it was added
    here before. exact: whether the hub, or the files themselves, gave all of it."""

    source: Source
    disk: int
    disk_free: int
    memory: int
    memory_there: int
    seconds: float | None
    exact: bool

    @property
    def fits_disk(self) -> bool:
        return not self.disk_free or self.disk + SPARE <= self.disk_free

    @property
    def fits_memory(self) -> bool:
        return not self.memory_there or self.memory <= self.memory_there

    @property
    def fits(self) -> bool:
        return self.fits_disk and self.fits_memory

    @property
    def sentences(self) -> list[str]:
        about = "" if self.exact else "about "
        disk_note = f"; {size_words(self.disk_free)} are free" if self.disk_free else ""
        lines = [f"Needs {about}{size_words(self.disk)} of disk on the training machine{disk_note}."]
        memory_note = f" of {size_words(self.memory_there)}" if self.memory_there else ""
        lines.append(f"Needs about {size_words(self.memory)}{memory_note} of memory to load and check it.")
        if self.source.kind == "hub":
            lines.append(f"{filesizeformat(self.source.files)} are fetched from the hub.".replace("\xa0", " "))
        if not self.fits_disk:
            lines.append("The disk has no room for it: free some, or take a smaller model.")
        if not self.fits_memory:
            lines.append("It does not fit into memory: take a smaller model, or a machine with more.")
        if not (self.disk_free and self.memory_there):
            lines.append("No training worker has said yet how much there is.")
        return lines


def addition_of(
    person: User,
    *,
    base_name: str = "",
    revision: str = "",
    template: str = "keep",
    file: tuple[str, int] | None = None,
) -> Addition | None:
    """What it takes to add the model of this name, or the file (name, bytes) that a person sends; None if the size of a
    folder is not known here.

    Raises BadInput for a name that cannot be taken, and what `ask_hub` raises.
    """
    source = source_of_file(*file) if file else source_of_name(base_name, revision, person)
    return None if source is None else count(source, rewritten=template != "keep")


def source_of_name(name: str, revision: str, person: User) -> Source | None:
    check_model_name(name, files=True)
    if not name:
        raise BadInput("base_name: name a model, or choose a file that holds one.", field="base_name")
    if is_hub_name(name, files=True) and hub_place(name):
        repository = ask_hub(name, revision, person)
        return Source("hub", repository.bytes, repository.weights, repository.parameters, repository.file)
    size = next((model["bytes"] for model in listed_models() if model["path"] == name.rstrip("/")), None)
    return None if size is None else source_of_folder(name, size)


def source_of_folder(name: str, size: int) -> Source:
    return Source("folder", size, size, gguf=name if is_gguf(name) else "")


def source_of_file(name: str, size: int) -> Source:
    if not is_model_file(name):
        raise BadInput(f"file_name: send the model as one file: {', '.join((*ARCHIVES, '.gguf'))}.", field="file_name")
    if size <= 0:
        raise BadInput(f"file_bytes: {name} is empty.", field="file_bytes")
    return Source("file", size, size, gguf=name if is_gguf(name) else "")


def count(source: Source, *, rewritten: bool) -> Addition:
    """rewritten: its weights are written once more, because its embeddings grow."""
    machine = newest_machine()
    device = machine[1] if machine else DeviceReport(kind="cpu", name="", memory=0)
    numbers = source.numbers
    stored = HALF if source.gguf else source.weights / numbers if numbers else HALF
    held = HALF if device.bf16 and stored <= HALF else WHOLE
    disk: float = source.files if source.kind != "folder" or not (source.gguf or rewritten) else 0
    if source.gguf:  # becomes safetensors
        disk = (source.files if source.kind == "hub" else 0) + HALF * numbers
    disk += stored * numbers if rewritten else 0
    memory = numbers * (WHOLE if source.gguf else held)  # converting holds it in fp32
    return Addition(
        source,
        disk=int(disk),
        disk_free=device.disk,
        memory=int(memory),
        memory_there=device.memory,
        seconds=seconds_of(source),
        exact=bool(source.parameters) or not source.gguf,
    )


def seconds_of(source: Source) -> float | None:
    """By the last additions of this kind, in seconds per byte taken."""
    rates = []
    past = Run.objects.filter(stage="add", state=Run.State.SUCCEEDED, output__isnull=False).select_related("output")
    for run in past.order_by("-id")[: 4 * PAST]:
        facts = read_facts(run.output.facts) if run.output else None
        seconds = float(run.result.get("seconds", {}).get("total", 0.0))
        if facts and facts.parameters and seconds > 0 and kind_of(run.base_name) == (source.kind, bool(source.gguf)):
            rates.append(seconds / facts.parameters)
    return median(rates[:PAST]) * source.numbers if rates else None


def kind_of(base_name: str) -> tuple[Kind, bool]:
    """Where a past run took its model from, and whether as GGUF."""
    gguf = is_gguf(base_name)
    if base_name.startswith(UPLOADED):
        return "file", gguf
    return ("hub" if hub_place(base_name) else "folder"), gguf


def file_in(values: Mapping[str, Any]) -> tuple[str, int] | None:
    """The file that a browser or program is about to send: (name, bytes). Raises BadInput for rubbish."""
    name, size = read_text(values, "file_name"), read_int(values, "file_bytes", 0)
    return (name, size) if name else None
