from __future__ import annotations

import json
import signal
import time
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests.narrowing import existing
from tests.training.stages.test_reward import rankings
from tests.training.toys import events, prompts, run_folder, run_here, start_child, toy_policy, turns
from training.contract import InputError, LoraSettings, PromptRow, Turn
from training.models.compute import Compute
from training.models.loading import load_tokenizer
from training.preferences.ensemble import centered, combined, disagreement
from training.preferences.reward_model import load_members, load_reward, reward_from_language_model, save_reward
from training.preferences.rewards import Rewards
from training.rl.rollouts import load_scorer
from training.run.opening import open_run
from training.stages import reward
from training.stages.reward import learn

CPU = Compute(torch.device("cpu"), torch.float32)
ASKED = [[Turn(**turn) for turn in turns("is the cat 3?")]]
STEPS = 8  # of each member
GOOD, BAD = "yes of course cat", "no never cat"


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> Any:
    return toy_policy(tmp_path_factory.mktemp("base") / "model")


def settings(base: Any, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "reward", "base": str(base), "learning_rate": 3e-3, "epochs": 2, "batch_tokens": 600,
        "evaluate_every": 4, "checkpoint_every": 2, "log_every": 1, "ensemble": 3, **changed,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(base: Any, tmp_path_factory: Any) -> Any:
    folder = run_folder(
        tmp_path_factory.mktemp("reward"), settings(base), rankings=rankings(40, 1), heldout=rankings(20, 2)
    )
    return folder, run_here(folder)


# ------------------------------------------------------------------------------------------------------ the arithmetic


def test_the_score_is_the_mean_less_the_deviations_asked_for() -> None:
    scores = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert combined(scores, 0.0).tolist() == [2.0, 5.0]
    assert combined(scores, 1.0) == pytest.approx([2 - 2**0.5, 5.0])


def test_one_member_has_its_own_scores_whatever_is_asked() -> None:
    assert combined(np.array([[1.0, 5.0]]), 3.0).tolist() == [1.0, 5.0]
    assert centered(np.array([[1.0, 5.0]]), [7.0]).tolist() == [[1.0, 5.0]]


def test_a_constant_of_a_member_is_no_disagreement() -> None:
    scores = np.array([[1.0, 2.0], [11.0, 12.0]])
    assert combined(centered(scores, [1.0, 11.0]), 1.0).tolist() == [0.0, 1.0]


# --------------------------------------------------------------------------------------------------------- its training


def test_members_learn_the_same_and_are_not_the_same(trained: Any) -> None:
    folder, result = trained
    assert result["metrics"]["heldout_accuracy"] > 0.9
    assert result["metrics"]["heldout_member_accuracy"] > 0.8
    assert result["model"]["members"] == 3
    models = [model for model, _ in load_members(str(folder / "model"), CPU)]
    assert len(models) == 3
    heads = [model.head.weight for model in models]
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    assert result["metrics"]["heldout_spread_right"] > 0


def test_steps_count_on_from_member_to_member(trained: Any) -> None:
    folder, result = trained
    losses = [event["step"] for event in events(folder, "metric") if "loss" in event["values"]]
    assert losses == list(range(1, 3 * STEPS + 1))
    assert result["metrics"]["steps"] == len(losses)
    assert not list(folder.glob("member-*"))


def test_tools_that_know_of_no_ensembles_load_the_first_member(trained: Any) -> None:
    folder, _ = trained
    other = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    model, _ = load_reward(str(folder / "model"), CPU)
    assert torch.equal(other.score.weight, model.head.weight)


def test_a_missing_member_is_named(trained: Any, tmp_path: Path) -> None:
    folder, _ = trained
    for path in (folder / "model").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="member-2: there is no such reward model folder"):
        load_members(str(tmp_path), CPU)


@pytest.mark.parametrize("step", [3, STEPS + 3])
def test_an_interrupted_run_goes_on_with_the_member_it_was_at(
    base: Any, trained: Any, tmp_path: Path, step: Any
) -> None:
    whole, result = trained
    folder = run_folder(tmp_path, settings(base), rankings=rankings(40, 1), heldout=rankings(20, 2))
    with start_child(folder) as child:
        told = folder / "events.jsonl"
        while child.poll() is None and not (told.exists() and f'"step":{step},' in told.read_text()):
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    before = len(events(folder, "metric"))
    resumed = run_here(folder)
    again = [event["step"] for event in events(folder, "metric")[before:]]
    assert min(again) > step // STEPS * STEPS  # no member is trained twice
    for name in ("", "member-2/", "member-3/"):
        alone, continued = (load_file(f / "model" / f"{name}model.safetensors") for f in (whole, folder))
        assert all(torch.equal(weight, continued[key]) for key, weight in alone.items())
    clock = "tokens_per_second"
    assert {k: v for k, v in resumed["metrics"].items() if k != clock} == {
        k: v for k, v in result["metrics"].items() if k != clock
    }


def test_minutes_are_shared_among_the_members(base: Any, tmp_path: Path) -> None:
    config = settings(base, minutes=0.02, epochs=1000, evaluate_every=0, checkpoint_every=0, ensemble=2)
    folder = run_folder(tmp_path, config, rankings=rankings(40, 1))
    result = run_here(folder)
    assert result["seconds"]["training"] < 5
    told = [event["step"] for event in events(folder, "metric") if "loss" in event["values"]]
    (of_the_first,) = (i for i, (one, next_) in enumerate(pairwise(told), 1) if next_ > 1 + one)
    assert 0.3 < of_the_first / len(told) < 0.7
    assert len(load_members(str(folder / "model"), CPU)) == 2


def test_minutes_count_what_was_spent_on_members_before_the_run_was_killed(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(base, minutes=1, epochs=1000, evaluate_every=0, checkpoint_every=0, ensemble=2)
    folder = run_folder(tmp_path, config, rankings=rankings(40, 1))

    def killed(run: Any, lesson: Any, member: Any = 0) -> Any:
        if member == 1:
            raise KeyboardInterrupt
        return learn(run, lesson, member)

    monkeypatch.setattr(reward, "learn", killed)
    with pytest.raises(KeyboardInterrupt), open_run(folder, clock=partial(next, count(0, 0.5))) as run:
        reward.main(run)
    monkeypatch.undo()
    of_the_first = len(events(folder, "metric"))
    with open_run(folder, clock=partial(next, count(10_000, 0.5))) as run:
        reward.main(run)
    seconds = json.loads((folder / "result.json").read_text())["seconds"]
    assert 0.7 < (len(events(folder, "metric")) - of_the_first) / of_the_first < 1.3
    assert 60 <= seconds["total"] < 75
    assert 55 < seconds["training"] < seconds["total"]


# -------------------------------------------------------------------------------------------------------------- its use


def scores_of(scorer: Rewards, *replies: str) -> list[float]:
    row = PromptRow(id="prompt:1", messages=ASKED[0])
    return [existing(reply.score) for reply in scorer([row] * len(replies), replies)]


def test_doubt_lowers_the_score(trained: Any) -> None:
    folder, _ = trained
    scores = {pessimism: load_scorer(str(folder / "model"), CPU, pessimism) for pessimism in (0.0, 2.0)}
    plain, doubtful = (scores_of(scorer, GOOD, BAD) for scorer in scores.values())
    spread = existing(scores[2.0].ensemble).last.std(axis=0, ddof=1)
    assert spread.min() > 0
    assert doubtful == pytest.approx([plain[i] - 2 * spread[i] for i in range(2)])
    assert plain[0] > plain[1]
    assert disagreement(scores[2.0]) == pytest.approx(spread.mean())


def test_several_folders_are_an_ensemble(base: Any, tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        _, model = reward_from_language_model(str(base), CPU, LoraSettings())
        folder = tmp_path / str(seed)
        save_reward(model, load_tokenizer(str(base)), folder, {"max_tokens": 64, "temperature": 1.0, "mean": seed})
        folders.append(str(folder))
    scorer = load_scorer(folders, CPU)
    alone = [scores_of(load_scorer(folder, CPU), GOOD)[0] for folder in folders]
    assert scores_of(scorer, GOOD) == pytest.approx([(alone[0] - 1 + alone[1] - 2) / 2])
    assert torch.equal(existing(scorer.ensemble).members[0][0].head.weight, load_reward(folders[0], CPU)[0].head.weight)


def test_a_function_is_added_to_a_model_and_is_no_member(trained: Any) -> None:
    folder, _ = trained
    both = load_scorer([str(folder / "model"), "function:brevity"], CPU, 2.0)
    (alone,) = scores_of(load_scorer(str(folder / "model"), CPU, 2.0), GOOD)
    assert scores_of(both, GOOD) == pytest.approx([alone - len(GOOD) / 100])
    assert len(existing(both.ensemble).members) == len(
        existing(load_scorer(str(folder / "model"), CPU).ensemble).members
    )


def test_one_reward_does_not_disagree(base: Any, tmp_path: Path) -> None:
    assert disagreement(load_scorer("function:brevity", CPU)) is None


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_a_policy_learns_from_an_ensemble(base: Any, trained: Any, tmp_path: Path, stage: Any) -> None:
    folder, _ = trained
    config = {
        "stage": stage, "policy": str(base), "reward": str(folder / "model"), "pessimism": 1.5, "steps": 1,
        "prompts_per_step": 4, "sampling": {"max_new_tokens": 4},
    }  # fmt: skip
    result = run_here(run_folder(tmp_path, config, prompts=prompts(4), heldout=prompts(2)))
    assert result["metrics"]["heldout_spread"] > 0
    if stage == "ppo":
        assert result["metrics"]["objective/spread"] > 0


@pytest.mark.fp32
def test_an_ensemble_is_measured_and_scores_samples(base: Any, trained: Any, tmp_path: Path) -> None:
    folder, result = trained
    config: dict[str, Any] = {"stage": "evaluate", "reward": str(folder / "model")}
    measured = run_here(run_folder(tmp_path / "evaluate", config, rankings=rankings(20, 2)))
    for name in ("accuracy", "loss", "spread_right"):
        assert measured["metrics"][f"reward_{name}"] == pytest.approx(result["metrics"][f"heldout_{name}"], abs=1e-5)
    config = {
        "stage": "sample", "policy": str(base), "reward": [str(folder / "model")], "replies": 2,
        "sampling": {"max_new_tokens": 4},
    }  # fmt: skip
    sampled = run_here(run_folder(tmp_path / "sample", config, prompts=prompts(2)))
    assert "reward" in sampled["metrics"]
