from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.narrowing import existing
from tests.training.toys import events, run_folder, run_here, toy_policy, toy_tokenizer, turns
from training.__main__ import main
from training.contract import InputError, PromptRow, RankingRow, SampleRow, SamplingSettings, ScoresRow, Turn
from training.data.chat_format import ChatFormat
from training.data.fitting import fit_prompt
from training.engine import Engine
from training.rl.rollouts import encode_prompts, sample_replies
from training.run.reporting import ReportingRun
from training.stages.evaluate import agrees


@pytest.fixture(scope="module")
def policies(tmp_path_factory: Any) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("policies")
    return toy_policy(folder / "one", seed=1), toy_policy(folder / "two", seed=2)


def prompts(n: int = 6) -> list[dict[str, Any]]:
    return [{"id": f"prompt:{i}", "messages": turns(f"the cat {i}")} for i in range(n)]


def settings(**changed: Any) -> dict[str, Any]:
    return {"stage": "evaluate", "sampling": {"max_new_tokens": 6}, "slots": 4, **changed}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def measured(policies: Any, tmp_path_factory: Any) -> Any:
    one, two = policies
    rankings = [
        {"id": f"ranking:{i}", "messages": turns(f"how {i}?"), "replies": ["123", "cat", "4 cats"], "groups": groups}
        for i, groups in enumerate([[[0], [2], [1]], [[0], [1], [2]], [[1, 2], [0]]])
    ]
    folder = run_folder(
        tmp_path_factory.mktemp("measured"),
        settings(policy=str(one), baseline=str(two), reward="function:digits"),
        text=[{"id": "text:1", "text": "the cat sat on the mat"}],
        demonstrations=[{"id": "demonstration:1", "messages": turns("is it?", "yes of course")}],
        rankings=rankings,
        prompts=prompts(),
    )
    return folder, run_here(folder)


def test_every_measurement_tells_how_far_it_is(measured: Any) -> None:
    folder, _ = measured
    told = {(event["phase"], event["step"] == event["total"]) for event in events(folder, "progress")}
    assert {(phase, True) for phase in ("text", "demonstrations", "policy replies", "baseline replies", "kl")} <= told


def test_bits_per_byte_is_the_likelihood_of_the_text_over_its_bytes(measured: Any, policies: Any) -> None:
    _, result = measured
    text, chat = "the cat sat on the mat", ChatFormat(toy_tokenizer())
    model = AutoModelForCausalLM.from_pretrained(policies[0])
    ids = [chat.document_id, *chat.text(text)]
    logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    nats = -sum(logits[t - 1, ids[t]].item() for t in range(1, len(ids)))
    assert result["metrics"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text), rel=1e-4)


def test_the_reward_is_held_against_peoples_rankings(measured: Any) -> None:
    folder, result = measured
    # digits scores 1, 0, 1/6: right on 3 of 3, 2 of 3 and, of the third's two decided comparisons, none
    assert result["metrics"]["reward_accuracy"] == pytest.approx(5 / 8)
    assert result["counts"]["reward/ties"] == 1
    rows = [ScoresRow(**row) for row in lines(folder / "output" / "rankings.jsonl")]
    assert rows[0].scores == pytest.approx([1, 0, 1 / 6])
    assert [row.agrees for row in rows] == pytest.approx([1, 2 / 3, 0])


def test_two_policies_are_compared_on_the_same_prompts(measured: Any) -> None:
    folder, result = measured
    ours = [SampleRow(**row) for row in lines(folder / "output" / "samples.jsonl")]
    theirs = [SampleRow(**row) for row in lines(folder / "output" / "baseline.jsonl")]
    assert [row.id for row in ours] == [f"prompt:{i}#0" for i in range(6)] == [row.id for row in theirs]
    won = (
        sum(
            0.5 if a.reward == b.reward else float(existing(a.reward) > existing(b.reward))
            for a, b in zip(ours, theirs, strict=True)
        )
        / 6
    )
    assert result["metrics"]["win_rate"] == pytest.approx(won)
    low, high, n = result["intervals"]["win_rate"]
    assert low <= won <= high
    assert n == 6
    assert result["metrics"]["policy_reward"] == pytest.approx(sum(existing(row.reward) for row in ours) / 6)
    assert result["metrics"]["policy_length"] == pytest.approx(sum(row.tokens for row in ours) / 6)
    assert len(events(folder, "sample")) == 6


def test_the_kl_is_that_of_the_policys_replies(measured: Any, policies: Any) -> None:
    folder, result = measured
    chat = ChatFormat(toy_tokenizer())
    model, other = (AutoModelForCausalLM.from_pretrained(path) for path in policies)
    total = 0.0
    for row in (SampleRow(**row) for row in lines(folder / "output" / "samples.jsonl")):
        ids = chat.prompt(row.messages)
        start = len(ids)
        reply = _sampled_tokens(model, chat, row)
        ids = [*ids, *reply]
        p, q = (m(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1) for m in (model, other))
        total += sum((p[t - 1, ids[t]] - q[t - 1, ids[t]]).item() for t in range(start, len(ids)))
    assert result["metrics"]["kl"] == pytest.approx(total / 6, rel=1e-3)


def _sampled_tokens(model: Any, chat: ChatFormat, row: SampleRow) -> list[int]:
    """The reply's tokens once more, from the engine and its seed."""
    index = int(row.prompt_id.split(":")[1])
    all_prompts, _ = encode_prompts([PromptRow(**prompt) for prompt in prompts()], chat, 64)
    completions = sample_replies(
        Engine(model, chat.tokenizer, slots=4), all_prompts, SamplingSettings(max_new_tokens=6), (0, "evaluate")
    )
    assert completions[index].text == row.reply
    return completions[index].tokens


def test_a_policy_against_itself_wins_half_and_has_no_kl(policies: Any, tmp_path: Path) -> None:
    one = str(policies[0])
    folder = run_folder(tmp_path, settings(policy=one, baseline=one, reward="function:brevity"), prompts=prompts())
    result = run_here(folder)
    assert result["metrics"]["win_rate"] == 0.5
    assert result["metrics"]["kl"] == pytest.approx(0, abs=1e-4)


def test_it_tells_of_every_reply_and_stops_after_any(
    policies: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int, str]] = []

    def progress(_: Any, step: int, total: int, phase: str) -> None:
        told.append((step, total, phase))
        if (step, phase) == (2, "baseline replies"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ReportingRun, "progress", progress)
    one, two = map(str, policies)
    folder = run_folder(tmp_path, settings(policy=one, baseline=two), prompts=prompts())
    assert main(["evaluate", str(folder)]) == 143
    assert told == [(n, 6, "policy replies") for n in range(7)] + [(n, 6, "baseline replies") for n in range(3)]


def test_demonstrations_alone_are_enough(policies: Any, tmp_path: Path) -> None:
    rows = [{"id": "demonstration:1", "messages": turns("is it?", "yes of course")}]
    result = run_here(run_folder(tmp_path, settings(policy=str(policies[0])), demonstrations=rows))
    assert result["metrics"]["demonstration_loss"] == pytest.approx(math.log(298), rel=0.1)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("config", "data", "sentence"),
    [
        ({}, {}, "no text, demonstrations, rankings or prompts"),
        ({}, {"prompts": prompts(1)}, "prompts to measure on, but no policy is named"),
        (
            {},
            {"rankings": [{"id": "r", "messages": turns("a"), "replies": ["b", "c"], "groups": [[0], [1]]}]},
            "rankings to measure on, but no reward model is named",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, config: Any, data: Any, sentence: Any) -> None:
    with pytest.raises(InputError, match=sentence):
        run_here(run_folder(tmp_path, settings(**config), **data))


LONG: dict[str, Any] = {"id": "prompt:long", "messages": turns("the cat sat on the mat " * 20)}


@pytest.mark.parametrize(("how", "counts"), [("drop", (2, 1, 0)), ("shorten", (3, 0, 1))])
def test_prompts_without_room_for_a_reply_are_left_out_or_shortened(
    policies: Any, tmp_path: Path, how: Any, counts: Any
) -> None:
    config = settings(policy=str(policies[0]), baseline=str(policies[1]), long_prompts=how)
    folder = run_folder(tmp_path, config, prompts=[*prompts(2), LONG])
    told = run_here(folder)["counts"]
    assert tuple(told[f"prompts{name}"] for name in ("", "/left_out/too_long", "/cut/question")) == counts
    (warning,) = (event["message"] for event in events(folder, "warning"))
    assert warning.startswith("1 of 3 prompts are " + ("left out" if how == "drop" else "shortened to 58 tokens"))
    assert [row["prompt_id"] for row in lines(folder / "output" / "samples.jsonl")].count(LONG["id"]) == counts[2]


def test_a_shortened_prompt_is_answered_from_what_is_left(policies: Any, tmp_path: Path) -> None:
    config = settings(policy=str(policies[0]), baseline=str(policies[1]), long_prompts="shorten")
    config["sampling"] |= {"temperature": 0}
    folder = run_folder(tmp_path, config, prompts=[LONG])
    result = run_here(folder)
    model, chat = AutoModelForCausalLM.from_pretrained(policies[0]), ChatFormat(toy_tokenizer())
    fitted = fit_prompt(chat, [Turn(**turn) for turn in LONG["messages"]], 64 - 6)
    assert fitted is not None
    left = fitted.ids
    reply = model.generate(torch.tensor([left]), max_new_tokens=6, do_sample=False)[0, len(left) :].tolist()
    (row,) = lines(folder / "output" / "samples.jsonl")
    assert row["reply"] == chat.decode(reply)
    assert result["metrics"]["kl"] == pytest.approx(
        sum_of_logprobs(model, left, reply)
        - sum_of_logprobs(AutoModelForCausalLM.from_pretrained(policies[1]), left, reply),
        abs=1e-4,
    )


def sum_of_logprobs(model: Any, prompt: list[int], reply: list[int]) -> float:
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(reply))


def test_where_every_prompt_is_too_long_the_way_out_is_named(policies: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no prompt can be answered; 1 of 1 prompts .* set long_prompts to shorten"):
        run_here(run_folder(tmp_path, settings(policy=str(policies[0])), prompts=[LONG]))


def test_agreement_with_one_ranking_is_over_its_decided_comparisons() -> None:
    row = RankingRow(id="r", messages=[Turn(role="user", content="a")], replies=["x", "y", "z"], groups=[[0], [1, 2]])
    assert agrees(row, [1.0, 1.0, 0.0]) == 0.75
    tied = row.model_copy(update={"groups": [[0, 1, 2]]})
    assert agrees(tied, [1.0, 2.0, 3.0]) == 0.5
