"""Run folders: what a worker writes before it starts a stage, and what it reads while the stage runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from django.conf import settings

from training.contract import ABOUT, CONFIG, DATA, EVENTS, LOG, MODEL, OUTPUT, SPECS
from webapp.model_names import model_source
from webapp.registry.artefacts import fetch_file, local_folder
from webapp.registry.models import ModelVersion
from webapp.runs.model_cards import about_model
from webapp.runs.models import Run
from webapp.runs.stages import SOURCES, source_fields
from webapp.runs.uploads import file_of, kept_upload

TAIL = 16_384


def folder_of(run: Run) -> Path:
    return Path(settings.RUNS_FOLDER) / str(run.pk)


def prepare_folder(run: Run) -> Path:
    """Write config.json and data/ where they are not there yet. Models that the config names are verified.

    Raises Conflict for a damaged model, Unavailable for a store that does not answer, OSError for a full disk.
    """
    folder = folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(run.config | sources(run), indent=1)
    aside = folder / f"{CONFIG}.new"
    aside.write_text(config)
    aside.rename(folder / CONFIG)
    if SPECS[run.stage].exports and run.base:
        (folder / ABOUT).write_text(about_model(run.base).model_dump_json(indent=1))
    if not (folder / DATA).is_dir():
        prepare_data(run, folder)
    return folder


def sources(run: Run) -> dict[str, str]:
    """The config's source fields: local folders of models, or the name that the person gave."""
    source_of: dict[str, str] = {}
    for field in source_fields(run.stage):
        model: ModelVersion | None = getattr(run, SOURCES[field])
        if model is not None:
            source_of[field] = str(local_folder(model))
        elif SOURCES[field] == "base" and run.from_file:
            source_of[field] = str(file_of(kept_upload(run)))
        elif SOURCES[field] == "base" and run.base_name:
            source_of[field] = model_source(run.base_name, files=SPECS[run.stage].names_base)
    return source_of


def prepare_data(run: Run, folder: Path) -> None:
    """data/ is written aside and renamed, so that a folder that is there is whole."""
    aside = folder / f"{DATA}.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    snapshots = {snapshot.kind: snapshot for snapshot in run.snapshots.all()}
    for name, file in SPECS[run.stage].data.items():
        addresses = []
        if snapshot := snapshots.get(file.snapshot):
            splits = ("train", "heldout") if file.split == "all" else (file.split,)
            if name == snapshot.kind or snapshot.counts.get(file.split):
                addresses = [snapshot.files[split] for split in splits]
        elif run.corpus_run and (address := run.corpus_run.outputs.get(file.corpus_output)):
            addresses = [address]
        if addresses:
            fetch_all(addresses, aside / f"{name}.jsonl")
    aside.rename(folder / DATA)


def fetch_all(addresses: list[str], target: Path) -> None:
    """Put files of the store one after the other into one local file."""
    with target.open("wb") as whole:
        for number, address in enumerate(addresses):
            segment = target.with_suffix(f".{number}")
            fetch_file(address, segment)
            with segment.open("rb") as file:
                shutil.copyfileobj(file, whole)
            segment.unlink()


def drop_copies(run: Run) -> None:
    """After success the store has the model: its copy and the checkpoints need not fill the disk."""
    folder = folder_of(run)
    exported = [folder / OUTPUT] if SPECS[run.stage].exports else []
    for path in [folder / MODEL, *exported, *folder.glob("checkpoint-*")]:
        shutil.rmtree(path, ignore_errors=True)


def log_tail(run: Run) -> str:
    """The last lines that the training process wrote."""
    try:
        with (folder_of(run) / LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            return file.read().decode("utf-8", "replace").replace("\x00", "")
    except OSError:
        return ""


def events_file(folder: Path) -> Path:
    return folder / EVENTS


def file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def has_checkpoint(run: Run) -> bool:
    return any(folder_of(run).glob("checkpoint-*"))
