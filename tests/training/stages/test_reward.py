"""Reward models: what they learn from rankings, and from whom.

Over 300 lines: all cases share the simulated annotators.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.training.toys import (
    USER_FIRST,
    events,
    foreign_policy,
    foreign_tokenizer,
    run_folder,
    run_here,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.contract import InputError, RankingRow, RewardSettings, Turn
from training.data.chat_format import ChatFormat
from training.models.compute import Compute
from training.preferences.annotator_reliability import PRIOR, Annotators, annotators_of, weights_of
from training.preferences.losses import Ranked, collate_comparisons, preference_loss
from training.preferences.rankings import ranking_examples, reply_sets, share_of_ties, usable_rankings_of
from training.preferences.reward_model import encode, load_reward, reward_from_language_model, score
from training.stages.reward import accuracy, mean_by_name

CPU = Compute(torch.device("cpu"), torch.float32)
GOOD, BAD, SOSO = "yes of course", "no never", "the mat"


def rankings(n: int, seed: int, **named: Any) -> list[dict[str, Any]]:
    """People who like yes, dislike no, and find two mats equal."""
    draw, rows = random.Random(seed), []
    for i in range(n):
        replies = [f"{kind} {draw.choice(['cat', 'sea', 'sky'])}" for kind in (GOOD, BAD, SOSO, SOSO)]
        order = draw.sample(range(4), 4)
        place = {old: new for new, old in enumerate(order)}
        rows.append(
            {
                "id": f"ranking:{seed}-{i}",
                "messages": turns(f"is the {draw.choice(['cat', 'sea'])} {i}?"),
                "replies": [replies[old] for old in order],
                "groups": [[place[0]], [place[2], place[3]], [place[1]]],
                "annotator": draw.choice(["ada", "ben"]),
                **named,
            }
        )
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> Any:
    return toy_policy(tmp_path_factory.mktemp("base") / "model")


def settings(base: Any, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "reward", "base": str(base), "learning_rate": 3e-3, "epochs": 3, "batch_tokens": 600,
        "evaluate_every": 0, "checkpoint_every": 0, **changed,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(base: Any, tmp_path_factory: Any) -> Any:
    folder = run_folder(
        tmp_path_factory.mktemp("reward"), settings(base), rankings=rankings(60, 1), heldout=rankings(20, 2)
    )
    return folder, run_here(folder)


def test_it_learns_what_people_like(trained: Any) -> None:
    folder, result = trained
    assert result["metrics"]["heldout_accuracy"] > 0.95
    low, high, n = result["intervals"]["heldout_accuracy"]
    assert low <= result["metrics"]["heldout_accuracy"] <= high
    assert n == 20 * 5
    model, tokenizer = load_reward(str(folder / "model"), CPU)
    asked = turns("is the cat 7?")
    good, bad = score(model, tokenizer, [[Turn(**turn) for turn in [*asked, *turns("", r)[1:]]] for r in (GOOD, BAD)])
    assert good > bad + 1


def test_it_tells_how_far_its_measurements_are(trained: Any) -> None:
    folder, _ = trained
    told = events(folder, "progress")
    assert {event["phase"] for event in told} == {"training", "held-out replies", "mean score"}
    assert all(
        any(event["step"] == event["total"] for event in told if event["phase"] == phase)
        for phase in ("held-out replies", "mean score")
    )


def test_scores_of_an_evaluation_are_told_as_they_come(trained: Any, tmp_path: Path) -> None:
    folder, _ = trained
    rows = rankings(10, 2)
    run_here(run_folder(tmp_path, {"stage": "evaluate", "reward": str(folder / "model")}, rankings=rows))
    told = [event for event in events(tmp_path, "progress") if event["phase"] == "scores"]
    assert told[-1]["step"] == told[-1]["total"] == sum(len(row["replies"]) for row in rows)


def test_the_result_counts_by_annotator_and_reports_length(trained: Any) -> None:
    _, result = trained
    counts = result["counts"]
    assert (
        counts["heldout/comparisons"]
        == counts["heldout/annotator/ada/comparisons"] + counts["heldout/annotator/ben/comparisons"]
    )
    assert counts["heldout/ties"] == 20
    assert {"heldout_length_correlation", "heldout_length_only_accuracy", "heldout_calibration_temperature"} <= set(
        result["metrics"]
    )
    assert result["metrics"]["heldout_gap_tied"] < result["metrics"]["heldout_gap_decided"]
    assert result["model"]["kind"] == "reward"


def test_other_tools_load_the_model_and_give_the_same_scores(trained: Any) -> None:
    folder, _ = trained
    other = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    assert other.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    talk = turns("is the sea 3?", "yes of course cat")
    ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)["input_ids"]
    model, own_tokenizer = load_reward(str(folder / "model"), CPU)
    ours = score(model, own_tokenizer, [[Turn(**turn) for turn in talk]])
    assert other(input_ids=ids).logits.item() == pytest.approx(ours[0], abs=1e-5)


def test_scores_do_not_depend_on_their_neighbors(trained: Any) -> None:
    folder, _ = trained
    model, tokenizer = load_reward(str(folder / "model"), CPU)
    talks = [[Turn(**turn) for turn in turns("is it?", "the cat " * n)] for n in (1, 9, 0, 4)]
    together = score(model, tokenizer, talks)
    alone = [score(model, tokenizer, [talk])[0] for talk in talks]
    assert together == pytest.approx(alone, abs=1e-5)
    assert score(model, tokenizer, talks, micro_tokens=1) == pytest.approx(alone, abs=1e-5)
    assert score(model, tokenizer, []) == []


def test_too_few_rankings_are_a_sentence(base: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(base), rankings=rankings(3, 1))
    with pytest.raises(InputError, match="reward: 3 rankings in the snapshot, at least 20 are needed"):
        run_here(folder)
    assert events(folder, "failed")[0]["message"] == "reward: 3 rankings in the snapshot, at least 20 are needed"


def test_rankings_of_nothing_but_ties_cannot_teach_where_ties_are_dropped(base: Any, tmp_path: Path) -> None:
    rows = [{**row, "groups": [[0, 1, 2, 3]]} for row in rankings(20, 1)]
    folder = run_folder(tmp_path, settings(base, ties="drop"), rankings=rows)
    with pytest.raises(InputError, match="no ranking puts one reply above another"):
        run_here(folder)


@pytest.mark.parametrize("ties", ["davidson", "drop"])
def test_the_other_models_of_ties_learn_too(base: Any, tmp_path: Path, ties: Any) -> None:
    folder = run_folder(tmp_path, settings(base, ties=ties), rankings=rankings(40, 1), heldout=rankings(10, 2))
    result = run_here(folder)
    assert result["metrics"]["heldout_accuracy"] > 0.9
    kept = json.loads((folder / "model" / "config.json").read_text())["reward"]
    assert ("log_nu" in kept) == (ties == "davidson")


def test_an_adapter_learns_and_is_saved_merged(base: Any, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path,
        settings(base, lora={"rank": 4}, learning_rate=1e-2),
        rankings=rankings(40, 1),
        heldout=rankings(10, 2),
    )
    result = run_here(folder)
    assert result["metrics"]["heldout_accuracy"] > 0.9
    measured = [event for event in events(folder, "progress") if event["phase"] == "held-out replies"]
    assert [event["step"] for event in measured].count(0) == 1  # merging does not call for a second measurement
    model, tokenizer = load_reward(str(folder / "model"), CPU)
    row = RankingRow(**rankings(1, 2)[0])
    talks = [[*row.messages, Turn(role="assistant", content=reply)] for reply in row.replies]
    scores = score(model, tokenizer, talks)
    assert max(range(4), key=scores.__getitem__) == row.groups[0][0]


def test_rows_without_weight_are_left_out_and_counted() -> None:
    rows = [RankingRow(**{**row, "weight": weight}) for row, weight in zip(rankings(3, 1), (0, 1, 2), strict=True)]
    kept, left_out = usable_rankings_of(rows, RewardSettings())
    assert [row.weight for row in kept] == [1, 2]
    assert left_out == {"left_out/no_weight": 1, "left_out/only_ties": 0}


def test_the_share_of_ties_is_over_comparisons() -> None:
    assert share_of_ties([RankingRow(**row) for row in rankings(2, 1)]) == pytest.approx(1 / 6)


def test_one_encoding_serves_all_comparisons_of_a_ranking() -> None:
    chat, rows = ChatFormat(toy_tokenizer()), [RankingRow(**row) for row in rankings(2, 1)]
    _, examples, _ = ranking_examples(rows, chat, RewardSettings(), 64, CPU)
    batch = examples.batch(np.array([1, 0]))
    assert len(batch.packed.starts) == 8
    assert len(batch.comparisons.first) == 12
    assert batch.weight == 2
    assert (batch.packed.ids[0, batch.packed.starts + batch.packed.lengths - 1] == chat.end_id).all()


def as_tokens(replies: RankingRow | list[str]) -> list[list[int]]:
    return [list(reply.encode()) for reply in (replies.replies if isinstance(replies, RankingRow) else replies)]


def test_a_set_that_two_people_saw_in_different_orders_is_encoded_once() -> None:
    ask = turns("who?")
    one = RankingRow(id="ranking:1", messages=ask, replies=["the cat", "the sea", "no"], groups=[[0], [2], [1]])
    other = RankingRow(
        id="ranking:2", messages=ask, replies=["no", "the cat", "the sea"], groups=[[0], [1, 2]], weight=3
    )
    apart = RankingRow(id="ranking:3", messages=ask, replies=["no", "the cat"], groups=[[0], [1]])
    shared, alone = reply_sets([one, other, apart], [as_tokens(row) for row in (one, other, apart)])
    assert shared.encoded == as_tokens(["no", "the cat", "the sea"])
    assert [ranked.groups for ranked in shared.rankings] == [[[1], [0], [2]], [[0], [1, 2]]]
    assert shared.weight == 4
    assert len(alone.rankings) == 1


def test_replies_of_the_same_words_keep_their_own_places() -> None:
    row = RankingRow(id="ranking:1", messages=turns("who?"), replies=["b", "a", "b"], groups=[[2], [1], [0]])
    (found,) = reply_sets([row], [as_tokens(row)])
    assert [[bytes(found.encoded[i]) for i in group] for group in found.rankings[0].groups] == [[b"b"], [b"a"], [b"b"]]


def test_the_end_token_is_read_even_where_the_reply_is_cut() -> None:
    chat = ChatFormat(toy_tokenizer())
    ids = encode(chat, [Turn(role="user", content="hello " * 50)], "the cat " * 50, 20).encoded.ids
    assert len(ids) == 20
    assert ids[-1] == chat.end_id


def test_training_accuracy_leaves_ties_out() -> None:
    batch = collate_comparisons([[Ranked([[0], [1, 2]])]])
    assert accuracy(torch.tensor([1.0, 2.0, 0.0]), batch) == {"accuracy": (1.0, 2)}
    assert accuracy(torch.tensor([1.0, 1.0, 0.0]), batch) == {"accuracy": (1.5, 2)}


def test_the_careless_are_found_out_and_followed_less(base: Any, tmp_path: Path) -> None:
    draw, rows = random.Random(3), rankings(90, 1)
    for i, row in enumerate(rows):
        row["annotator"] = ("ada", "ben", "eve")[i % 3]
        if row["annotator"] == "eve":
            row["groups"] = [[place] for place in draw.sample(range(4), 4)]
    rows[0] |= {"annotator": "new", "groups": rows[0]["groups"][::-1]}
    config = settings(base, epochs=6, annotator_reliability=True)
    result = run_here(run_folder(tmp_path, config, rankings=rows, heldout=rankings(20, 2)))
    found = {name: result["metrics"][f"annotator_reliability/{name}"] for name in ("ada", "ben", "eve", "new")}
    assert found["eve"] < 0.6 < 1 < min(found["ada"], found["ben"])
    assert found["new"] > 0.6  # one ranking says little
    assert result["metrics"]["heldout_accuracy"] > 0.9


def test_reliabilities_are_the_best_under_the_prior() -> None:
    """Two people of four comparisons each of replies that lie 2 apart, one always right and one in 3 of 4. Their
    logarithms are x and -x, and the whole loss over a grid of x has its minimum where the gradient vanishes."""
    people = Annotators([0.0, 4.0, 4.0])
    right, wrong = [[0], [1]], [[1], [0]]
    said = [(right, 1)] * 4 + [(right, 2)] * 3 + [(wrong, 2)]
    batch = collate_comparisons([[Ranked(groups, annotator=person)] for groups, person in said])
    scores = torch.tensor([2.0, 0.0] * 8)
    optimizer = torch.optim.LBFGS(people.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        total = preference_loss(scores, batch, reliability=people()) + people.penalty(batch)
        total.backward()
        return total

    def worth(x: float) -> float:
        surely, mostly = 2 * math.exp(x), 2 * math.exp(-x)
        nats = 4 * math.log1p(math.exp(-surely)) + 3 * math.log1p(math.exp(-mostly)) + math.log1p(math.exp(mostly))
        return nats + 2 * x**2 / (2 * PRIOR**2)

    optimizer.step(loss)
    best = min((i / 1000 for i in range(-2000, 2000)), key=worth)
    assert best > 0.1
    assert people().tolist() == pytest.approx([1, math.exp(best), math.exp(-best)], abs=2e-3)


def test_people_have_numbers_from_one_on_and_nobody_has_none() -> None:
    rows = [
        RankingRow(**{**row, "annotator": name}) for row, name in zip(rankings(3, 1), ("eve", "", "ada"), strict=True)
    ]
    assert annotators_of(rows) == ["ada", "eve"]
    assert weights_of(rows) == [1, 1, 1]
    assert [
        ranked.annotator for one in reply_sets(rows, [as_tokens(row) for row in rows]) for ranked in one.rankings
    ] == [2, 0, 1]


def test_a_language_model_is_no_reward_model(base: Any) -> None:
    with pytest.raises(InputError, match="this is no reward model"):
        load_reward(str(base), CPU)


def test_a_damaged_reward_model_is_named(trained: Any, tmp_path: Path) -> None:
    folder, _ = trained
    broken = tmp_path / "model"
    broken.mkdir()
    for path in (folder / "model").iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 1000 if path.suffix == ".safetensors" else None])
    with pytest.raises(InputError, match="damaged or incomplete"):
        load_reward(str(broken), CPU)


def test_only_the_adapter_and_the_head_learn_with_lora(base: Any) -> None:
    _, model = reward_from_language_model(str(base), CPU, RewardSettings(lora={"rank": 2}).lora)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert "head.weight" in learning
    assert all("lora" in name or name == "head.weight" for name in learning)


# ------------------------------------------------------------------------------------------------- what does not fit


def test_replies_that_are_equal_after_the_cut_teach_nothing_and_are_counted() -> None:
    chat, asked = ChatFormat(toy_tokenizer()), turns("why?")
    same = ["the cat " * 20 + "yes", "the cat " * 20 + "no"]
    rows = [
        RankingRow(id="ranking:1", messages=asked, replies=same, groups=[[0], [1]]),
        RankingRow(id="ranking:2", messages=asked, replies=[*same, "sea"], groups=[[0], [1], [2]]),
    ]
    kept, examples, changes = ranking_examples(rows, chat, RewardSettings(), 30, CPU)
    assert [row.id for row in kept] == ["ranking:2"]
    comparisons = examples.batch(np.array([0])).comparisons
    assert len(comparisons.first) == 2  # each of the equal ones against the third
    assert changes.named() == {"left_out/equal": 1, "cut/equal_pairs": 1, "cut/reply": 1}
    assert "1 of 2 rankings are left out: their replies are equal in the first 30 tokens (the first is ranking:1)" in (
        changes.sentences(2)
    )


def test_a_row_that_the_template_refuses_is_left_out_of_the_reward_run_and_named(tmp_path: Path) -> None:
    base = foreign_policy(tmp_path / "base", foreign_tokenizer(USER_FIRST))
    odd = rankings(1, 5)[0] | {"id": "ranking:odd"}
    odd["messages"] = [{"role": "assistant", "content": "hello"}, *odd["messages"]]
    config = {"stage": "reward", "base": str(base), "min_rows": 1, "max_steps": 1, "evaluate_every": 0}
    folder = run_folder(tmp_path / "run", config, rankings=[*rankings(4, 1), odd], heldout=[*rankings(2, 2), odd])
    counts = run_here(folder)["counts"]
    assert (counts["rankings"], counts["left_out/refused"], counts["heldout/left_out/refused"]) == (4, 1, 1)
    assert any("ranking:odd: the user speaks first" in event["message"] for event in events(folder, "warning"))


def test_dropout_of_an_adapter_takes_effect(base: Any, tmp_path: Path) -> None:
    """And only while it learns: the saved model scores the same twice."""
    losses = {}
    for dropout in (0.0, 0.5):
        config = settings(base, epochs=1, lora={"rank": 4, "dropout": dropout})
        folder = run_folder(tmp_path / str(dropout), config, rankings=rankings(40, 1))
        run_here(folder)
        losses[dropout] = [event["values"]["loss"] for event in events(folder, "metric") if "loss" in event["values"]]
        model, tokenizer = load_reward(str(folder / "model"), CPU)
        conversation = [[Turn(**turn) for turn in turns("is the cat here?", "yes")]]
        assert score(model, tokenizer, conversation) == score(model, tokenizer, conversation)
    assert losses[0.0] != losses[0.5]


def test_a_figure_that_not_every_member_of_an_ensemble_has_is_the_mean_of_those_that_have_it() -> None:
    members = [{"loss": 1.0, "heldout_reliability/0.6": 0.5}, {"loss": 2.0, "heldout_reliability/0.9": 1.0}]
    means = {"loss": 1.5, "heldout_reliability/0.6": 0.5, "heldout_reliability/0.9": 1.0}
    assert mean_by_name(members) == means
