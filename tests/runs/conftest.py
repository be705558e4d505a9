"""Runs for real: a store and run folders of the test's own, and tiny rows that train in a second or two."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.datasets.services import NewDocument, add_documents, create_corpus, create_snapshot
from webapp.home_folder import ROOT
from webapp.registry.models import ModelVersion
from webapp.registry.services import register_model
from webapp.runs.execution import execute
from webapp.runs.models import Run
from webapp.runs.services import launch_run

THINGS = ["kite", "boat", "lamp", "tree", "stone", "river", "bird", "drum"]
COLORS = ["red", "blue", "green", "white", "brown", "gray"]
SMALL = {"layers": 1, "hidden": 32, "heads": 2, "context": 64, "batch_tokens": 256, "micro_tokens": 256, "threads": 1}


@pytest.fixture(autouse=True)
def places(data_folders: Path) -> Path:
    return data_folders


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different lines of a tiny language."""
    draw = random.Random(seed)
    lines: dict[str, None] = {}
    while len(lines) < count:
        words = [
            f"The {draw.choice(COLORS)} {draw.choice(THINGS)} is near the {draw.choice(THINGS)}." for _ in range(4)
        ]
        lines[" ".join(words)] = None
    return list(lines)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `corpus.jsonl`, `tokenizer/` and `base/`, made once by the stages' own command line."""
    top = tmp_path_factory.mktemp("trained")
    lines = [{"id": f"document:{number}", "text": line} for number, line in enumerate(sentences(60), 1)]
    (top / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for stage, name, config in (
        ("tokenizer", "tokenizer", {"vocabulary": 320, "context": 128, "threads": 1}),
        ("pretrain", "base", SMALL | {"max_steps": 2, "tokenizer": str(top / "tokenizer")}),
    ):
        folder = top / f"{name}-run"
        (folder / "data").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"stage": stage} | config))
        shutil.copy(top / "corpus.jsonl", folder / "data")
        subprocess.run([sys.executable, "-m", "training", stage, str(folder)], check=True, cwd=ROOT)
        (folder / "model").rename(top / name)
    return top


@pytest.fixture
def tokenizer(trained: Path, project: Project) -> ModelVersion:
    return register_model(
        project=project,
        name="bpe",
        kind="tokenizer",
        stage="tokenizer",
        by=project.created_by,
        folder=trained / "tokenizer",
    )


@pytest.fixture
def base(trained: Path, project: Project) -> ModelVersion:
    """A language model that has learned next to nothing."""
    return register_model(
        project=project, name="base", kind="full", stage="pretrain", by=project.created_by, folder=trained / "base"
    )


@pytest.fixture
def cleaned(trained: Path, project: Project) -> Run:
    """A corpus run that is done, with its text."""
    outputs = {"corpus.jsonl": f"file://{trained}/corpus.jsonl"}
    return factories.run(project, "corpus", state=Run.State.SUCCEEDED, outputs=outputs)


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
