from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.training.stages.test_dpo import preference
from tests.training.stages.test_reward import BAD, GOOD, rankings
from tests.training.toys import (
    USER_FIRST,
    events,
    foreign_tokenizer,
    run_folder,
    run_here,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.contract import InputError, JudgmentRow, RankingRow, Turn
from training.data.chat_format import ChatFormat
from training.stages.kto import encode_verdicts, verdicts_of, with_mismatched_replies


@pytest.fixture(scope="module")
def policy(tmp_path_factory: Any) -> Any:
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


def settings(policy: Any, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "kto", "policy": str(policy), "learning_rate": 2e-3, "epochs": 4, "batch_tokens": 1000,
        "evaluate_every": 0, "checkpoint_every": 0, **changed,
    }  # fmt: skip


def test_the_policy_comes_to_prefer_what_people_found_good(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy), rankings=rankings(40, 1), heldout=rankings(8, 2))
    result = run_here(folder)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (policy, folder / "model"))
    asked = ("is the sea 3?", f"{GOOD} cat", f"{BAD} cat")
    assert preference(after, *asked) > preference(before, *asked) + 1
    assert (result["counts"]["good"], result["counts"]["bad"]) == (40, 40)
    assert {"loss", "rewards/margins"} <= {name for event in events(folder, "metric") for name in event["values"]}


def test_an_adapter_learns_alone(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, lora={"rank": 2}, max_steps=2), rankings=rankings(20, 1))
    assert run_here(folder)["model"]["kind"] == "adapter"


def test_the_middle_of_a_ranking_is_neither_good_nor_bad() -> None:
    chat = ChatFormat(toy_tokenizer())
    asked = [Turn(**turn) for turn in turns("which?")]
    row = RankingRow(id="r", messages=asked, replies=["yes", "no", "sea", "sky"], groups=[[2], [0, 3], [1]])
    found = [
        (one["completion_ids"], one["label"]) for one in encode_verdicts(verdicts_of([row], []), chat, 64).examples
    ]
    assert found == [(chat.reply("sea", asked), True), (chat.reply("no", asked), False)]
    tied = row.model_copy(update={"groups": [[0, 1, 2, 3]]})
    assert verdicts_of([tied], []) == []


def test_each_reply_is_mismatched_with_one_to_another_prompt() -> None:
    rows = [{"prompt_ids": [prompt], "completion_ids": [i]} for i, prompt in enumerate([7, 7, 8, 8, 9])]
    assert [one["KL_completion_ids"] for one in with_mismatched_replies(rows)] == [[4], [4], [1], [1], [3]]


def test_a_mismatched_pair_is_no_longer_than_the_longest_example() -> None:
    rows = [{"prompt_ids": [1, 2, 3], "completion_ids": [4]}, {"prompt_ids": [5], "completion_ids": [6, 7, 8]}]
    assert [one["KL_completion_ids"] for one in with_mismatched_replies(rows)] == [[6], [4]]


def test_replies_to_one_prompt_alone_are_mismatched_with_each_other() -> None:
    rows = [{"prompt_ids": [1], "completion_ids": [i]} for i in range(3)]
    assert [one["KL_completion_ids"] for one in with_mismatched_replies(rows)] == [[2], [0], [1]]


def judgments(n: int, *, good_only: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "id": f"judgment:{i}",
            "messages": turns(f"is the sea {i}?"),
            "reply": f"{GOOD if good else BAD} cat",
            "good": good,
        }
        for i in range(n)
        for good in ((True,) if good_only else (True, False))
    ]


def test_the_policy_learns_from_replies_that_were_called_good_or_bad_alone(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy), judgments=judgments(40), heldout_judgments=judgments(4))
    result = run_here(folder)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (policy, folder / "model"))
    asked = ("is the sea 3?", f"{GOOD} cat", f"{BAD} cat")
    assert preference(after, *asked) > preference(before, *asked) + 1
    counts = result["counts"]
    assert (counts["rankings"], counts["judgments"], counts["good"], counts["bad"]) == (0, 80, 40, 40)
    assert (counts["heldout_good"], counts["heldout_bad"]) == (4, 4)


def test_a_reply_whose_prompt_the_template_refuses_is_left_out_and_counted() -> None:
    asked = turns("hello", "which?")
    rows = [
        JudgmentRow(id=f"judgment:{i}", messages=messages, reply="yes", good=True)
        for i, messages in enumerate((asked[1:], asked[:1]))
    ]
    replies = encode_verdicts(verdicts_of([], rows), ChatFormat(foreign_tokenizer(USER_FIRST)), 100)
    assert (len(replies.examples), replies.changes.named()) == (1, {"left_out/refused": 1})


def test_judgments_of_one_kind_are_a_sentence(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kto: no bad to learn from"):
        run_here(run_folder(tmp_path, settings(policy), judgments=judgments(20, good_only=True)))


def test_too_few_labels_are_a_sentence_with_both_numbers(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kto: 1 rankings and 2 judgments in the snapshots, at least 20 are needed"):
        run_here(run_folder(tmp_path, settings(policy), rankings=rankings(1, 1), judgments=judgments(1)))


def test_rankings_of_nothing_but_ties_are_a_sentence(policy: Any, tmp_path: Path) -> None:
    rows = [{**row, "groups": [[0, 1, 2, 3]]} for row in rankings(20, 1)]
    with pytest.raises(InputError, match="kto: no ranking puts one reply above another"):
        run_here(run_folder(tmp_path, settings(policy), rankings=rows))


def test_the_seed_decides_the_order_of_the_replies(policy: Any, tmp_path: Path) -> None:
    losses = []
    for seed in (0, 1):
        config = settings(policy, seed=seed, epochs=1, max_steps=3, batch_tokens=64, log_every=1)
        folder = run_folder(tmp_path / str(seed), config, rankings=rankings(20, 1))
        run_here(folder)
        losses.append([event["values"].get("logps/chosen") for event in events(folder, "metric")])
    assert losses[0] != losses[1]
