from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training import written_rewards  # noqa: F401 - it registers rewards
from tests.training.toys import events, run_folder, toy_policy, toy_tokenizer, turns
from training.contract import PromptRow, TrainingError, Turn
from training.data.chat_format import ChatFormat
from training.engine import Completion
from training.models.compute import prepare
from training.optim.learner import Learner
from training.preferences.rewards import ScoredReply, find_shaping
from training.rl.heldout import HeldoutEvaluator, ReplyKL
from training.rl.policies import load_policies
from training.rl.ppo_state import PPOState
from training.rl.rollouts import encode_prompts
from training.run.opening import open_run
from training.stages.ppo import ppo_step


class ScriptedEngine:
    """Gives the replies it is told to."""

    def __init__(self, replies: list[list[int]], logprob: float = -1.0) -> None:
        self.replies, self.logprob, self.stop_ids = replies, logprob, frozenset({ChatFormat(toy_tokenizer()).end_id})
        self.texts = [""] * len(replies)

    def generate(self, requests: Any) -> list[Completion]:
        return [
            Completion(tokens, [self.logprob] * len(tokens), text, "stop" if tokens[-1] in self.stop_ids else "length")
            for _, tokens, text in zip(requests, self.replies, self.texts, strict=False)
        ]


def scores(*values: float) -> Any:
    """A scorer that gives these."""
    return lambda *_: [ScoredReply(value, {}) for value in values]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """A PPO run over a toy policy, whose engine and rewards are the test's."""
    policy, chat = toy_policy(tmp_path / "policy"), ChatFormat(toy_tokenizer())
    rows = [PromptRow(id=f"prompt:{i}", messages=[Turn(**t) for t in turns(f"the cat {i}")]) for i in range(4)]
    config = {
        "stage": "ppo", "policy": str(policy), "reward": "function:brevity", "prompts_per_step": 4, "epochs": 2,
        "value_warmup": 0, "sampling": {"max_new_tokens": 6}, "steps": 20,
    }  # fmt: skip
    folder = run_folder(tmp_path / "run", config, prompts=[json.loads(row.model_dump_json()) for row in rows])
    opened = []

    def build(replies: list[list[int]], scorer: Any, heldout: int = 0, **named: Any) -> PPOState:
        context = open_run(folder, "ppo")
        opened.append(context)
        run = context.__enter__()
        compute = prepare(run)
        policies = load_policies(run.config, compute)
        learner = Learner({"policy": policies.actor.model, "value": policies.actor.value_head}, run.config, compute)
        prompts, _ = encode_prompts(rows, chat, 40)
        engine = ScriptedEngine(replies, **named)
        kl = ReplyKL(policies.actor.forward, policies.reference.forward, compute, chat.pad_id, run.config.micro_tokens)
        evaluator = HeldoutEvaluator(run, prompts[:heldout], engine, scorer, policies.actor.model, kl)  # type: ignore[arg-type]
        return PPOState(run, compute, prompts, engine, scorer, policies, learner, chat.pad_id, evaluator)  # type: ignore[arg-type]

    yield build
    for context in opened:
        context.__exit__(None, None, None)


END = ChatFormat(toy_tokenizer()).end_id


def test_replies_of_nothing_but_the_end_are_learned_from(start: Any) -> None:
    ppo = start([[END]] * 4, scores(0.0, 1.0, 2.0, 3.0))
    for step in range(2):
        ppo_step(ppo, step, step / 20)
    assert ppo.figures["length/mean"] == 1
    assert ppo.figures["val/num_eos_tokens"] == 4
    assert all(parameter.isfinite().all() for parameter in ppo.learner.parameters)
    assert "skipped" not in ppo.figures


def test_a_reply_without_an_end_costs_the_penalty(start: Any) -> None:
    ppo = start([[END], [60, 61, 62, 63, 64, 65], [60, END], [61, END]], scores(1.0, 2.0, 3.0, 4.0))
    ppo_step(ppo, 0, 0)
    # normalized scores have mean 0, so what is left of the mean is a quarter of the penalty of 1
    assert ppo.figures["objective/rlhf_reward"] - ppo.figures["objective/non_score_reward"] == pytest.approx(
        -0.25, abs=1e-6
    )


def test_shaping_is_added_to_the_normalized_score(start: Any) -> None:
    ppo = start([[60, END], [61, END], [62, END], [63, END]], scores(1.0, 2.0, 3.0, 4.0))
    ppo.shaping = find_shaping("brevity = 0.5, twos=-2")
    texts = ["2", "", "x" * 100, "22"]
    ppo.engine.texts = texts
    ppo_step(ppo, 0, 0)
    added = [0.5 * -len(text) / 100 - 2 * text.count("2") for text in texts]
    assert ppo.figures["objective/shaping"] == pytest.approx(sum(added) / 4)
    # normalized scores have mean 0, so the mean of what was learned from is that of the shaping
    assert ppo.figures["objective/rlhf_reward"] - ppo.figures["objective/non_score_reward"] == pytest.approx(
        sum(added) / 4, abs=1e-6
    )


def test_a_rollout_that_the_update_does_not_recognize_is_warned_of_once(start: Any) -> None:
    ppo = start([[60, END]] * 4, scores(0.0, 1.0, 2.0, 3.0), logprob=-0.1)
    ppo_step(ppo, 0, 0)
    ppo_step(ppo, 1, 0)
    told = [event["message"] for event in events(Path(ppo.run.folder), "warning")]
    assert len([message for message in told if "between rollout and learning" in message]) == 1


def test_the_policy_that_did_best_on_held_out_prompts_is_kept(start: Any) -> None:
    rewards = iter([1.0, 9.0, 2.0])
    ppo = start([[60, END]] * 4, lambda asked, _: [ScoredReply(next(rewards), {})] * len(asked), heldout=2)
    weight = ppo.policies.actor.model.model.norm.weight
    for step in (0, 10, 20):
        with torch.no_grad():
            weight.fill_(step)
        ppo.heldout.evaluate(step)
    assert ppo.heldout.keep_best(20) == 10
    assert weight.eq(10).all()
    assert ppo.heldout.figures["heldout_reward"] == 9
    assert ppo.heldout.figures["heldout_reward_before"] == 1
    assert "the policy of step 10 is kept" in events(Path(ppo.run.folder), "warning")[-1]["message"]


def test_the_last_policy_is_kept_without_held_out_prompts(start: Any) -> None:
    ppo = start([[60, END]] * 4, scores(1.0, 1.0, 1.0, 1.0))
    ppo.heldout.evaluate(20)
    assert ppo.heldout.keep_best(20) == 20


def test_a_run_that_has_gone_wrong_does_not_go_on_in_another_process(start: Any) -> None:
    ppo = start([[60, END]] * 4, scores(1.0, 1.0, 1.0, 1.0))
    ppo.stop_reason = "the policy ran away"
    state = ppo.state()
    ppo.stop_reason = ""
    ppo.load(state)
    assert ppo.stop_reason == "the policy ran away"


def breaking(ppo: PPOState, *steps: int) -> None:
    """Makes the loss of these optimizer steps, counted from 0, no number."""
    update, taken = ppo.learner.update, iter(range(1000))

    def broken(micro: Any, loss: Any, *rest: Any) -> Any:
        nan = float("nan") if next(taken) in steps else 1.0

        def worse(one: Any) -> Any:
            sums = dict(loss(one))
            return sums | {"loss": (sums["loss"][0] * nan, sums["loss"][1])}

        return update(micro, worse, *rest)

    ppo.learner.update = broken  # type: ignore[assignment]


def test_an_update_whose_numbers_are_none_changes_nothing_and_is_counted(start: Any) -> None:
    ppo = start([[60, END], [61, END], [62, END], [END]], scores(0.0, 1.0, 2.0, 3.0))
    breaking(ppo, 0, 1)  # both passes of the first rollout
    before = [parameter.clone() for parameter in ppo.learner.parameters]
    ppo_step(ppo, 0, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, ppo.learner.parameters, strict=True))
    assert ppo.learner.skipped == 2
    assert "its update is skipped" in events(Path(ppo.run.folder), "warning")[0]["message"]
    ppo_step(ppo, 1, 0.05)
    assert any(not torch.equal(a, b) for a, b in zip(before, ppo.learner.parameters, strict=True))
    assert all(parameter.isfinite().all() for parameter in ppo.learner.parameters)


def test_the_other_updates_of_a_rollout_are_learned_from(start: Any) -> None:
    ppo = start([[60, END], [61, END], [62, END], [END]], scores(0.0, 1.0, 2.0, 3.0))
    breaking(ppo, 0)
    ppo_step(ppo, 0, 0)
    assert ppo.learner.skipped == 1
    assert {"skipped", "loss/policy_avg", "val/ratio"} <= set(ppo.figures)
    assert all(math.isfinite(value) for value in ppo.figures.values())


def test_twenty_updates_in_a_row_whose_numbers_are_none_end_the_run(start: Any) -> None:
    ppo = start([[60, END], [61, END], [62, END], [END]], scores(0.0, 1.0, 2.0, 3.0))
    breaking(ppo, *range(100))
    for step in range(9):
        ppo_step(ppo, step, 0)
    with pytest.raises(TrainingError, match="no finite number for 20 steps in a row: lower the learning rate"):
        ppo_step(ppo, 9, 0)
    assert ppo.learner.skipped == 20
