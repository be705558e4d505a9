"""The files that a run leaves beside its model: what they are, and how to take them away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Final, NamedTuple

from django.http import HttpRequest, StreamingHttpResponse

from training.contract import SPECS, SampleRow
from webapp.downloads import PIECE_BYTES, download
from webapp.errors import NotFound
from webapp.registry.artefacts import open_file
from webapp.runs.models import Run

ABOUT: Final = {
    "corpus.jsonl": "the cleaned text",
    "heldout.jsonl": "cleaned text that is held out",
    "dropped.jsonl": "what cleaning left out, and why",
    "samples.jsonl": "the model's replies",
    "baseline.jsonl": "the baseline's replies",
    "rankings.jsonl": "each ranking with the reward model's scores, and whether they agree",
    "frontier.jsonl": "reward and KL divergence of each step that was measured",
}


class Output(NamedTuple):
    name: str
    about: str


def outputs_of(run: Run) -> list[Output]:
    return [Output(name, ABOUT.get(name, "")) for name in sorted(run.outputs)]


def output_download(request: HttpRequest, run: Run, name: str) -> StreamingHttpResponse:
    """Raises NotFound for a file that the run did not leave, Unavailable where the store does not answer."""
    address = run.outputs.get(name)
    if address is None:
        have = f"It left {', '.join(sorted(run.outputs))}." if run.outputs else "It left none."
        raise NotFound(f"{run.name} left no file {name}. {have}")
    file_name = f"{run.project.slug}-run-{run.number}-{name.replace('/', '-')}"
    if SPECS[run.stage].exports:  # whose files name each other
        file_name = PurePosixPath(name).name
    return download(request, pieces_of(open_file(address)), file_name)


def pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(PIECE_BYTES):
            yield block


def read_sample_rows(address: str) -> Iterator[SampleRow]:
    """The replies in a file that a run left."""
    with open_file(address) as file:
        for line in file:
            if line.strip():
                yield SampleRow.model_validate_json(line)
