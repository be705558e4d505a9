from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.narrowing import existing
from tests.training.toys import TEXTS, events, prompts, run_folder, run_here, toy_policy, toy_tokenizer, turns
from training.contract import InputError, LoraSettings, PromptRow, Turn, parts_of_shaping
from training.data.chat_format import ChatFormat
from training.models.compute import Compute
from training.preferences.reward_functions import find_reward_function, reward_function
from training.preferences.reward_model import encode, load_reward, reward_from_language_model, save_reward
from training.preferences.rewards import Rewards
from training.rl.policies import value_head
from training.rl.rollouts import encode_prompts, load_scorer, pad_rows, prompt_room, prompts_of_step
from training.stages.tokenizer import learn_vocabulary, wrap

CPU = Compute(torch.device("cpu"), torch.float32)
ASKED = [[Turn(**turn) for turn in turns("is the cat on the mat?")]]


def scores_of(scorer: Rewards, *replies: str) -> list[float]:
    row = PromptRow(id="prompt:1", messages=ASKED[0])
    return [existing(reply.score) for reply in scorer([row] * len(replies), replies)]


@pytest.fixture
def reward_folder(tmp_path: Path) -> Any:
    """An untrained reward model whose tokenizer is not the policy's."""
    base = toy_policy(tmp_path / "base")
    _, model = reward_from_language_model(str(base), CPU, LoraSettings())
    other = wrap(learn_vocabulary(iter(TEXTS), 270, len(TEXTS)), 64)
    save_reward(model, other, tmp_path / "reward", {"max_tokens": 64, "temperature": 1.0})
    return tmp_path / "reward"


def test_the_reward_model_reads_the_text_in_its_own_tokens(reward_folder: Any) -> None:
    scorer = load_scorer(str(reward_folder), CPU)
    model, tokenizer = load_reward(str(reward_folder), CPU)
    assert tokenizer.get_vocab() != toy_tokenizer().get_vocab()
    ids = encode(ChatFormat(tokenizer), ASKED[0], "yes it is", 64).encoded.ids
    slow = model.head(model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]).item()
    assert scores_of(scorer, "yes it is") == pytest.approx([slow], abs=1e-5)


def test_an_empty_reply_has_a_score(reward_folder: Any) -> None:
    scorer = load_scorer(str(reward_folder), CPU)
    (score,) = scores_of(scorer, "")
    assert math.isfinite(score)


def test_the_value_head_begins_at_zero() -> None:
    assert value_head(16).weight.abs().max() == value_head(16).bias.abs().max() == 0


@pytest.mark.parametrize(
    ("reply", "prompt", "words"), [(64, 16, "longer than the 64"), (40, 30, "may have 70"), (40, 20, "")]
)
def test_a_reward_model_that_reads_less_than_a_conversation_says_so(
    reward_folder: Path, tmp_path: Path, reply: int, prompt: int, words: str
) -> None:
    base = toy_policy(tmp_path / "policy")
    config = {
        "stage": "ppo", "policy": str(base), "reward": str(reward_folder), "steps": 1, "prompts_per_step": 2,
        "max_prompt_tokens": prompt, "sampling": {"max_new_tokens": reply},
    }  # fmt: skip
    folder = run_folder(tmp_path / "run", config, prompts=prompts(2))
    if reply >= 64:
        with pytest.raises(InputError, match=words):
            run_here(folder)
        return
    run_here(folder)
    warnings = [event["message"] for event in events(folder, "warning") if "the reward model reads" in event["message"]]
    assert len(warnings) == bool(words)
    assert all(words in warning for warning in warnings)


def test_a_written_reward_is_found_by_its_name() -> None:
    scorer = load_scorer("function:brevity", CPU)
    assert scores_of(scorer, "", "x" * 50) == [0, -0.5]
    with pytest.raises(InputError, match=r"there are .*function:brevity"):
        find_reward_function("function:unheard-of")


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        reward_function("brevity")(lambda *_: 0.0)


def test_a_prompt_has_the_room_that_a_full_reply_leaves() -> None:
    assert prompt_room(100, 512, 30) == 70
    assert prompt_room(100, 50, 30) == 50
    with pytest.raises(InputError, match="no room for a prompt"):
        prompt_room(100, 50, 100)


def test_prompts_that_fit_are_encoded_to_where_the_assistant_speaks() -> None:
    chat = ChatFormat(toy_tokenizer())
    rows = [
        PromptRow(id=name, messages=[Turn(**t) for t in turns(text)]) for name, text in (("a", "hi"), ("b", "hi " * 50))
    ]
    kept, changes = encode_prompts(rows, chat, 20)
    assert [prompt.row.id for prompt in kept] == ["a"]
    assert changes.left_out == 1
    assert kept[0].ids == chat.prompt(rows[0].messages)


def test_every_prompt_comes_once_in_each_pass_and_in_another_order() -> None:
    taken = [i for step in range(5) for i in prompts_of_step(10, step, 4, seed=3)]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]


def test_more_prompts_a_step_than_there_are_come_again() -> None:
    assert sorted(prompts_of_step(3, 0, 6, seed=0)) == [0, 0, 1, 1, 2, 2]


def test_ragged_rows_are_padded_with_zeros() -> None:
    assert pad_rows([[1.0], [2.0, 3.0]]).tolist() == [[1, 0], [2, 3]]


def test_a_module_of_ones_own_registers_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(
        "from training.preferences.reward_functions import reward_function\n\n\n"
        "@reward_function('own')\ndef own(messages, reply):\n    return 7.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TUTELAGE_REWARDS", "own_rewards")
    assert find_reward_function("function:own")([], "hello") == 7.0


def test_a_module_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_REWARDS", "no_such_module")
    with pytest.raises(InputError, match="TUTELAGE_REWARDS: no_such_module cannot be imported"):
        find_reward_function("function:brevity")


def test_shaping_is_read_as_names_and_weights() -> None:
    assert parts_of_shaping("") == []
    assert parts_of_shaping("short=0.5, no-lists = -2,") == [("short", 0.5), ("no-lists", -2.0)]
    for wrong in ("short", "=1", "short=much", "short=nan", "short=1;long=2"):
        with pytest.raises(ValueError, match="is not a registered function's name, = and a weight"):
            parts_of_shaping(wrong)
