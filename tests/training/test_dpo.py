from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.training.test_reward import BAD, GOOD, rankings
from tests.training.toys import events, run_folder, run_here, toy_policy, toy_tokenizer, turns
from training.chatformat import ChatFormat
from training.contract import InputError, RankingRow, Turn
from training.dpo import pairs_of
from training.forward import Forward
from training.packing import text_batch


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return toy_policy(tmp_path_factory.mktemp("policy") / "model")


def settings(policy, **changed) -> dict:
    return {
        "stage": "dpo", "policy": str(policy), "learning_rate": 2e-3, "epochs": 2, "batch_tokens": 1000,
        "evaluate_every": 0, "checkpoint_every": 0, **changed,
    }  # fmt: skip


def preference(model, prompt: str, chosen: str, rejected: str) -> float:
    """log p(chosen) - log p(rejected)"""
    chat = ChatFormat(toy_tokenizer())
    found = []
    for reply in (chosen, rejected):
        encoded = chat.exchange([Turn(role="user", content=prompt)], reply, 64)
        with torch.no_grad():
            losses = Forward(model).losses(text_batch([encoded.ids], [encoded.mask], chat.pad_id, torch.device("cpu")))
        found.append(-losses.sum().item())
    return found[0] - found[1]


def test_the_policy_comes_to_prefer_what_people_prefer(policy, tmp_path):
    folder = run_folder(tmp_path, settings(policy), rankings=rankings(40, 1), heldout=rankings(8, 2))
    result = run_here(folder)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (policy, folder / "model"))
    asked = ("is the sea 3?", f"{GOOD} cat", f"{BAD} cat")
    assert preference(after, *asked) > preference(before, *asked) + 2
    assert result["metrics"]["heldout_rewards/accuracies"] > 0.9
    assert (result["counts"]["pairs"], result["counts"]["heldout_pairs"]) == (40 * 5, 8 * 5)
    assert {"loss", "rewards/margins"} <= {name for event in events(folder, "metric") for name in event["values"]}
    assert not (folder / "trl.partial").exists()


def test_an_adapter_learns_alone(policy, tmp_path):
    folder = run_folder(tmp_path, settings(policy, lora={"rank": 2}, max_steps=4), rankings=rankings(20, 1))
    result = run_here(folder)
    assert result["model"]["kind"] == "adapter"
    assert sorted(path.name for path in (folder / "model").iterdir() if path.is_dir()) == []
    saved = load_file(folder / "model" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in saved.items() if "lora_B" in name)


def test_pairs_hold_no_ties_and_keep_the_end_of_the_prompt():
    chat = ChatFormat(toy_tokenizer())
    row = RankingRow(
        id="r", messages=[Turn(**t) for t in turns("the cat " * 30)], replies=["yes", "no", "sea"], groups=[[2], [0, 1]]
    )
    pairs = pairs_of([row], chat, 20)
    assert [pair["chosen_ids"] for pair in pairs] == [chat.reply("sea", row.messages)] * 2
    for pair in pairs:
        assert pair["prompt_ids"] == chat.prompt(row.messages)[-len(pair["prompt_ids"]) :]
        assert len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) == 20


def test_too_few_rankings_are_a_sentence(policy, tmp_path):
    with pytest.raises(InputError, match="dpo: 3 rankings in the snapshot, at least 20 are needed"):
        run_here(run_folder(tmp_path, settings(policy), rankings=rankings(3, 1)))


def test_rankings_of_nothing_but_ties_are_a_sentence(policy, tmp_path):
    rows = [{**row, "groups": [[0, 1, 2, 3]]} for row in rankings(20, 1)]
    with pytest.raises(InputError, match="no ranking puts one reply above another"):
        run_here(run_folder(tmp_path, settings(policy), rankings=rows))
