from __future__ import annotations

import importlib.util
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.toys import events, run_folder, run_here, start_child, toy_policy, turns
from training.contract import InputError


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> Path:
    return toy_policy(tmp_path_factory.mktemp("base") / "model")


def sft(folder: Path, base: Path, **changed: Any) -> Path:
    rows = [{"id": f"demonstration:{i}", "messages": turns(f"is it {i}?", "yes of course")} for i in range(40)]
    config = {
        "stage": "sft", "base": str(base), "batch_tokens": 64, "epochs": 2, "log_every": 1, "evaluate_every": 4,
        "checkpoint_every": 3, "tensorboard": True, **changed,
    }  # fmt: skip
    return run_folder(folder, config, demonstrations=rows, heldout=rows[:3])


def told(folder: Path) -> dict[str, dict[int, float]]:
    """The metric events by name and step; a step told again after a resume counts once, as told last."""
    found: dict[str, dict[int, float]] = {}
    for event in events(folder, "metric"):
        for name, value in event["values"].items():
            found.setdefault(name, {})[event["step"]] = value
    return found


def board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows of the run, repeated steps included."""
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def assert_the_same(folder: Path) -> None:
    shown, expected = board(folder), told(folder)
    assert shown.keys() == expected.keys()
    for name, points in shown.items():
        assert [step for step, _ in points] == sorted(expected[name])
        assert [value for _, value in points] == pytest.approx(list(dict(sorted(expected[name].items())).values()))


def test_tensorboard_shows_the_metrics_of_the_run(base: Any, tmp_path: Path) -> None:
    folder = sft(tmp_path, base, max_steps=4)
    run_here(folder)
    assert {"loss", "heldout_loss", "grad_norm"} <= board(folder).keys()
    assert_the_same(folder)


def test_nothing_is_written_unless_asked_for(base: Any, tmp_path: Path) -> None:
    folder = sft(tmp_path, base, max_steps=1, tensorboard=False)
    run_here(folder)
    assert not (folder / "tensorboard").exists()


@pytest.mark.parametrize("before_a_checkpoint", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_resumed_run_shows_each_step_once(base: Any, tmp_path: Path, before_a_checkpoint: Any) -> None:
    folder = sft(tmp_path, base, epochs=6, **({"checkpoint_every": 0} if before_a_checkpoint else {}))
    with start_child(folder) as child:
        while child.poll() is None and not ((folder / "events.jsonl").exists() and len(events(folder, "metric")) > 7):
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
    run_here(folder)
    steps = [event["step"] for event in events(folder, "metric")]
    assert len(steps) > len(set(steps))  # some were told twice, so there was something to leave out
    assert_the_same(folder)


def test_a_missing_package_is_told_before_anything_starts(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(InputError, match="the package tensorboard is not installed"):
        run_here(sft(tmp_path, base))
