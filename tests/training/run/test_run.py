"""The run folder: what is read, what is written, and what a bad day leaves behind.

Over 300 lines: it covers the whole contract of the run folder.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tests.training.toys import PROJECT, events, run_folder, turns
from training.contract import (
    DemonstrationRow,
    InputError,
    PromptRow,
    Result,
    TextRow,
    TrainingError,
)
from training.run.durable import file_sha256
from training.run.events import EventLog
from training.run.failures import explain
from training.run.opening import open_run

TEXT = {"id": "a", "text": "one"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run", {"stage": "pretrain", "tokenizer": "t"}, corpus=[TEXT])


def write_data(folder: Path, name: str, content: bytes) -> None:
    (folder / "data" / f"{name}.jsonl").write_bytes(content)


# ------------------------------------------------------------------------------------------------------------- rows


def test_a_wrong_row_is_named_by_file_line_and_field(tmp_path: Path) -> None:
    good = {"id": "1", "messages": turns("q", "a")}
    folder = run_folder(
        tmp_path, {"stage": "sft"}, demonstrations=[good, {"id": "2", "messages": turns("q")}, {"id": "3"}]
    )
    with pytest.raises(InputError) as caught, open_run(folder) as run:
        run.rows("demonstrations", DemonstrationRow)
    second, third = caught.value.message.splitlines()
    assert "demonstrations.jsonl:2: messages" in second
    assert "demonstrations.jsonl:3: messages: this is missing; give a list of" in third
    assert caught.value.exit_status == 2


def test_a_row_with_an_unknown_field_is_refused(folder: Path) -> None:
    write_data(folder, "corpus", b'{"id": "a", "text": "one", "color": "red"}\n')
    with pytest.raises(InputError, match=r"corpus.jsonl:1: color"), open_run(folder) as run:
        run.rows("corpus", TextRow)


def test_a_needed_file_that_is_missing_is_named_and_an_optional_one_is_empty(folder: Path) -> None:
    (folder / "data" / "corpus.jsonl").unlink()
    with open_run(folder) as run:
        assert run.rows("heldout", TextRow) == []
    with pytest.raises(InputError, match=r"corpus\.jsonl: this file is missing"), open_run(folder) as run:
        run.rows("corpus", TextRow)


def test_too_few_rows_are_counted_in_the_sentence(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "ppo"}, prompts=[{"id": "1", "messages": turns("q")}] * 3)
    with pytest.raises(InputError) as caught, open_run(folder) as run:
        run.rows("prompts", PromptRow, at_least=20)
    assert caught.value.message == "ppo: 3 prompts in the snapshot, at least 20 are needed"
    assert events(folder, "failed")[0]["code"] == "too_few_rows"


def test_nul_characters_are_removed_with_a_warning_and_an_escaped_backslash_stays(folder: Path) -> None:
    write_data(folder, "corpus", b'{"id": "a", "text": "x"}\n{"id": "b", "text": "o\\u0000n\0e\\\\u0000"}\n')
    with open_run(folder) as run:
        rows = run.rows("corpus", TextRow)
    assert [row.text for row in rows] == ["x", "one\\u0000"]
    assert "removed NUL characters from 1 rows, the first on line 2" in events(folder, "warning")[0]["message"]


def test_a_byte_order_mark_and_empty_lines_are_passed_over(folder: Path) -> None:
    write_data(folder, "corpus", b'\xef\xbb\xbf{"id": "a", "text": "one"}\n\n  \n{"id": "b", "text": "two"}')
    with open_run(folder) as run:
        assert [row.id for row in run.rows("corpus", TextRow)] == ["a", "b"]


# ----------------------------------------------------------------------------------------------------------- events


def test_a_line_torn_by_a_kill_is_cut_off_at_the_next_opening(folder: Path) -> None:
    with open_run(folder) as run:
        run.warn("first")
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"time": 1, "type": "metr')
    with open_run(folder) as run:
        run.warn("second")
    assert [event["message"] for event in events(folder)] == ["first", "second"]


def test_a_torn_line_longer_than_a_block_is_cut_off_too(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"whole": 1}\n' + "x" * 200_000)
    EventLog(path).close()
    assert path.read_text() == '{"whole": 1}\n'


def test_progress_is_told_twice_a_second_at_most_and_says_how_long_is_left(folder: Path) -> None:
    ticks = count(100, 0.1)
    with open_run(folder, clock=lambda: next(ticks)) as run:
        for step in range(1, 41):
            run.progress(step, 40, "training")
    told = events(folder, "progress")
    assert 5 <= len(told) <= 10
    assert told[0]["step"] == 1
    assert told[-1]["step"] == 40
    halfway = next(event for event in told if event["step"] >= 20)
    assert halfway["eta"] == pytest.approx((40 - halfway["step"]) * 0.1)


def test_a_figure_that_is_no_number_is_left_out_with_a_warning(folder: Path) -> None:
    with open_run(folder) as run:
        run.metric(3, {"loss": float("nan"), "kl": 0.5})
    assert events(folder, "metric")[0]["values"] == {"kl": 0.5}
    assert "loss" in events(folder, "warning")[0]["message"]


def test_an_error_becomes_a_failed_event_with_its_sentence(folder: Path) -> None:
    with pytest.raises(TrainingError), open_run(folder):
        raise TrainingError("the sea is dry", code="dry")
    assert [(event["message"], event["code"]) for event in events(folder, "failed")] == [("the sea is dry", "dry")]


def test_an_unforeseen_error_is_told_with_its_type(folder: Path) -> None:
    with pytest.raises(TrainingError) as caught, open_run(folder):
        raise ZeroDivisionError("by zero")
    assert caught.value.code == "internal"
    assert "ZeroDivisionError: by zero" in events(folder, "failed")[0]["message"]


def test_a_full_disk_gets_a_sentence_even_where_the_event_cannot_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "events.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="is full: free some space") as caught, open_run(folder) as run:
        run.warn("anything")
    assert caught.value.code == "disk_full"
    assert "No space left" in capsys.readouterr().err


def test_a_full_disk_is_seen_behind_the_errors_of_libraries(folder: Path) -> None:
    error = RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)")
    assert explain(error, folder).code == "disk_full"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_a_write_that_was_refused_without_a_reason_gets_a_sentence(folder: Path, error: Exception) -> None:
    told = explain(error, folder)
    assert told.message.startswith(f"a file could not be written to {folder}: its disk is full, or a quota or a limit")
    assert told.code == "disk_full"


def test_memory_that_runs_out_gets_a_sentence(folder: Path) -> None:
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
    assert "lower micro_tokens" in explain(error, folder).message


# ------------------------------------------------------------------------------------------------------------- lock


def test_a_second_process_is_refused_and_touches_nothing(folder: Path) -> None:
    with open_run(folder):
        before = sorted(folder.rglob("*"))
        with pytest.raises(InputError, match="another process is working on this run"), open_run(folder):
            pass
        assert sorted(folder.rglob("*")) == before
        assert events(folder) == []


def test_a_killed_process_leaves_no_lock_and_no_half_folder(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from training.run.opening import open_run\n"
        "with open_run(Path(sys.argv[1])) as run, run.writing('model') as folder:\n"
        "    (folder / 'half').write_text('x'); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert (folder / "model.partial" / "half").exists()
        with pytest.raises(InputError, match="another process"), open_run(folder):
            pass
        child.kill()
    with open_run(folder):
        assert not (folder / "model.partial").exists()
        assert not (folder / "model").exists()


# ---------------------------------------------------------------------------------------- stopping and checkpoints


def test_sigterm_asks_the_run_to_stop_and_the_old_handler_comes_back(folder: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with open_run(folder) as run:
        assert not run.stopping
        os.kill(os.getpid(), signal.SIGTERM)
        assert run.stopping
    assert signal.getsignal(signal.SIGTERM) is before


def write_checkpoints(folder: Path, *steps: int) -> None:
    with open_run(folder) as run:
        for step in steps:
            with run.checkpoint(step) as aside:
                (aside / "state").write_text(str(step))


def resume(folder: Path) -> int:
    def load(checkpoint: Path) -> None:
        assert (checkpoint / "state").read_text() == checkpoint.name.split("-")[1]

    with open_run(folder) as run:
        return run.resume(load)


def test_the_newest_checkpoint_is_resumed_and_the_oldest_are_deleted(folder: Path) -> None:
    write_checkpoints(folder, 2, 9, 10)
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-9"]
    assert [event["folder"] for event in events(folder, "checkpoint")] == [
        "checkpoint-2",
        "checkpoint-9",
        "checkpoint-10",
    ]
    assert resume(folder) == 10


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(folder: Path) -> None:
    write_checkpoints(folder, 1, 2)
    (folder / "checkpoint-2" / "state").unlink()
    assert resume(folder) == 1
    assert "checkpoint-2 cannot be read" in events(folder, "warning")[0]["message"]


def test_a_checkpoint_that_is_cut_short_is_passed_over_though_its_stage_would_not_notice(folder: Path) -> None:
    write_checkpoints(folder, 1, 2)
    (folder / "checkpoint-2" / "state").write_text("")
    with open_run(folder) as run:
        assert run.resume(lambda _folder: None) == 1


def test_a_damaged_checkpoint_does_not_take_the_place_of_one_that_is_kept(folder: Path) -> None:
    write_checkpoints(folder, 6, 9)
    (folder / "checkpoint-9" / "state").unlink()
    run_folder(folder, {"stage": "pretrain", "tokenizer": "t", "keep_checkpoints": 1})
    assert resume(folder) == 6
    write_checkpoints(folder, 7)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-7"]
    assert resume(folder) == 7


def test_a_checkpoint_that_fails_half_way_leaves_the_older_one(folder: Path) -> None:
    write_checkpoints(folder, 1)
    with pytest.raises(TrainingError, match="is full"), open_run(folder) as run, run.checkpoint(2):
        Path("/dev/full").write_text("2")
    assert not list(folder.glob("*.partial"))
    assert resume(folder) == 1


def test_a_config_changed_since_the_checkpoint_is_refused_by_name(folder: Path) -> None:
    write_checkpoints(folder, 1)
    run_folder(folder, {"stage": "pretrain", "tokenizer": "t", "layers": 7})
    with pytest.raises(InputError, match=r"layers in config\.json changed since checkpoint-1"):
        resume(folder)


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(folder: Path) -> None:
    config = {"stage": "ppo", "policy": "p", "lora": {"rank": 4, "dropout": 0.0}}
    run_folder(folder, config)
    write_checkpoints(folder, 1)
    written = json.loads((folder / "checkpoint-1" / "run.json").read_text())
    written["config"]["lora"]["dropout"] = 0.0  # every stage had it
    for name in ("critic", "long_prompts"):  # came later
        del written["config"][name]
    (folder / "checkpoint-1" / "run.json").write_text(json.dumps(written))
    assert resume(folder) == 1
    run_folder(folder, config | {"lora": {"rank": 4, "dropout": 0.1}})
    with pytest.raises(InputError, match=r"lora: dropout: this stage compares log-probabilities"):
        resume(folder)


def test_a_model_that_moved_with_its_store_is_the_same_model(folder: Path) -> None:
    config = {"stage": "pretrain", "tokenizer": f"/old/artefacts/models/{'a1' * 16}"}
    run_folder(folder, config)
    write_checkpoints(folder, 1)
    run_folder(folder, config | {"tokenizer": f"/a/new/place/artefacts/models/{'a1' * 16}"})
    assert resume(folder) == 1
    run_folder(folder, config | {"tokenizer": f"/a/new/place/artefacts/models/{'b2' * 16}"})
    with pytest.raises(InputError, match=r"tokenizer in config\.json changed"):
        resume(folder)


def test_a_longer_time_budget_does_not_stand_in_the_way_of_going_on(folder: Path) -> None:
    write_checkpoints(folder, 1)
    run_folder(folder, {"stage": "pretrain", "tokenizer": "t", "minutes": 3, "log_every": 1})
    assert resume(folder) == 1


def test_rows_changed_since_the_checkpoint_are_refused(folder: Path) -> None:
    write_checkpoints(folder, 1)
    write_data(folder, "corpus", b'{"id": "a", "text": "two"}\n')
    with pytest.raises(InputError, match=r"the rows in data/ changed since checkpoint-1"):
        resume(folder)


def test_time_goes_on_counting_after_a_resume(folder: Path) -> None:
    ticks = count(0, 10.0)
    with open_run(folder, clock=lambda: next(ticks)) as run:
        with run.timed("rollout"):
            pass
        with run.checkpoint(1):
            pass
        spent = run.elapsed()
    with open_run(folder, clock=lambda: 5000.0) as run:
        run.resume(lambda _folder: None)
        assert run.seconds == {"rollout": 10.0}
        assert 0 < run.elapsed() < spent


# ----------------------------------------------------------------------------------------------------------- output


def test_a_model_is_replaced_whole_or_not_at_all(folder: Path) -> None:
    with open_run(folder) as run:
        with run.writing("model") as aside:
            (aside / "a").write_text("old")
        with pytest.raises(FileNotFoundError), run.writing("model") as aside:
            (aside / "nowhere" / "a").write_text("new")
        assert (folder / "model" / "a").read_text() == "old"
        with run.writing("model") as aside:
            (aside / "b").write_text("new")
    assert [path.name for path in (folder / "model").iterdir()] == ["b"]


def test_the_result_names_every_file_with_its_hash(folder: Path) -> None:
    with open_run(folder) as run:
        with run.writing("model") as aside:
            (aside / "sub").mkdir()
            (aside / "sub" / "weights").write_text("w")
        run.finish({"loss": 1.5}, counts={"documents": 1}, model={"kind": "full"})
    result = Result.model_validate_json((folder / "result.json").read_bytes())
    assert result.files == {"model/sub/weights": file_sha256(folder / "model" / "sub" / "weights")}
    assert result.metrics == {"loss": 1.5}
    assert result.versions["torch"].startswith("2.")
    assert events(folder)[-1]["type"] == "done"


def test_a_run_killed_between_its_result_and_its_last_event_still_ends_with_done(folder: Path) -> None:
    with open_run(folder) as run:
        assert not run.finished()
        run.finish({"loss": 1.5})
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(lines[:-1]))
    for _ in range(2):
        with open_run(folder) as run:
            assert run.finished()
    assert [json.dumps(event["metrics"]) for event in events(folder, "done")] == ['{"loss": 1.5}']


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ("sft", "micro_tokens"),
        ("sample", "slots or sampling.max_new_tokens"),
        ("ppo", "micro_tokens or prompts_per_step or samples_per_prompt or sampling.max_new_tokens"),
    ],
)
def test_out_of_memory_names_the_settings_that_the_stage_has(tmp_path: Path, stage: str, named: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"stage": stage}))
    assert explain(MemoryError(), tmp_path).message == f"out of memory: lower {named}, or take a smaller model"
