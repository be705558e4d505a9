"""Every setting of every stage does something that can be measured, or is refused with a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
import uvicorn
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.testclient import TestClient
from torch import Tensor

from tests.training.export.hub_server import WRITER, Hub
from tests.training.export.test_pushing import hub  # noqa: F401 - a fixture
from tests.training.run.test_tracking import book  # noqa: F401 - a fixture
from tests.training.stages.settings_cases import BASELINES, CASES, DATA, Case, has_all_settings
from tests.training.toys import (
    foreign_policy,
    foreign_tokenizer,
    run_folder,
    run_here,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.__main__ import run_stage
from training.contract import SPECS, InputError, LoraSettings
from training.contract.proposals import nested
from training.engine import Engine
from training.engine.kv_budget import KVBudget
from training.models.compute import Compute
from training.preferences.reward_model import reward_from_language_model, save_reward
from training.serve import pool
from training.stages.tokenizer import THREADS

# a warning of the hub's own client about how it calls its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")

CPU = Compute(torch.device("cpu"), torch.float32)
ECHOES = {"config.json", "adapter_config.json", "README.md"}  # files that repeat settings, whatever these did


class Surroundings(NamedTuple):
    """What a run reaches outside its folder."""

    hub: Hub
    tracked: Path  # the calls of a tracker

    def seen(self) -> dict[str, Any]:
        """What has come there; it is forgotten with that."""
        lines = self.tracked.read_text().splitlines() if self.tracked.exists() else []
        self.tracked.unlink(missing_ok=True)
        projects = [call["project"] for call in map(json.loads, lines) if call["kind"] == "init"]
        pushed = {name: sorted(files) for name, files in self.hub.repositories.items()}
        private = dict(self.hub.private)
        self.hub.repositories.clear()
        self.hub.private.clear()
        return {"calls": len(lines), "projects": projects, "pushed": pushed, "private": private}


@pytest.fixture
def surroundings(hub: Hub, book: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:  # noqa: F811
    """A hub and a tracker on this machine, and no bitsandbytes."""
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    return Surroundings(hub, book)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models by the names that the cases give them."""
    folder = tmp_path_factory.mktemp("sources")
    places = {"MODEL": str(toy_policy(folder / "model", hidden=16))}
    places["TWIN"] = str(toy_policy(folder / "twin", seed=1, hidden=16))
    tokenizer = toy_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    places["TOKENIZER"] = str(folder / "tokenizer")
    places["BARE"] = str(foreign_policy(folder / "bare", foreign_tokenizer(None)))
    for seed, name in enumerate(("REWARD", "OTHER REWARD")):
        torch.manual_seed(seed)
        _, model = reward_from_language_model(places["MODEL"], CPU, LoraSettings())
        torch.nn.init.normal_(model.head.weight)
        save_reward(model, tokenizer, folder / name, {"max_tokens": 64, "temperature": 1.0})
        places[name] = str(folder / name)
    return places


def named(value: Any, sources: dict[str, str]) -> Any:
    """With the folders of models in place of their names."""
    if isinstance(value, dict):
        return {name: named(below, sources) for name, below in value.items()}
    if isinstance(value, list):
        return [named(below, sources) for below in value]
    return sources.get(value, value) if isinstance(value, str) else value


def source_settings(stage: str) -> dict[str, Any]:
    fields = SPECS[stage].settings.model_fields
    wanted = {"base": "MODEL", "policy": "MODEL", "reward": "function:digits", "tokenizer": "TOKENIZER"}
    if stage == "pretrain":
        del wanted["base"]
    return {name: source for name, source in wanted.items() if name in fields}


def run_with(
    folder: Path, stage: str, settings: dict[str, Any], sources: dict[str, str], surroundings: Surroundings
) -> dict[str, Any]:
    config = named({"stage": stage, **source_settings(stage), **nested(settings)}, sources)
    run_folder(folder, config, **DATA[stage])
    with one_thread(), counted_activations() as kept:
        result = run_here(folder)
        threads = {"torch": torch.get_num_threads(), "tokenizers": os.environ[THREADS]}
    return measured(folder, result) | surroundings.seen() | {"kept": sum(kept), "threads": threads}


@contextmanager
def one_thread() -> Iterator[None]:
    """Where a run does not say otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(THREADS, "1")
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(1)


@contextmanager
def counted_activations() -> Iterator[list[int]]:
    """Bytes of each tensor that passes keep for the gradient."""
    kept: list[int] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.nbytes)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield kept


def measured(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """What came of a run, without its times and without what only repeats its settings."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    kept = {
        "events": [without_times(event) for event in events if event["type"] not in ("progress", "tracked")],
        "entries": sorted(path.name for path in folder.iterdir() if path.name != "tracking.json"),
        "result": without_times({name: result[name] for name in ("metrics", "intervals", "counts", "device", "model")}),
    }
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return kept | {
        name: digest(path)
        for name, path in sorted(files.items())
        if name.startswith(("model/", "output/")) and path.name not in ECHOES
    }


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: without_times(below)
            for name, below in value.items()
            if name not in ("time", "eta", "seconds")
            and not name.startswith("time/")
            and not any(part in name for part in ("per_second", "step_time"))
        }
    return [without_times(below) for below in value] if isinstance(value, list) else value


def digest(path: Path) -> str:
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        content = b"".join(name.encode() + tensor.float().numpy().tobytes() for name, tensor in sorted(tensors.items()))
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


Baselines = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def baselines() -> Baselines:
    return {}


def parameters() -> list[Any]:
    return [
        pytest.param(stage, name, case, id=f"{stage}-{name}", marks=[pytest.mark.slow] if case.slow else [])
        for stage, cases in CASES.items()
        if stage != "serve"
        for name, case in cases.items()
    ]


def served(
    folder: Path, settings: dict[str, Any], sources: dict[str, str], patch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the model server with these settings does, asked a few things in place of waiting for requests."""
    seen: dict[str, Any] = {}

    def ask(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        host, port = sockets[0].getsockname()
        seen["address"] = host, port if settings["port"] else "any"
        sockets[0].close()
        with TestClient(cast("Starlette", server.config.app)) as client:
            seen["models"] = [model["id"] for model in client.get("/v1/models").json().get("data", [])]
            seen["weights"] = client.get("/v1/models/toy").json().get("weights")
            asked = {"model": "toy", "messages": turns("the cat"), "seed": 1}
            seen["reply"] = client.post("/v1/chat/completions", json=asked).json().get("usage")

    patch.setattr(uvicorn.Server, "run", ask)
    patch.setattr(pool.log, "warning", lambda *words: seen.setdefault("warnings", []).append(words[0]))
    made = record_calls(patch)
    config = named({"stage": "serve", **nested(settings)}, sources)
    with one_thread():
        run_stage("serve", run_folder(folder, config))
        seen["threads"] = torch.get_num_threads()
    return seen | made


def record_calls(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How many replies the engines generate at once, and how much their keys and values may take."""
    made: dict[str, Any] = {"slots": [], "limit": []}
    engine, budget = Engine.__init__, KVBudget.__init__

    def make_engine(self: Any, *arguments: Any, **named_arguments: Any) -> None:
        made["slots"].append(named_arguments["slots"])
        engine(self, *arguments, **named_arguments)

    def make_budget(self: Any, device: torch.device, limit: int | None = None) -> None:
        made["limit"].append(limit)
        budget(self, device, limit)

    patch.setattr(Engine, "__init__", make_engine)
    patch.setattr(KVBudget, "__init__", make_budget)
    return made


@pytest.mark.parametrize("stage", SPECS)
def test_every_setting_has_its_case(stage: str) -> None:
    assert not has_all_settings(stage, SPECS[stage].settings)


@pytest.mark.parametrize(("stage", "name", "case"), parameters())
def test_another_value_of_a_setting_is_seen_or_refused(
    stage: str, name: str, case: Case, sources: dict[str, str], baselines: Baselines,
    surroundings: Surroundings, tmp_path: Path,
) -> None:  # fmt: skip
    beside = BASELINES[stage] | dict(case.beside)
    if case.refused:
        with pytest.raises(InputError, match=case.refused):
            run_with(tmp_path / "changed", stage, beside | {name: case.value}, sources, surroundings)
        return
    key = json.dumps([stage, beside])
    if key not in baselines:
        baselines[key] = run_with(tmp_path / "run", stage, beside, sources, surroundings)
    changed = run_with(tmp_path / "changed", stage, beside | {name: case.value}, sources, surroundings)
    assert changed != baselines[key], f"{stage}: {name} changes nothing"


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(stage, marks=[] if stage in ("tokenizer", "sft", "ppo") else [pytest.mark.slow])
        for stage in SPECS
        if stage != "serve"
    ],
)
def test_the_same_settings_give_the_same(
    stage: str, sources: dict[str, str], surroundings: Surroundings, tmp_path: Path
) -> None:
    """Else the test above could not fail."""
    first, again = (run_with(tmp_path / name / "run", stage, BASELINES[stage], sources, surroundings) for name in "ab")
    assert first == again


@pytest.mark.parametrize("name", CASES["serve"])
def test_another_value_of_a_setting_of_the_server_is_seen_or_refused(
    name: str, sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["serve"][name]
    beside = BASELINES["serve"] | dict(case.beside)
    if case.refused:
        with pytest.raises(InputError, match=case.refused):
            served(tmp_path / "changed", beside | {name: case.value}, sources, monkeypatch)
        return
    usual = served(tmp_path / "usual", beside, sources, monkeypatch)
    monkeypatch.undo()
    assert served(tmp_path / "changed", beside | {name: case.value}, sources, monkeypatch) != usual
