"""The files that a run leaves beside its model: what they are, and how to take them away."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from django.http import HttpRequest, HttpResponseBase

from training.contract import OUTPUT, SPECS, SampleRow
from webapp.archives import tar_parts
from webapp.downloads import Content, Part, StoredFile, send_content
from webapp.errors import NotFound, Unavailable
from webapp.registry.artefacts import MANIFEST, file_facts, open_file
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
    """size: bytes; None where the store does not say."""

    name: str
    about: str
    size: int | None


def outputs_of(run: Run) -> list[Output]:
    return [Output(name, ABOUT.get(name, ""), size_of(address)) for name, address in sorted(run.outputs.items())]


def size_of(address: str) -> int | None:
    try:
        return file_facts(address).size
    except Unavailable:
        return None


def output_download(request: HttpRequest, run: Run, name: str) -> HttpResponseBase:
    """Raises NotFound for a file that the run did not leave, Unavailable where the store does not answer."""
    address = run.outputs.get(name)
    if address is None:
        have = f"It left {', '.join(sorted(run.outputs))}." if run.outputs else "It left none."
        raise NotFound(f"{run.name} left no file {name}. {have}")
    file_name = f"{run.project.slug}-run-{run.number}-{name.replace('/', '-')}"
    if SPECS[run.stage].exports:  # whose files name each other
        file_name = PurePosixPath(name).name
    file, version = stored_file(address)
    return send_content(request, Content([file], digest_of([version])), file_name)


def archive_download(request: HttpRequest, run: Run) -> HttpResponseBase:
    """All files of an export as one tar, which is put together while it is sent.

    Raises NotFound for a run without files, Unavailable where the store does not answer.
    """
    if not SPECS[run.stage].exports or not run.outputs or run.finished_at is None:
        raise NotFound(f"{run.name} has no exported files.")
    folder = archive_name(run)
    hashes = run.result["files"]
    sums = "".join(f"{hashes[f'{OUTPUT}/{name}']}  {name}\n" for name in sorted(run.outputs))
    members: list[tuple[str, Part]] = [(f"{folder}/{MANIFEST}", sums.encode())]
    versions = [sums]
    for name, address in sorted(run.outputs.items()):
        file, version = stored_file(address)
        members.append((f"{folder}/{name}", file))
        versions.append(version)
    chunks = tar_parts(members, int(run.finished_at.timestamp()))
    return send_content(request, Content(chunks, digest_of(versions)), f"{folder}.tar")


def archive_name(run: Run) -> str:
    """Such as kite-3-bf16: the archive's name, and that of the folder in it."""
    return f"{run.project.slug}-{run.base.number if run.base else f'run-{run.number}'}-{run.config['format']}"


def stored_file(address: str) -> tuple[StoredFile, str]:
    """A file of the store, and what tells its content from an earlier one."""
    facts = file_facts(address)
    return StoredFile(facts.size, partial(open_file, address)), facts.version


def digest_of(versions: list[str]) -> str:
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:32]


def read_sample_rows(address: str) -> Iterator[SampleRow]:
    """The replies in a file that a run left."""
    with open_file(address) as file:
        for line in file:
            if line.strip():
                yield SampleRow.model_validate_json(line)
