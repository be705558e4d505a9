"""A judge of the project, at an endpoint that the test decides for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from tests import factories
from tests.judges.fake import FakeEndpoint, Judgment, Said, prefers
from webapp.accounts.models import Project
from webapp.judges.models import Judge
from webapp.judges.services import add_judge
from webapp.registry.artefacts import hashes_of, publish_folder
from webapp.runs.models import Run


@pytest.fixture(autouse=True)
def places(data_folders: Path) -> Path:
    return data_folders


@pytest.fixture
def endpoint_of(settings: LazySettings) -> Iterator[Callable[[Judgment], FakeEndpoint]]:
    made: list[FakeEndpoint] = []

    def start(judgment: Judgment) -> FakeEndpoint:
        made.append(FakeEndpoint(judgment))
        settings.JUDGE_HOSTS = [endpoint.host for endpoint in made]
        return made[-1]

    yield start
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def by_length(endpoint_of: Callable[[Judgment], FakeEndpoint]) -> FakeEndpoint:
    """Prefers the longer reply, and takes long enough that the next question comes meanwhile."""

    def judge(question: str, number: int) -> Said:
        said = prefers(len)(question, number)
        said.seconds = 0.05
        return said

    return endpoint_of(judge)


def judge_at(endpoint: FakeEndpoint, project: Project, **fields: Any) -> Judge:
    values = {"name": "Big judge", "model": "big", "mode": "pairwise", "rubric": "Be right.", "parallel": 2}
    return add_judge(
        project=project, by=project.created_by, **{**values, "address": endpoint.address, "key": "sk-secret", **fields}
    )


def evaluate_run(project: Project, replies: list[tuple[str, str]], baseline: bool = True, **fields: Any) -> Run:
    """An evaluate run with its replies: (policy's, baseline's) to one prompt each."""
    first = project.prompts.count()
    prompts = [factories.prompt(project, f"Question {number}?") for number in range(first, first + len(replies))]
    with tempfile.TemporaryDirectory() as folder:
        for at, name in enumerate(("samples.jsonl", "baseline.jsonl")[: 1 + baseline]):
            rows = [sample(prompt, pair[at]) for prompt, pair in zip(prompts, replies, strict=True)]
            (Path(folder) / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = hashes_of(Path(folder))
        address = publish_folder(Path(folder), folder_name="outputs", files=files)
    outputs = {name: f"{address}/{name}" for name in files}
    return factories.run(project, "evaluate", outputs=outputs, state=Run.State.SUCCEEDED, **fields)


def sample(prompt: Any, reply: str) -> dict[str, Any]:
    row = {"id": f"prompt:{prompt.pk}#0", "prompt_id": f"prompt:{prompt.pk}", "messages": prompt.messages}
    return row | {"reply": reply, "tokens": 3, "finish": "stop", "logprob": -1.0}
