"""python -m training STAGE RUN_DIR: exit statuses and sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.toys import PROJECT, events, run_folder, toy_policy, turns
from training.__main__ import main
from training.run.opening import open_run

ROWS = [{"id": str(i), "text": "the cat sat on the mat and the dog sat on the log"} for i in range(3)]


def test_a_config_with_an_unknown_key_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "pretrain", "tokenizer": "t", "layerz": 3}, corpus=ROWS)
    code = "import sys; from training.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    child = subprocess.run(
        [sys.executable, "-c", code, "pretrain", str(folder)], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert child.stdout == "2 False\n"
    assert "layerz: is not a known setting" in child.stderr
    assert "Traceback" not in child.stderr
    assert "layerz" in events(folder, "failed")[0]["message"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: there is no such run folder" in capsys.readouterr().err


def test_a_folder_without_a_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", str(tmp_path)]) == 2
    assert "there is no config.json" in capsys.readouterr().err


def test_the_config_of_another_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", str(run_folder(tmp_path, {"stage": "tokenizer"}))]) == 2
    assert "this is a tokenizer run, not corpus" in capsys.readouterr().err


def test_a_run_that_another_process_works_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path, {"stage": "corpus"})
    with open_run(folder):
        assert main(["corpus", str(folder)]) == 2
    assert "another process is working on this run" in capsys.readouterr().err
    assert events(folder) == []


def test_a_finished_run_is_not_done_twice(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "corpus", "min_chars": 0, "near_duplicates": 1}, documents=ROWS)
    assert main(["corpus", str(folder)]) == 0
    result = (folder / "result.json").read_bytes()
    assert main(["corpus", str(folder)]) == 0
    assert (folder / "result.json").read_bytes() == result
    assert len(events(folder, "done")) == 1


def test_an_unforeseen_error_shows_its_trace_in_the_log_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path, {"stage": "corpus"}, documents=ROWS)
    (folder / "output.partial").mkdir()
    (folder / "output").write_text("a file where a folder has to be")
    assert main(["corpus", str(folder)]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "internal error" in shown
    assert json.dumps(events(folder, "failed")[0]["message"])[1:30] in shown


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"port": 8301, "models": {}}, 'stage: it is missing; say what the settings are of, as in "stage": "serve"'),
        ({"stage": "server"}, "stage: there is no 'server'; the stages are corpus, tokenizer,"),
    ],
)
def test_a_config_without_a_stage_says_what_to_add(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, object], sentence: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["serve", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_recipe_fills_in_what_the_config_leaves_out(tmp_path: Path) -> None:
    policy = toy_policy(tmp_path / "model")
    rows = [{"id": f"demonstration:{n}", "messages": turns("Why?", "the cat sat on the mat")} for n in range(4)]
    folder = run_folder(
        tmp_path / "run", {"stage": "sft", "base": str(policy), "epochs": 1, "precision": "fp32"}, demonstrations=rows
    )
    assert main(["sft", str(folder), "--recipe", "laptop-135m"]) == 0
    warned = [event["message"] for event in events(folder, "warning")]
    assert any("135M on a laptop" in message for message in warned)
    rates = [event["values"].get("learning_rate", 0) for event in events(folder, "metric")]
    assert 0 < max(rates) <= 2e-5, "the toy's own default is 3e-4"


def test_an_unknown_recipe_is_refused_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sft", str(tmp_path), "--recipe", "phone"])
    assert "laptop-135m" in capsys.readouterr().err
