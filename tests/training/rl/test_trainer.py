from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.toys import events, run_folder, toy_policy, toy_tokenizer, turns
from training.contract import PromptRow, TrainingError, Turn
from training.data.chat_format import ChatFormat
from training.engine import Completion
from training.models.compute import prepare
from training.optim.loop import Learner
from training.preferences.reward_functions import find_shaping, reward_function
from training.rl.policies import load_policies
from training.rl.rollouts import encode_prompts, prompts_of_step
from training.rl.trainer import Trainer
from training.rl.update import Updater
from training.run.run import open_run


class ScriptedEngine:
    """Gives the replies it is told to."""

    def __init__(self, replies: list[list[int]], logprob: float = -1.0) -> None:
        self.replies, self.logprob, self.stop_ids = replies, logprob, frozenset({ChatFormat(toy_tokenizer()).end_id})
        self.texts = [""] * len(replies)

    def generate(self, requests) -> list[Completion]:
        return [
            Completion(tokens, [self.logprob] * len(tokens), text, "stop" if tokens[-1] in self.stop_ids else "length")
            for _, tokens, text in zip(requests, self.replies, self.texts, strict=False)
        ]


def scores(*values: float):
    """A scorer that gives these."""
    return lambda *_: list(values)


@pytest.fixture
def start(tmp_path):
    """A trainer over a toy policy, whose engine and rewards are the test's."""
    policy, chat = toy_policy(tmp_path / "policy"), ChatFormat(toy_tokenizer())
    rows = [PromptRow(id=f"prompt:{i}", messages=[Turn(**t) for t in turns(f"the cat {i}")]) for i in range(4)]
    config = {
        "stage": "ppo", "policy": str(policy), "reward": "function:brevity", "prompts_per_step": 4, "epochs": 2,
        "value_warmup": 0, "sampling": {"max_new_tokens": 6}, "steps": 20,
    }  # fmt: skip
    folder = run_folder(tmp_path / "run", config, prompts=[json.loads(row.model_dump_json()) for row in rows])
    opened = []

    def build(replies: list[list[int]], scorer, heldout: int = 0, **named) -> Trainer:
        context = open_run(folder, "ppo")
        opened.append(context)
        run = context.__enter__()
        compute = prepare(run)
        policies = load_policies(run.config, compute, None)
        learner = Learner({"policy": policies.actor.model, "value": policies.actor.value_head}, run.config, compute)
        prompts, _ = encode_prompts(rows, chat, 40)
        return Trainer(
            run, prompts, prompts[:heldout], ScriptedEngine(replies, **named), scorer,
            Updater(run.config, policies, learner, compute, chat.pad_id),
        )  # fmt: skip

    yield build
    for context in opened:
        context.__exit__(None, None, None)


END = ChatFormat(toy_tokenizer()).end_id


def test_replies_of_nothing_but_the_end_are_learned_from(start):
    trainer = start([[END]] * 4, scores(0.0, 1.0, 2.0, 3.0))
    for step in range(2):
        trainer.step(step, step / 20)
    assert trainer.figures["length/mean"] == 1
    assert trainer.figures["val/num_eos_tokens"] == 4
    assert all(parameter.isfinite().all() for parameter in trainer.updater.learner.parameters)
    assert "skipped" not in trainer.figures


def test_a_reply_without_an_end_costs_the_penalty(start):
    trainer = start([[END], [60, 61, 62, 63, 64, 65], [60, END], [61, END]], scores(1.0, 2.0, 3.0, 4.0))
    trainer.step(0, 0)
    # normalised scores have mean 0, so what is left of the mean is a quarter of the penalty of 1
    assert trainer.figures["objective/rlhf_reward"] - trainer.figures["objective/non_score_reward"] == pytest.approx(
        -0.25, abs=1e-6
    )


@reward_function("test-twos")
def twos(messages, reply) -> float:
    return float(reply.count("2"))


def test_shaping_is_added_to_the_normalised_score(start):
    trainer = start([[60, END], [61, END], [62, END], [63, END]], scores(1.0, 2.0, 3.0, 4.0))
    trainer.shaping = find_shaping("brevity = 0.5, test-twos=-2")
    texts = ["2", "", "x" * 100, "22"]
    trainer.engine.texts = texts
    trainer.step(0, 0)
    added = [0.5 * -len(text) / 100 - 2 * text.count("2") for text in texts]
    assert trainer.figures["objective/shaping"] == pytest.approx(sum(added) / 4)
    # normalised scores have mean 0, so the mean of what was learned from is that of the shaping
    assert trainer.figures["objective/rlhf_reward"] - trainer.figures["objective/non_score_reward"] == pytest.approx(
        sum(added) / 4, abs=1e-6
    )


def test_a_rollout_that_the_update_does_not_recognise_is_warned_of_once(start):
    trainer = start([[60, END]] * 4, scores(0.0, 1.0, 2.0, 3.0), logprob=-0.1)
    trainer.step(0, 0)
    trainer.step(1, 0)
    told = [event["message"] for event in events(Path(trainer.run.folder), "warning")]
    assert len([message for message in told if "between rollout and learning" in message]) == 1


def test_the_policy_that_did_best_on_held_out_prompts_is_kept(start):
    rewards = iter([1.0, 9.0, 2.0])
    trainer = start([[60, END]] * 4, lambda asked, _: [next(rewards)] * len(asked), heldout=2)
    weight = trainer.updater.policies.actor.model.model.norm.weight
    for step in (0, 10, 20):
        with torch.no_grad():
            weight.fill_(step)
        trainer.held.evaluate(step)
    assert trainer.held.keep_best(20) == 10
    assert weight.eq(10).all()
    assert trainer.held.figures["heldout_reward"] == 9
    assert trainer.held.figures["heldout_reward_before"] == 1
    assert "the policy of step 10 is kept" in events(Path(trainer.run.folder), "warning")[-1]["message"]


def test_the_last_policy_is_kept_without_held_out_prompts(start):
    trainer = start([[60, END]] * 4, scores(1.0, 1.0, 1.0, 1.0))
    trainer.held.evaluate(20)
    assert trainer.held.keep_best(20) == 20


def test_a_run_that_has_gone_wrong_does_not_go_on_in_another_process(start):
    trainer = start([[60, END]] * 4, scores(1.0, 1.0, 1.0, 1.0))
    trainer.stopped = "the policy ran away"
    state = trainer.state()
    trainer.stopped = ""
    trainer.load(state)
    assert trainer.stopped == "the policy ran away"


def test_every_prompt_comes_once_in_each_pass_and_in_another_order():
    taken = [i for step in range(5) for i in prompts_of_step(10, step, 4, seed=3)]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]


def test_more_prompts_a_step_than_there_are_come_again():
    assert sorted(prompts_of_step(3, 0, 6, seed=0)) == [0, 0, 1, 1, 2, 2]


def breaking(trainer: Trainer, *steps: int):
    """Makes the loss of these optimiser steps, counted from 0, no number."""
    update, taken = trainer.updater.learner.update, iter(range(1000))

    def broken(micro, loss, *rest):
        nan = float("nan") if next(taken) in steps else 1.0

        def worse(one):
            sums = dict(loss(one))
            return sums | {"loss": (sums["loss"][0] * nan, sums["loss"][1])}

        return update(micro, worse, *rest)

    trainer.updater.learner.update = broken


def test_an_update_whose_numbers_are_none_changes_nothing_and_is_counted(start):
    trainer = start([[60, END], [61, END], [62, END], [END]], scores(0.0, 1.0, 2.0, 3.0))
    breaking(trainer, 0, 1)  # both passes of the first rollout
    before = [parameter.clone() for parameter in trainer.updater.learner.parameters]
    trainer.step(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.updater.learner.parameters, strict=True))
    assert trainer.updater.learner.skipped == 2
    assert "its update is skipped" in events(Path(trainer.run.folder), "warning")[0]["message"]
    trainer.step(1, 0.05)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.updater.learner.parameters, strict=True))
    assert all(parameter.isfinite().all() for parameter in trainer.updater.learner.parameters)


def test_the_other_updates_of_a_rollout_are_learned_from(start):
    trainer = start([[60, END], [61, END], [62, END], [END]], scores(0.0, 1.0, 2.0, 3.0))
    breaking(trainer, 0)
    trainer.step(0, 0)
    assert trainer.updater.learner.skipped == 1
    assert {"skipped", "loss/policy_avg", "val/ratio"} <= set(trainer.figures)
    assert all(math.isfinite(value) for value in trainer.figures.values())


def test_twenty_updates_in_a_row_whose_numbers_are_none_end_the_run(start):
    trainer = start([[60, END], [61, END], [62, END], [END]], scores(0.0, 1.0, 2.0, 3.0))
    breaking(trainer, *range(100))
    for step in range(9):
        trainer.step(step, 0)
    with pytest.raises(TrainingError, match="no finite number for 20 steps in a row: lower the learning rate"):
        trainer.step(9, 0)
    assert trainer.updater.learner.skipped == 20
