"""Stage `sample`, in its run folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.training.toys import events, run_folder, run_here, toy_policy, turns
from training.__main__ import main
from training.contract import SampleRow
from training.engine import Completion, Engine
from training.run.reporting import ReportingRun
from training.stages.sample import PROGRESS, repeated

WORDS = ["the", "cat", "sat", "on", "mat", "yes", "of", "course", "sky", "is", "blue", "no", "never", "sea"]


def prompt_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"prompt:{i}", "messages": turns(" ".join(WORDS[i % 5 : i % 7 + 3]))} for i in range(count)]


def config(policy: Path, **changes: Any) -> dict[str, Any]:
    sampling = {"max_new_tokens": 8, "temperature": 1.0}
    return {"stage": "sample", "policy": str(policy), "replies": 3, "slots": 4, "sampling": sampling, **changes}


def samples(folder: Path) -> list[SampleRow]:
    lines = (folder / "output" / "samples.jsonl").read_text().splitlines()
    return [SampleRow.model_validate_json(line) for line in lines]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return toy_policy(tmp_path / "policy")


def test_every_prompt_gets_its_replies_and_longer_prompts_are_left_out_and_counted(
    tmp_path: Path, policy: Path
) -> None:
    long = {"id": "long", "messages": turns("cat " * 60)}
    folder = run_folder(tmp_path / "run", config(policy), prompts=[*prompt_rows(10), long])
    result = run_here(folder)
    rows = samples(folder)
    assert [row.id for row in rows] == [f"prompt:{i}#{k}" for i in range(10) for k in range(3)]
    assert result["counts"] == {
        "prompts": 11,
        "left_out/too_long": 1,
        "cut/older_turns": 0,
        "cut/question": 0,
        "replies": 30,
        "repeated": 0,
    }
    assert all(0 < row.tokens <= 8 and row.logprob < 0 and row.reward is None for row in rows)
    assert "1 of 11 prompts are left out" in events(folder, "warning")[0]["message"]
    assert not (folder / PROGRESS).exists()


def test_replies_follow_from_seed_and_prompt_alone(tmp_path: Path, policy: Path) -> None:
    run_here(few := run_folder(tmp_path / "few", config(policy, slots=2), prompts=prompt_rows(10)[3:5]))
    run_here(many := run_folder(tmp_path / "many", config(policy, slots=32), prompts=prompt_rows(10)))
    run_here(other := run_folder(tmp_path / "other", config(policy, seed=1), prompts=prompt_rows(10)))
    assert [row.reply for row in samples(few)] == [row.reply for row in samples(many)][9:15]
    assert [row.reply for row in samples(other)] != [row.reply for row in samples(many)]


def test_a_reply_that_repeats_another_is_drawn_again(tmp_path: Path, policy: Path) -> None:
    sampling = {"max_new_tokens": 1, "temperature": 1.0, "top_k": 4}
    alike = config(policy, sampling=sampling, distinct=False, replies=4)
    run_here(repeating := run_folder(tmp_path / "alike", alike, prompts=prompt_rows(8)))
    different = {**alike, "distinct": True}
    run_here(folder := run_folder(tmp_path / "different", different, prompts=prompt_rows(8)))
    counts = [len({(row.prompt_id, row.reply) for row in samples(f)}) for f in (repeating, folder)]
    assert counts[1] > counts[0]
    kept = [(a.reply, b.reply) for a, b in zip(samples(repeating), samples(folder), strict=True) if a.id.endswith("#0")]
    assert all(a == b for a, b in kept)


def test_replies_that_differ_in_white_space_do_not_repeat_each_other() -> None:
    replies = ["return x", "    return x", "return x\n", "return x"]
    rows = [
        SampleRow(id=f"a#{k}", prompt_id="a", messages=turns("cat"), reply=reply, tokens=1, finish="stop", logprob=-1.0)
        for k, reply in enumerate(replies)
    ]
    assert repeated(rows) == 1


def test_replies_are_scored_by_the_reward_that_is_named(tmp_path: Path, policy: Path) -> None:
    run_here(folder := run_folder(tmp_path / "run", config(policy, reward="function:brevity"), prompts=prompt_rows(4)))
    assert all(row.reward is not None for row in samples(folder))
    assert "reward" in json.loads((folder / "result.json").read_text())["metrics"]


def interrupted_after(replies: int, interrupt: Callable[[], None]) -> Callable[..., Iterator[tuple[int, Completion]]]:
    """The engine's stream, with an interruption when that many replies have ended."""
    stream, ended = Engine.stream, count(1)

    def interrupted(engine: Engine, *arguments: Any) -> Iterator[tuple[int, Completion]]:
        for reply in stream(engine, *arguments):
            yield reply
            if next(ended) == replies:
                interrupt()

    return interrupted


def drawn_again(monkeypatch: pytest.MonkeyPatch, folder: Path) -> int:
    """Replies that the next process of the run draws."""
    stream, drawn = Engine.stream, []

    def counted(engine: Engine, *arguments: Any) -> Iterator[tuple[int, Completion]]:
        for reply in stream(engine, *arguments):
            drawn.append(reply)
            yield reply

    monkeypatch.setattr(Engine, "stream", counted)
    assert main(["sample", str(folder)]) == 0
    return len(drawn)


def close_to(ours: list[SampleRow], theirs: list[SampleRow]) -> bool:
    """The same replies, but for how the replies that are drawn together round their log-probabilities."""

    def rounded(rows: list[SampleRow]) -> list[SampleRow]:
        return [row.model_copy(update={"logprob": round(row.logprob, 4)}) for row in rows]

    return rounded(ours) == rounded(theirs)


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_replies(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = run_folder(tmp_path / "whole", config(policy, slots=1, distinct=False), prompts=prompt_rows(12))
    run_here(wanted)
    folder = run_folder(tmp_path / "killed", config(policy, slots=1, distinct=False), prompts=prompt_rows(12))

    def die() -> None:
        raise KeyboardInterrupt  # nothing catches it: as abrupt as a kill

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "stream", interrupted_after(34, die))
        with pytest.raises(KeyboardInterrupt):
            main(["sample", str(folder)])
    with (folder / PROGRESS).open("a") as file:
        file.write('[{"id": "prompt:9#0", "promp')  # and the last line was only half on the disk
    kept = len((folder / PROGRESS).read_text().splitlines()) - 2
    assert kept >= 5
    assert drawn_again(monkeypatch, folder) == 3 * (12 - kept)
    assert close_to(samples(folder), samples(wanted))


@pytest.mark.parametrize("scored", [{}, {"reward": "function:brevity"}])
def test_a_run_stops_at_once_and_keeps_every_prompt_that_has_its_replies(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch, scored: dict[str, Any]
) -> None:
    settings = config(policy, slots=2, distinct=False, **scored)
    run_here(wanted := run_folder(tmp_path / "whole", settings, prompts=prompt_rows(8)))
    folder = run_folder(tmp_path / "stopped", settings, prompts=prompt_rows(8))
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "stream", interrupted_after(7, partial(os.kill, os.getpid(), signal.SIGTERM)))
        patch.setattr(ReportingRun, "progress", lambda _, step, *__: steps.append(step))
        assert main(["sample", str(folder)]) == 143
    kept = len((folder / PROGRESS).read_text().splitlines()) - 1
    assert kept in (1, 2)  # the seven replies are of three prompts
    assert steps == [0, kept]
    assert drawn_again(monkeypatch, folder) == 3 * (8 - kept)
    assert close_to(samples(folder), samples(wanted))
    assert [event | {"time": 0} for event in events(folder, "sample")] == [
        event | {"time": 0} for event in events(wanted, "sample")
    ]


def test_other_prompts_begin_anew(tmp_path: Path, policy: Path) -> None:
    folder = run_folder(tmp_path / "run", config(policy), prompts=prompt_rows(2))
    (folder / PROGRESS).write_text("another fingerprint\n[]\n")
    run_here(folder)
    assert len(samples(folder)) == 6


def test_prompts_with_the_same_id_are_refused(tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "run", config(policy), prompts=prompt_rows(2) + prompt_rows(1))
    assert main(["sample", str(folder)]) == 2
    assert "1 ids occur more than once" in capsys.readouterr().err


def test_prompts_that_are_all_too_long_are_an_error_that_says_so(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(
        tmp_path / "run", config(policy, max_prompt_tokens=8), prompts=[{"id": "a", "messages": turns("cat " * 30)}]
    )
    assert main(["sample", str(folder)]) == 2
    assert "1 of 1 prompts are left out: longer than 8 tokens" in capsys.readouterr().err
