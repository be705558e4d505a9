"""Logging to experiment trackers. A module of the test's own stands in for wandb through the calls that it documents;
tests of the real packages are left out where they are not installed (pip install tutelage[tracking])."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.stages.test_reward import rankings
from tests.training.toys import events, run_folder, run_here, start_child, toy_policy, turns
from training.contract import EvaluateSettings, InputError, SFTSettings, TrainingError
from training.run import tracking
from training.run.trackers import without_secrets

FAKE = """
import json, os, time, types

BOOK, TROUBLE = os.environ["FAKE_BOOK"], os.environ.get("FAKE_TROUBLE", "")

def write(kind, **values):
    with open(BOOK, "a") as book:
        book.write(json.dumps({"kind": kind, **values}) + "\\n")

class Settings(types.SimpleNamespace):
    pass

class FakeRun:
    def __init__(self, identity):
        self.url = "https://name:secret@wandb.example/p/runs/" + identity
        self.settings = Settings(mode="online")
        self.logged = 0
    def define_metric(self, *names, **settings): ...
    def log(self, values):
        self.logged += 1
        if TROUBLE == "log" and self.logged % 2:
            raise ConnectionError("https://name:secret@wandb.example refused the key " + os.environ["WANDB_API_KEY"])
        if TROUBLE == "hang":
            time.sleep(60)
        write("log", **values)
    def finish(self, exit_code=0):
        write("finish", exit_code=exit_code)

def init(*, project, id, name, dir, config, resume, settings):
    if TROUBLE == "start":
        raise RuntimeError("No API key configured.\\nUse wandb login")
    write("init", project=project, id=id, name=name, config=config, resume=resume)
    return FakeRun(id)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> Path:
    return toy_policy(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A wandb that notes its calls in this file."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "fake")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))  # for children
    monkeypatch.setenv("FAKE_BOOK", str(tmp_path / "book.jsonl"))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "wandb"}
    yield tmp_path / "book.jsonl"
    sys.modules.pop("wandb", None)
    sys.modules.update(real)


def noted(book: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in book.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def sft(folder: Path, base: Path, **changed: Any) -> Path:
    rows = [{"id": f"demonstration:{i}", "messages": turns(f"is it {i}?", "yes of course")} for i in range(40)]
    config = {
        "stage": "sft", "base": str(base), "batch_tokens": 64, "max_steps": 6, "log_every": 1, "evaluate_every": 4,
        "checkpoint_every": 3, "report_to": ["wandb"], **changed,
    }  # fmt: skip
    return run_folder(folder, config, demonstrations=rows, heldout=rows[:3])


def told(folder: Path) -> dict[tuple[str, int], float]:
    return {(name, e["step"]): value for e in events(folder, "metric") for name, value in e["values"].items()}


def logged(book: Path) -> list[tuple[str, int]]:
    return [
        (name, line["step"])
        for line in noted(book, "log")
        for name in line
        if name not in ("kind", "step", "_timestamp")
    ]


def test_every_figure_is_logged_with_the_settings_and_the_page_is_told(base: Path, tmp_path: Path, book: Path) -> None:
    folder = sft(tmp_path / "run-7", base, report_project="kites")
    result = run_here(folder)
    assert set(logged(book)) == set(told(folder))
    (begun,) = noted(book, "init")
    assert (begun["project"], begun["name"], begun["config"]["batch_tokens"]) == ("kites", "run-7", 64)
    assert noted(book, "finish") == [{"kind": "finish", "exit_code": 0}]
    (page,) = events(folder, "tracked")
    assert (page["tracker"], page["url"]) == ("wandb", f"https://wandb.example/p/runs/{begun['id']}")
    assert events(folder)[-1]["type"] == "done"
    assert not [name for name in result["counts"] if name.startswith("not_logged")]


def test_what_trl_trains_is_logged_too(base: Path, tmp_path: Path, book: Path) -> None:
    config = {
        "stage": "dpo", "policy": str(base), "max_steps": 3, "batch_tokens": 1000, "log_every": 1, "evaluate_every": 0,
        "report_to": "wandb",
    }  # fmt: skip
    folder = run_folder(tmp_path / "run", config, rankings=rankings(20, 1))
    run_here(folder)
    assert ("rewards/margins", 3) in logged(book)
    assert set(logged(book)) == set(told(folder))


@pytest.mark.parametrize("before_a_checkpoint", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_in_the_same_logged_run(
    base: Path, tmp_path: Path, book: Path, before_a_checkpoint: Any
) -> None:
    changed = {"checkpoint_every": 0} if before_a_checkpoint else {}
    folder = sft(tmp_path / "run", base, max_steps=40, epochs=40, **changed)
    with start_child(folder) as child:
        while child.poll() is None and not (book.exists() and len(noted(book, "log")) > 7):
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
    run_here(folder)
    first, second = noted(book, "init")
    assert (first["id"], first["name"]) == (second["id"], second["name"])
    assert len(events(folder, "metric")) > len({e["step"] for e in events(folder, "metric")})  # some are told twice
    assert len(logged(book)) == len(set(logged(book)))
    # What a kill caught on its way there is all that may be missing.
    assert set(told(folder)) >= set(logged(book))
    assert len(set(told(folder)) - set(logged(book))) <= 12


def test_a_tracker_that_is_added_later_gets_what_was_told_before(base: Path, tmp_path: Path, book: Path) -> None:
    folder = sft(tmp_path / "run", base, max_steps=60, epochs=40, report_to=[], checkpoint_every=0)
    with start_child(folder) as child:
        while child.poll() is None and not ((folder / "events.jsonl").exists() and len(events(folder, "metric")) > 4):
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 143
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "report_to": ["wandb"]}))
    run_here(folder)
    assert set(logged(book)) == set(told(folder))


def test_a_tracker_that_fails_is_warned_of_once_and_counted(
    base: Path, tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TROUBLE", "log")
    folder = sft(tmp_path / "run", base)
    result = run_here(folder)
    warnings = [e["message"] for e in events(folder, "warning")]
    assert len(warnings) == 1
    assert warnings[0].startswith("Weights & Biases: https://wandb.example refused the key ***; the run goes on")
    points = len(events(folder, "metric"))
    assert result["counts"]["not_logged/wandb"] == points - len(noted(book, "log")) > 0


def test_a_tracker_that_does_not_start_ends_nothing(
    base: Path, tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TROUBLE", "start")
    folder = sft(tmp_path / "run", base)
    result = run_here(folder)
    assert [e["message"] for e in events(folder, "warning")] == [
        "Weights & Biases: No API key configured; the run goes on, and counts what is not logged there"
    ]
    assert result["counts"]["not_logged/wandb"] == len(events(folder, "metric"))
    monkeypatch.setenv("FAKE_TROUBLE", "")


def test_a_tracker_that_hangs_is_left_behind(
    base: Path, tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TROUBLE", "hang")
    monkeypatch.setattr(tracking, "END_SECONDS", 0.2)
    folder = sft(tmp_path / "run", base)
    result = run_here(folder)
    assert "it does not answer" in events(folder, "warning")[-1]["message"]
    assert result["counts"]["not_logged/wandb"] == len(events(folder, "metric"))


def test_a_failed_run_is_logged_as_failed(base: Path, tmp_path: Path, book: Path) -> None:
    with pytest.raises(InputError):
        run_here(sft(tmp_path / "early", base, min_rows=1000))
    assert not book.exists()  # it told no figure, so there is nothing to show
    folder = sft(tmp_path / "late", base, learning_rate=1.0, max_steps=60, epochs=60, grad_clip=0)
    (folder / "model").write_text("in the way of the model that is saved last")
    with pytest.raises(TrainingError):
        run_here(folder)
    assert noted(book, "finish") == [{"kind": "finish", "exit_code": 1}]


def test_a_missing_package_is_refused_before_anything_starts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="report_to: wandb and trackio cannot be imported here; install it with pip"):
        run_here(sft(tmp_path, base, report_to="wandb, trackio"))


def test_trackers_are_named_by_a_list_or_as_on_command_lines() -> None:
    for value, expected in (("none", []), ("mlflow,trackio", ["mlflow", "trackio"]), (["wandb"], ["wandb"])):
        assert SFTSettings(report_to=value).report_to == expected
    assert EvaluateSettings(report_to="wandb").report_to == ["wandb"]
    with pytest.raises(ValueError, match="comet"):
        SFTSettings(report_to=["comet"])


def test_names_and_passwords_are_taken_out_of_what_trackers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    said = "https://ann:pw@mlflow.example/api said no to correct horse"
    assert without_secrets(said) == "https://mlflow.example/api said no to ***"


# ---------------------------------------------------------------------------------------------------- the real packages


def stopped_and_resumed(folder: Path) -> None:
    with start_child(folder) as child:
        while child.poll() is None and not ((folder / "events.jsonl").exists() and len(events(folder, "metric")) > 4):
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        child.communicate()
        assert child.returncode == 143
    with start_child(folder) as child:
        output, _ = child.communicate()
        assert child.returncode == 0, output


def assert_no_secret(folder: Path, secret: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_mlflow_has_the_curves_of_a_resumed_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse-battery")
    folder = sft(tmp_path / "run", base, report_to="mlflow", max_steps=60, epochs=60)
    stopped_and_resumed(folder)
    assert "mlflow ui" in events(folder, "tracked")[-1]["note"]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tutelage").experiment_id])
    assert (run.info.status, run.data.params["batch_tokens"]) == ("FINISHED", "64")
    curve = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")]
    assert sorted(curve) == sorted((step, value) for (name, step), value in told(folder).items() if name == "loss")
    assert_no_secret(folder, "correct-horse-battery")


def test_trackio_has_the_curves_of_a_resumed_run(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    folder = sft(tmp_path / "run", base, report_to="trackio", max_steps=60, epochs=60)
    stopped_and_resumed(folder)
    assert "trackio show" in events(folder, "tracked")[-1]["note"]
    import sqlite3

    with sqlite3.connect(folder / "trackio" / "tutelage.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    curve = [(step, values["loss"]) for _, step, text in rows if "loss" in (values := json.loads(text))]
    assert sorted(curve) == sorted((step, value) for (name, step), value in told(folder).items() if name == "loss")


def test_weights_and_biases_takes_a_resumed_run_offline(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    folder = sft(tmp_path / "run", base, report_to="wandb", max_steps=60, epochs=60)
    stopped_and_resumed(folder)
    assert "wandb sync wandb/offline-run-" in events(folder, "tracked")[-1]["note"]
    written = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(written) == 2
    assert len({path.name for path in written}) == 1  # one identity
    assert not events(folder, "warning")
    assert "not_logged/wandb" not in json.loads((folder / "result.json").read_text())["counts"]
    assert_no_secret(folder, "0123456789" * 4)
