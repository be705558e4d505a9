from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.toys import prompts, toy_policy, toy_tokenizer
from training.contract import PromptRow
from training.data.chat_format import ChatFormat
from training.engine import Completion
from training.models.compute import Compute
from training.models.forward import Forward
from training.rl.heldout import ReplyKL, frontier
from training.rl.rollouts import Sampled, encode_prompts

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("budget", [4096, 16])
def test_the_kl_of_a_reply_is_the_sum_over_its_tokens(tmp_path: Path, temperature: Any, budget: Any) -> None:
    p, q = (AutoModelForCausalLM.from_pretrained(toy_policy(tmp_path / str(seed), seed=seed)).eval() for seed in (1, 2))
    chat = ChatFormat(toy_tokenizer())
    asked, _ = encode_prompts([PromptRow(**row) for row in prompts(2)], chat, 40)
    replies = [[60, 61, 62], [70]]
    sampled = Sampled(
        asked, [Completion(tokens, [0.0] * len(tokens), "", "stop") for tokens in replies], torch.zeros(2)
    )
    found = ReplyKL(Forward(p), Forward(q), CPU, chat.pad_id, budget)(sampled, temperature)
    for prompt, tokens, kl in zip(asked, replies, found, strict=True):
        ids, start = [*prompt.ids, *tokens], len(prompt.ids)
        ours, theirs = ((m(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1) for m in (p, q))
        slow = sum((ours[t - 1, ids[t]] - theirs[t - 1, ids[t]]).item() for t in range(start, len(ids)))
        assert kl == pytest.approx(slow, abs=1e-4)


def test_the_frontier_is_what_nothing_beats() -> None:
    points = [(0.0, 1.0), (1.0, 0.5), (2.0, 3.0), (2.0, 2.0), (3.0, 3.0), (4.0, 3.5)]
    assert frontier(points) == [True, False, True, False, False, True]
    assert frontier([(1.0, 1.0), (1.0, 1.0)]) == [True, True]
