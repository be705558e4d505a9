from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from training.contract import InputError
from training.kernels import logprobs
from training.models import forward as module
from training.models.forward import chosen_logprobs, entropy_of
from training.rl.actor import Actor, MicroBatch, rollout_batches

PROMPTS = [[1, 5, 6], [1, 7, 8, 9, 10, 11], [1]]
REPLIES = [[12, 13, 2], [2], [14, 15, 16, 17]]


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=31, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64,
        )
    )  # fmt: skip


def batches_of(budget: int) -> list[MicroBatch]:
    return rollout_batches(PROMPTS, REPLIES, [0, 1, 2], budget=budget, pad=0, device=torch.device("cpu"))


def by_row(batches: Any, values: Any) -> dict[int, list[float]]:
    """What the flat values (M,) of each micro-batch say of each reply of the rollout."""
    table = torch.full((len(REPLIES), max(map(len, REPLIES))), float("nan"))
    for batch, flat in zip(batches, values, strict=True):
        table.view(-1)[batch.flat_index] = flat.detach()
    return {row: table[row, : len(reply)].tolist() for row, reply in enumerate(REPLIES)}


class Evaluated(NamedTuple):
    logprobs: torch.Tensor
    entropy: torch.Tensor
    values: torch.Tensor


def evaluated(actor: Actor, batch: MicroBatch) -> Evaluated:
    hidden = actor.hidden(batch)
    return Evaluated(*actor.read(hidden, batch.targets, entropy=True), actor.values(hidden))


def slow_logprobs(model: Any, row: int, temperature: float = 1.0) -> list[float]:
    ids = PROMPTS[row] + REPLIES[row]
    logits = model(input_ids=torch.tensor([ids])).logits[0].double() / temperature
    start = len(PROMPTS[row])
    return [logits[t - 1].log_softmax(0)[ids[t]].item() for t in range(start, len(ids))]


@pytest.mark.parametrize("budget", [1, 14, 1000])
def test_padding_and_micro_batches_do_not_change_any_log_probability(budget: Any) -> None:
    model = tiny_llama()
    actor = Actor(model, nn.Linear(16, 1), temperature=0.7)
    batches = batches_of(budget)
    found = by_row(batches, [evaluated(actor, batch).logprobs for batch in batches])
    for row in range(3):
        assert found[row] == pytest.approx(slow_logprobs(model, row, 0.7), abs=1e-5)


def test_the_value_is_read_before_each_reply_token() -> None:
    model, head = tiny_llama(), nn.Linear(16, 1)
    batches = batches_of(1000)
    found = by_row(batches, [evaluated(Actor(model, head, 1.0), batch).values for batch in batches])
    for row in range(3):
        hidden = model.model(input_ids=torch.tensor([PROMPTS[row] + REPLIES[row]])).last_hidden_state[0]
        start = len(PROMPTS[row]) - 1
        slow = head(hidden[start : start + len(REPLIES[row])]).flatten().tolist()
        assert found[row] == pytest.approx(slow, abs=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=16, n_layer=1, n_head=2, n_positions=32)),
        Gemma2ForCausalLM(
            Gemma2Config(
                vocab_size=31, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.05,
            )
        ),
    ],
    ids=["gpt2", "gemma2"],
)  # fmt: skip
def test_other_architectures_have_their_own_logits(model: Any) -> None:
    batches = batches_of(1000)
    found = by_row(batches, [evaluated(Actor(model, nn.Linear(16, 1), 1.0), batch).logprobs for batch in batches])
    assert found[2] == pytest.approx(slow_logprobs(model, 2), abs=1e-5)


def test_an_architecture_whose_logits_need_more_than_the_head_is_refused() -> None:
    model = tiny_llama()
    whole = model.forward

    def doubled(*arguments: Any, **named: Any) -> Any:
        output = whole(*arguments, **named)
        output.logits = output.logits * 2
        return output

    model.forward = doubled
    with pytest.raises(InputError, match="it cannot be trained here"):
        Actor(model, nn.Linear(16, 1), 1.0)


def tiny_gemma() -> Gemma2ForCausalLM:
    """Its logits are capped, so they are more than a product with the head."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=31, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, final_logit_softcapping=3.0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("build", [tiny_llama, tiny_gemma])
def test_logits_a_few_positions_at_a_time_give_the_same_losses_and_gradients(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Any]
) -> None:
    gradients = []
    asked: list[tuple[int, str]] = []
    for most in (1000, 2):

        def at_once(vocabulary: int, device: str, _free: int | None, most: int = most) -> int:
            asked.append((vocabulary, device))
            return most

        monkeypatch.setattr(module, "positions_at_once", at_once)
        monkeypatch.setattr(logprobs, "positions_at_once", at_once)
        actor = Actor(build(), nn.Linear(16, 1), 1.0, entropy_gradient=True)
        seen = evaluated(actor, batches_of(1000)[0])
        (seen.logprobs.sum() + seen.entropy.sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in actor.model.parameters()]))
    assert set(asked) == {(31, "cpu")}
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)
    assert gradients[0].abs().max() > 0


def test_log_probabilities_and_entropy_are_those_worked_out_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0]])
    logprobs, log_p = chosen_logprobs(logits, torch.tensor([1, 0]))
    assert logprobs.tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    assert entropy_of(log_p).tolist() == pytest.approx([0.25 * math.log(4) + 0.75 * math.log(4 / 3), math.log(2)])


def test_entropy_has_a_gradient_only_when_it_is_in_the_loss() -> None:
    for wanted in (False, True):
        actor = Actor(tiny_llama(), nn.Linear(16, 1), 1.0, entropy_gradient=wanted)
        assert evaluated(actor, batches_of(1000)[0]).entropy.requires_grad == wanted
