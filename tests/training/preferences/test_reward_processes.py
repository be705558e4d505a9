from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.narrowing import existing
from tests.training import written_rewards  # noqa: F401 - it registers rewards
from tests.training.toys import PROJECT
from training.contract import InputError, PromptRow, TrainingError, Turn
from training.contract.rewards import ExactReward, FunctionReward, LengthReward, NumericReward, RegexReward
from training.preferences.reward_functions import RewardBatch
from training.preferences.reward_process import RewardFailed, RewardProcess
from training.preferences.rewards import Rewards

ASKED = [Turn(role="user", content="?")]


def batch(*replies: str, data: Any = None) -> RewardBatch:
    return RewardBatch([ASKED] * len(replies), replies, [None] * len(replies), [data or {}] * len(replies))


def row(reference: Any = None, data: Any = None) -> PromptRow:
    return PromptRow(id="prompt:1", messages=ASKED, reference=reference, data=data)


def test_a_function_of_batches_gets_data_and_parameters(capfd: pytest.CaptureFixture[str]) -> None:
    process = RewardProcess(FunctionReward(name="shares", parameters={"of": "b"}))
    assert process.score(batch("abbb", "a")) == [0.75, 0]
    assert process.score(batch("b", data={"mute": True})) == [None]
    process.close()
    assert "this goes to the log" in capfd.readouterr().err


def test_a_function_of_single_replies_still_works() -> None:
    process = RewardProcess(FunctionReward(name="brevity"))
    assert process.score(batch("", "x" * 50)) == [0, -0.5]
    process.close()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("raise", r"RuntimeError: the judge has gone home \(written_rewards.py:\d+\)"),
        ("hang", "it gave no answer within 1 seconds"),
        ("die", "its process was ended by SIGSEGV"),
        ("too few", "it gave 1 scores for 2 replies"),
        ("words", "its score of reply 1 is no number: 'good'"),
    ],
)
def test_a_function_that_misbehaves_is_told_and_can_be_asked_again(reply: str, message: str) -> None:
    process = RewardProcess(FunctionReward(name="misbehaves", timeout=1))
    with pytest.raises(RewardFailed, match=message):
        process.score(batch(reply, ""))
    assert process.score(batch("fine")) == [4]
    process.close()


@pytest.mark.parametrize("reply", ["raise", "hang", "die"])
def test_a_failure_stops_the_run_or_gives_a_score_as_the_setting_says(reply: str) -> None:
    stops = Rewards([FunctionReward(name="misbehaves", timeout=1)])
    with pytest.raises(TrainingError, match=r"reward misbehaves: .*goes on from its last checkpoint"):
        stops([row()], [reply])
    warnings: list[str] = []
    term = FunctionReward(name="misbehaves", timeout=1, on_failure="score", failure_score=-2, weight=3)
    (scored,) = Rewards([term], warn=warnings.append)([row()], [reply])
    assert (scored.score, scored.components, scored.failed) == (-6, {"misbehaves": -2}, ("misbehaves",))
    assert len(warnings) == 1
    assert "1 replies get the score -2" in warnings[0]


def test_a_hanging_function_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    code = (
        "from tests.training import written_rewards\n"
        "from tests.training.preferences.test_reward_processes import batch\n"
        "from training.contract.rewards import FunctionReward\n"
        "from training.preferences.reward_process import RewardProcess\n"
        "RewardProcess(FunctionReward(name='misbehaves')).score(batch('hang'))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT)})
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(run.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_scores_are_weighted_and_added() -> None:
    rewards = Rewards([NumericReward(weight=2), LengthReward(maximum=1, weight=-1), NumericReward(tolerance=0.5)])
    assert rewards.names == ["numeric", "length", "numeric#2"]
    right, near = rewards([row("8")] * 2, ["8", "is 6"])
    assert right.components == {"numeric": 1, "length": 1, "numeric#2": 1}
    assert right.score == 2 - 1 + 1
    assert near.components == {"numeric": 0, "length": 0, "numeric#2": 1}
    assert near.score == 1


def test_a_reward_says_nothing_of_prompts_without_a_reference() -> None:
    rewards = Rewards([ExactReward(), LengthReward()])
    (scored,) = rewards([row()], ["hello"])
    assert scored.components == {"exact": None, "length": 1}
    assert existing(scored.score) == 1
    assert Rewards([ExactReward()])([row()], ["hello"])[0].score is None
    assert rewards.can_score(row())
    assert not Rewards([ExactReward()]).can_score(row())
    assert not Rewards([RegexReward()]).can_score(row(7))
    assert not Rewards([NumericReward()]).can_score(row("no number"))
    assert Rewards([NumericReward()]).can_score(row("#### 8"))


def test_a_function_that_is_not_registered_is_named_before_anything_starts() -> None:
    with pytest.raises(InputError, match="no reward function is named function:unheard-of"):
        Rewards([FunctionReward(name="unheard-of")])
