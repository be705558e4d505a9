"""Runs for real: a store and run folders of the test's own, and tiny rows that train in a second or two."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from webapp.accounts.models import Project
from webapp.runs.execution import execute
from webapp.runs.models import Run, Snapshot
from webapp.runs.services import NewDocument, add_documents, create_corpus, create_snapshot, launch_run

THINGS = ["kite", "boat", "lamp", "tree", "stone", "river", "bird", "drum"]
COLOURS = ["red", "blue", "green", "white", "brown", "grey"]
SMALL = {"layers": 1, "hidden": 32, "heads": 2, "context": 64, "batch_tokens": 256, "micro_tokens": 256, "threads": 1}


@pytest.fixture(autouse=True)
def places(settings: LazySettings, tmp_path: Path) -> Path:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    settings.RUNS_FOLDER = tmp_path / "runs"
    return tmp_path


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different lines of a tiny language."""
    draw = random.Random(seed)
    lines: dict[str, None] = {}
    while len(lines) < count:
        words = [
            f"The {draw.choice(COLOURS)} {draw.choice(THINGS)} is near the {draw.choice(THINGS)}." for _ in range(4)
        ]
        lines[" ".join(words)] = None
    return list(lines)


@pytest.fixture
def done(transactional_db: None, project: Project) -> Callable[..., Run]:
    """`done("sft", snapshots=[…], …)`: launch a run and see it through, here and to its end."""

    def launched(stage: str, **inputs: Any) -> Run:
        run = launch_run(project=project, stage=stage, by=project.created_by, **inputs)
        assert execute(run.pk)
        run.refresh_from_db()
        return run

    return launched


@pytest.fixture
def text(transactional_db: None, project: Project) -> Snapshot:
    """A snapshot of a corpus of 60 small documents."""
    corpus = create_corpus(project=project, name="Lines", by=project.created_by)
    add_documents(corpus=corpus, documents=[NewDocument(line) for line in sentences(60)])
    return create_snapshot(project=project, kind="documents", by=project.created_by)


@pytest.fixture
def corpus_run(done: Callable[..., Run], text: Snapshot) -> Run:
    run = done("corpus", snapshots=[text], config={"near_duplicates": 1.0, "heldout_fraction": 0.1})
    assert run.state == Run.State.SUCCEEDED, run.error
    return run


@pytest.fixture
def tokenizer_run(done: Callable[..., Run], corpus_run: Run) -> Run:
    run = done("tokenizer", corpus_run=corpus_run, config={"vocabulary": 320, "context": 128})
    assert run.state == Run.State.SUCCEEDED, run.error
    return run


@pytest.fixture
def pretrained(done: Callable[..., Run], corpus_run: Run, tokenizer_run: Run) -> Run:
    """A base model after a few steps; the loop's first three stages stand behind it."""
    run = done("pretrain", corpus_run=corpus_run, tokenizer=tokenizer_run.output, config=SMALL | {"max_steps": 4})
    assert run.state == Run.State.SUCCEEDED, run.error
    return run
