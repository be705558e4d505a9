from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

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
from training.contract import DPOSettings, InputError, RankingRow, Turn
from training.data.chat_format import ChatFormat
from training.data.packing import text_batch
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal
from training.rl.trl import from_labels
from training.stages.dpo import encode_pairs

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: Any) -> Any:
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


def settings(policy: Any, **changed: Any) -> dict[str, Any]:
    return {
        "stage": "dpo", "policy": str(policy), "learning_rate": 2e-3, "epochs": 2, "batch_tokens": 1000,
        "evaluate_every": 0, "checkpoint_every": 0, **changed,
    }  # fmt: skip


def preference(model: Any, prompt: str, chosen: str, rejected: str) -> float:
    """log p(chosen) - log p(rejected)"""
    chat = ChatFormat(toy_tokenizer())
    found = []
    for reply in (chosen, rejected):
        encoded = chat.exchange([Turn(role="user", content=prompt)], reply, 64)
        with torch.no_grad():
            losses = Forward(model).losses(text_batch([encoded.ids], [encoded.mask], chat.pad_id, torch.device("cpu")))
        found.append(-losses.sum().item())
    return found[0] - found[1]


def test_the_policy_comes_to_prefer_what_people_prefer(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy), rankings=rankings(40, 1), heldout=rankings(8, 2))
    result = run_here(folder)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (policy, folder / "model"))
    asked = ("is the sea 3?", f"{GOOD} cat", f"{BAD} cat")
    assert preference(after, *asked) > preference(before, *asked) + 2
    assert result["metrics"]["heldout_rewards/accuracies"] > 0.9
    assert (result["counts"]["pairs"], result["counts"]["heldout_pairs"]) == (40 * 5, 8 * 5)
    assert {"loss", "rewards/margins"} <= {name for event in events(folder, "metric") for name in event["values"]}
    assert not (folder / "trl.partial").exists()


def test_an_adapter_learns_alone(policy: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, settings(policy, lora={"rank": 2}, max_steps=4), rankings=rankings(20, 1))
    result = run_here(folder)
    assert result["model"]["kind"] == "adapter"
    assert sorted(path.name for path in (folder / "model").iterdir() if path.is_dir()) == []
    saved = load_file(folder / "model" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in saved.items() if "lora_B" in name)


def compared(*replies: str, groups: list[list[int]], asked: list[dict[str, str]] | None = None) -> RankingRow:
    return RankingRow(id="r:1", messages=asked or turns("which?"), replies=list(replies), groups=groups)


def test_pairs_hold_no_ties_and_lose_their_oldest_turns_first() -> None:
    chat = ChatFormat(toy_tokenizer())
    asked = [{"role": "system", "content": "no"}, *turns("the cat " * 30, "yes", "which?")]
    row = compared("yes", "no", "sea", groups=[[2], [0, 1]], asked=asked)
    pairs, changes, total, _ = encode_pairs([row], chat, 30)
    assert [pair["chosen_ids"] for pair in pairs] == [chat.reply("sea", row.messages)] * 2
    assert {chat.tokenizer.decode(pair["prompt_ids"]) for pair in pairs} == {
        "<|system|>no<|end|><|user|>which?<|end|><|assistant|>"
    }
    assert (total, changes.named()) == (2, {"cut/older_turns": 2})


def test_pairs_that_do_not_fit_are_left_out_counted_and_told(policy: Any, tmp_path: Path) -> None:
    short, long = ("word a", "no"), ("sky " * 60, "no")
    rows = [
        {"id": f"r:{i}", "messages": turns("what?"), "replies": list(long if i % 2 else short), "groups": [[0], [1]]}
        for i in range(8)
    ]
    folder = run_folder(tmp_path / "half", settings(policy, max_tokens=40, max_steps=2, min_rows=1), rankings=rows)
    result = run_here(folder)
    assert (result["counts"]["pairs"], result["counts"]["left_out/too_long"]) == (4, 4)
    assert "4 of 8 pairs are left out: longer than 40 tokens (the first is r:1)" in [
        event["message"] for event in events(folder, "warning")
    ]
    folder = run_folder(tmp_path / "all", settings(policy, max_tokens=40, min_rows=1), rankings=rows[1::2])
    with pytest.raises(InputError, match=r"dpo: no pairs to learn from; 4 of 4 pairs are left out: longer than 40"):
        run_here(folder)


def test_pairs_whose_sides_are_the_same_tokens_are_left_out() -> None:
    chat = ChatFormat(toy_tokenizer())
    _, changes, _, counts = encode_pairs([compared("yes", "yes", "no", groups=[[0], [1], [2]])], chat, 60)
    assert (changes.named(), counts) == ({"left_out/equal": 1}, {"pairs": 2})


def test_a_ranking_that_the_template_refuses_is_left_out_and_each_of_its_pairs_counted() -> None:
    chat = ChatFormat(foreign_tokenizer(USER_FIRST))
    odd = compared("yes", "no", "sea", groups=[[0], [1], [2]], asked=turns("hello", "which?")[1:])
    pairs, changes, total, _ = encode_pairs([odd, compared("yes", "no", groups=[[0], [1]])], chat, 100)
    assert (len(pairs), total, changes.named()) == (1, 4, {"left_out/refused": 3})
    assert "(the first is r:1: the user speaks first)" in changes.sentences(total)[0]


def test_too_few_rankings_are_a_sentence(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dpo: 3 rankings in the snapshot, at least 20 are needed"):
        run_here(run_folder(tmp_path, settings(policy), rankings=rankings(3, 1)))


def test_rankings_of_nothing_but_ties_are_a_sentence(policy: Any, tmp_path: Path) -> None:
    rows = [{**row, "groups": [[0, 1, 2, 3]]} for row in rankings(20, 1)]
    with pytest.raises(InputError, match="no ranking puts one reply above another"):
        run_here(run_folder(tmp_path, settings(policy), rankings=rows))


@pytest.mark.fp32
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, math.log(2)),
        ({"loss": "ipo", "beta": 0.25}, 4.0),  # (0 - 1 / (2 beta))²
        ({"loss": "robust", "label_smoothing": 0.2}, math.log(2)),  # (0.8 - 0.2) log 2 / (1 - 0.4)
    ],
)
def test_the_loss_of_a_policy_that_is_its_reference(policy: Any, tmp_path: Path, changed: Any, expected: float) -> None:
    folder = run_folder(tmp_path, settings(policy, max_steps=1, **changed), rankings=rankings(20, 1))
    run_here(folder)
    losses = [event["values"]["loss"] for event in events(folder, "metric") if "loss" in event["values"]]
    assert losses[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.fp32
def test_smoothing_changes_what_is_learned(policy: Any, tmp_path: Path) -> None:
    losses = []
    for name, changed in {"sigmoid": {}, "robust": {"loss": "robust", "label_smoothing": 0.3}}.items():
        folder = run_folder(tmp_path / name, settings(policy, max_steps=4, **changed), rankings=rankings(20, 1))
        run_here(folder)
        losses.append([event["values"]["loss"] for event in events(folder, "metric") if "loss" in event["values"]][-1])
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


FREE = {
    "simpo": {"loss": "simpo", "simpo_beta": 2.5, "simpo_margin": 1.25},
    "orpo": {"loss": "orpo", "orpo_weight": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("loss", FREE)
@pytest.mark.parametrize("lora", [{}, {"rank": 4}], ids=["full", "adapter"])
def test_without_a_reference_model_it_comes_to_prefer_what_people_prefer(
    policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, lora: Any
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(from_labels, "load_causal", lambda *a, **named: loaded.append(a) or load_causal(*a, **named))
    config = settings(policy, **FREE[loss], lora=lora, epochs=4, learning_rate=2e-2 if lora else 2e-3)
    folder = run_folder(tmp_path, config, rankings=rankings(40, 1), heldout=rankings(8, 2))
    result = run_here(folder)
    assert len(loaded) == 1
    before, after = AutoModelForCausalLM.from_pretrained(policy), load_causal(str(folder / "model"), CPU)
    asked = ("is the sea 3?", f"{GOOD} cat", f"{BAD} cat")
    assert preference(after, *asked) > preference(before, *asked) + 2
    assert result["metrics"]["heldout_rewards/accuracies"] > 0.9
    assert result["model"]["kind"] == ("adapter" if lora else "full")


@pytest.mark.fp32
@pytest.mark.parametrize("loss", FREE)
def test_the_first_loss_without_a_reference_is_that_of_its_paper(policy: Any, tmp_path: Path, loss: str) -> None:
    prompt, chosen, rejected = "what is it?", "yes of course", "no"
    row = {"id": "r:1", "messages": turns(prompt), "replies": [chosen, rejected], "groups": [[0], [1]]}
    config = settings(policy, **FREE[loss], max_steps=1, min_rows=1, log_every=1)
    folder = run_folder(tmp_path, config, rankings=[row])
    run_here(folder)
    model, chat = Forward(AutoModelForCausalLM.from_pretrained(policy)), ChatFormat(toy_tokenizer())
    means: list[float] = []
    whole: list[float] = []
    for reply in (chosen, rejected):
        encoded = chat.exchange([Turn(role="user", content=prompt)], reply, 64)
        for mask, column in ((encoded.mask, means), ([i > 0 for i in range(len(encoded.ids))], whole)):
            with torch.no_grad():
                losses = model.losses(text_batch([encoded.ids], [mask], chat.pad_id, torch.device("cpu")))
            column.append(-losses.mean().item())
    if loss == "simpo":  # equation 6
        expected = -log_sigmoid(2.5 * (means[0] - means[1]) - 1.25)
    else:  # equations 6 and 7; TRL takes the likelihood of prompt and reply
        odds = [mean - math.log1p(-math.exp(mean)) for mean in means]
        expected = -whole[0] - 0.5 * log_sigmoid(odds[0] - odds[1])
    told = [event["values"]["loss"] for event in events(folder, "metric") if "loss" in event["values"]]
    assert told[0] == pytest.approx(expected, rel=1e-3)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize(
    "changed",
    [{"loss": "simpo", "beta": 0.3}, {"simpo_beta": 3.0}, {"loss": "orpo", "simpo_margin": 2.0}, {"orpo_weight": 1.0}],
)
def test_a_setting_of_another_loss_is_refused(changed: Any) -> None:
    with pytest.raises(ValueError, match="it has no effect with loss"):
        DPOSettings(**changed)


@pytest.mark.parametrize("changed", [{"loss": "robust"}, {"label_smoothing": 0.1}])
def test_smoothing_belongs_to_the_robust_loss(changed: Any) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        DPOSettings(**changed)
