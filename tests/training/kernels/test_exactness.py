"""The same numbers whichever way they are computed: together or alone, packed or padded, by us or by plain
transformers, as an adapter or merged.

The tolerances are those of float32 on sums of some tens of terms: 1e-4 of a loss, 1e-4 nats of a log-probability.

Over 300 lines: the ways to compute are compared pair by pair over the same models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.narrowing import existing
from tests.training.toys import run_folder, run_here, tiny_folder, tiny_model, toy_tokenizer, turns
from training.contract import PPOSettings, RankingRow, RewardSettings, Turn
from training.data.chat_format import ChatFormat, Encoded
from training.data.demonstrations import demonstration_examples
from training.data.text_stream import text_examples, tokenize_texts
from training.engine import EngineRequest, SamplingParams
from training.kernels.attention import varlen_attention
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal
from training.optim.losses import bits_per_byte, next_token_loss, weighted_loss
from training.optim.meters import mean_figures
from training.preferences.losses import preference_loss
from training.preferences.rankings import ranking_examples
from training.preferences.reward_model import RewardModel, encode, score_ids
from training.rl.actor import Actor, rollout_batches
from training.rl.losses import clipped_policy_loss, clipped_value_loss
from training.rl.update import FlatRollout, policy_and_value_loss
from training.serve.pool import ModelPool

CPU = Compute(torch.device("cpu"), torch.float32)
NATS = 1e-4
SHAPES = {"llama": {"tie_word_embeddings": True}, "qwen2": {}, "gpt2": {}}  # grouped queries, biases, learned positions
VOCABULARY = len(toy_tokenizer())
ids_of = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=40)
words = st.sampled_from(["yes", "no never", "of course the sky is blue", "", "12", "the cat sat on the mat"])


@cache
def model_of(name: str) -> PreTrainedModel:
    return tiny_model(name, **SHAPES[name])


@cache
def chat_format() -> ChatFormat:
    return ChatFormat(toy_tokenizer())


@cache
def forward_of(name: str, packs: bool) -> Forward:
    forward = Forward(model_of(name))
    assert forward.trunk.packs
    forward.trunk.packs = packs
    return forward


@cache
def head_of(name: str) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(model_of(name).config.hidden_size, 1)


@cache
def reward_of(name: str, packs: bool) -> RewardModel:
    head = nn.Linear(model_of(name).config.hidden_size, 1, bias=False)
    head.weight.data.copy_(head_of(name).weight)
    reward = RewardModel(model_of(name).base_model, head, model_of(name).config)
    reward.states.packs = packs
    return reward


def alone(name: str, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of one sequence by itself in plain transformers: log-probabilities [n - 1] of its tokens from the second on, and
    hidden states [n, H]."""
    with torch.no_grad():
        found = model_of(name)(torch.tensor([list(ids)]), output_hidden_states=True)
        logprobs = found.logits[0, :-1].double().log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(list(ids[1:]))[:, None])[:, 0], found.hidden_states[-1][0]


def cut(count: int, draw: np.random.Generator) -> list[np.ndarray]:
    """0..count - 1 in a random order, cut into batches at random places."""
    order = draw.permutation(count)
    return [piece for piece in np.split(order, np.flatnonzero(draw.random(count - 1) < 0.4) + 1) if len(piece)]


def every_way(test: Callable[..., None]) -> Callable[..., None]:
    """For each shape, packed and on padded sequences, on drawn rows."""
    test = settings(max_examples=5, deadline=None)(test)
    test = pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])(test)
    return pytest.mark.parametrize("name", SHAPES)(test)


# ------------------------------------------------------------------------------------------------- losses and batches


@every_way
@given(rows=st.lists(st.tuples(ids_of, st.floats(0.1, 3)), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_the_loss_of_demonstrations_is_the_sum_of_each_ones_own(name: str, packs: bool, rows: Any, seed: int) -> None:
    draw = np.random.default_rng(seed)
    encoded = [(Encoded(ids, [False, *(draw.random(len(ids) - 1) < 0.6)]), weight) for ids, weight in rows]
    data = demonstration_examples(encoded, chat_format(), CPU.device)
    with torch.no_grad():
        parts = [weighted_loss(forward_of(name, packs), data.batch(piece))["loss"] for piece in cut(len(rows), draw)]
    total, weight = sum(float(loss) for loss, _ in parts), sum(count for _, count in parts)
    expected = -sum(w * float(alone(name, one.ids)[0][torch.tensor(one.mask[1:])].sum()) for one, w in encoded)
    assert total == pytest.approx(expected, rel=NATS, abs=NATS)
    assert weight == pytest.approx(data.sizes.weights.sum(), rel=1e-5)


@every_way
@given(texts=st.lists(words.filter(bool), min_size=1, max_size=5), seed=st.integers(0, 999))
def test_the_loss_of_text_is_the_sum_of_its_rows(name: str, packs: bool, texts: list[str], seed: int) -> None:
    stream = tokenize_texts(chat_format(), texts, 16)
    data, forward = text_examples(stream, CPU.device), forward_of(name, packs)
    with torch.no_grad():
        pieces = cut(len(data.sizes), np.random.default_rng(seed))
        parts = [next_token_loss(forward, data.batch(piece))["loss"] for piece in pieces]
    expected = -sum(float(alone(name, stream.row(i).tolist())[0].sum()) for i in range(len(data.sizes)))
    assert sum(float(loss) for loss, _ in parts) == pytest.approx(expected, rel=NATS, abs=NATS)
    assert sum(count for _, count in parts) == len(stream.tokens) - 1


@every_way
@given(
    sets=st.lists(st.lists(words, min_size=2, max_size=4, unique=True), min_size=1, max_size=4),
    ties=st.sampled_from(["half", "davidson"]),
    seed=st.integers(0, 999),
)
def test_the_loss_of_rankings_is_the_sum_of_each_ones_own(
    name: str, packs: bool, sets: list[list[str]], ties: Any, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    rows = []
    for i, replies in enumerate(sets):
        order = draw.permutation(len(replies)).tolist()
        groups = [order[:1], order[1:]]  # one is best, the others tie
        rows.append(
            RankingRow(id=str(i), messages=[Turn(role="user", content=f"is it {i}?")], replies=replies, groups=groups,
                       weight=1 + i, strength=2)
        )  # fmt: skip
    log_nu = torch.tensor(0.3) if ties == "davidson" else None
    config, model = RewardSettings(ties=ties), reward_of(name, packs)
    _, data, _ = ranking_examples(rows, chat_format(), config, 64, CPU)
    with torch.no_grad():
        parts = [
            preference_loss(model(batch.packed), batch.comparisons, log_nu=log_nu, margin=0.1, centring=0.01)
            for batch in map(data.batch, cut(len(rows), draw))
        ]
    expected = 0.0
    for row in rows:
        scores = []
        for reply in row.replies:
            ids = encode(chat_format(), row.messages, reply, 64).encoded.ids
            scores.append(float((alone(name, ids)[1][-1] @ head_of(name).weight[0]).detach()))
        pairs = [(row.groups[0][0], other, False) for other in row.groups[1]]
        pairs += [(a, b, True) for i, a in enumerate(sorted(row.groups[1])) for b in sorted(row.groups[1])[i + 1 :]]
        expected += (
            row.weight / len(pairs) * sum(slow_comparison(scores[a], scores[b], tie, ties) for a, b, tie in pairs)
        )
    assert sum(map(float, parts)) == pytest.approx(expected, rel=NATS, abs=NATS)


def slow_comparison(first: float, second: float, tie: bool, ties: str) -> float:
    """-log P of what was said about two replies, written as the models of it are defined, and the centring."""
    d = first - second - (0 if tie else 0.1 * 2)
    if ties == "davidson":
        win, loss, draw = np.exp(d / 2), np.exp(-d / 2), np.exp(0.3)
        nll = -np.log((draw if tie else win) / (win + loss + draw))
    else:
        p = 1 / (1 + np.exp(-d))
        nll = -(0.5 * np.log(p) + 0.5 * np.log(1 - p)) if tie else -np.log(p)
    return float(nll + 0.01 * (first + second) ** 2)


@every_way
@given(
    rollout=st.lists(st.tuples(ids_of.filter(lambda ids: len(ids) < 20), ids_of), min_size=1, max_size=5),
    budget=st.sampled_from([1, 50, 4096]),
    seed=st.integers(0, 999),
)
def test_the_loss_of_a_rollout_is_the_sum_of_each_replys_own(
    name: str, packs: bool, rollout: Any, budget: int, seed: int
) -> None:
    prompts, replies = [prompt for prompt, _ in rollout], [reply for _, reply in rollout]
    config = PPOSettings(micro_tokens=max(32, budget), entropy_weight=0.0, value_weight=0.1)
    actor = Actor(model_of(name), head_of(name), temperature=0.8)
    actor.forward = forward_of(name, packs)
    longest = max(map(len, replies))
    draw = torch.Generator().manual_seed(seed)
    old = [torch.randn(len(replies), longest, generator=draw) * scale + shift for scale, shift in OLD]
    batches = rollout_batches(
        prompts, replies, np.random.default_rng(seed).permutation(len(replies)).tolist(),
        budget=budget, pad=0, device=CPU.device,
    )  # fmt: skip
    with torch.no_grad():
        flat = FlatRollout(*(x.flatten() for x in old))
        parts = [policy_and_value_loss(actor, config, flat, batch, is_first=True) for batch in batches]
    slow: dict[str, float] = {"loss/policy_avg": 0.0, "loss/value_avg": 0.0, "val/ratio": 0.0}
    for i, (prompt, reply) in enumerate(rollout):
        logits, states = alone_from(name, prompt, reply)
        logprobs = functional.log_softmax(logits / 0.8, -1).gather(-1, torch.tensor(reply)[:, None])[:, 0]
        logp, values, advantages, returns = (x[i, : len(reply)] for x in old)
        slow["loss/policy_avg"] += float(clipped_policy_loss(logprobs, logp, advantages, config.clip)[0].sum())
        new = head_of(name)(states).squeeze(-1).detach()
        slow["loss/value_avg"] += float(clipped_value_loss(new, values, returns, config.value_clip)[0].sum())
        slow["val/ratio"] += float((logprobs - logp).exp().sum())
    for figure, expected in slow.items():
        assert sum(float(one[figure][0]) for one in parts) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert sum(one["loss"][1] for one in parts) == sum(map(len, replies))


OLD = ((0.3, -5.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.5))  # deviation and mean of log-probabilities, values, ...


def alone_from(name: str, prompt: list[int], reply: list[int]) -> tuple[Tensor, Tensor]:
    """Logits and hidden states before each token of the reply."""
    with torch.no_grad():
        found = model_of(name)(torch.tensor([prompt + reply]), output_hidden_states=True)
    place = slice(len(prompt) - 1, len(prompt) + len(reply) - 1)
    return found.logits[0, place], found.hidden_states[-1][0, place]


@every_way
@given(texts=st.lists(words.filter(bool), min_size=1, max_size=6), micro=st.sampled_from([1, 40, 8192]))
def test_evaluation_does_not_depend_on_how_it_is_batched(name: str, packs: bool, texts: list[str], micro: int) -> None:
    forward, chat = forward_of(name, packs), chat_format()
    whole = bits_per_byte(forward, chat, texts, CPU, 24, 8192)
    assert bits_per_byte(forward, chat, texts, CPU, 24, micro) == pytest.approx(whole, rel=NATS)
    encoded = [(chat.exchange([Turn(role="user", content="is it?")], text, 60), 1.0) for text in texts]
    loss = mean_figures(
        demonstration_examples(encoded, chat, CPU.device), lambda batch: weighted_loss(forward, batch), CPU, micro
    )["loss"]  # fmt: skip
    spoken = [alone(name, one.ids)[0][torch.tensor(one.mask[1:])] for one, _ in encoded]
    assert loss == pytest.approx(-float(torch.cat(spoken).mean()), rel=NATS, abs=NATS)
    with torch.inference_mode():
        scores = score_ids(reward_of(name, packs), [one.ids for one, _ in encoded], chat.pad_id, micro)
    slow = [float((alone(name, one.ids)[1][-1] @ head_of(name).weight[0]).detach()) for one, _ in encoded]
    assert scores == pytest.approx(slow, rel=NATS, abs=NATS)


@pytest.mark.parametrize("named", [{"softcap": 50.0}, {"s_aux": torch.zeros(2)}, {"sliding_window": 4}])
def test_attention_of_another_kind_is_never_packed(named: dict[str, Any]) -> None:
    """A few tokens of a random model might not show that scores are capped or seen through a window."""
    query, key, value = (torch.randn(1, 2, 8, 4) for _ in range(3))
    seen, _ = varlen_attention(nn.Module(), query, key, value, None, blocks=[(1, 8)], softcap=None)
    assert seen.shape == (1, 8, 2, 4)
    with pytest.raises(ValueError, match=f"attention with {next(iter(named))} is not computed on packed sequences"):
        varlen_attention(nn.Module(), query, key, value, None, blocks=[(1, 8)], **named)


# ------------------------------------------------------------------------------------ saved, loaded, merged and served


@pytest.fixture(scope="module", params=SHAPES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base, what full fine-tuning made of it, and what an adapter did."""
    top = tmp_path_factory.mktemp(request.param)
    base = tiny_folder(top / "base", request.param, **SHAPES[request.param])
    rows = [{"id": str(i), "messages": turns(f"is it {i}?", "yes of course")} for i in range(4)]
    config = {"stage": "sft", "base": str(base), "max_steps": 4, "batch_tokens": 64, "learning_rate": 1e-2}
    for name, lora in (("full", {}), ("adapter", {"rank": 4, "alpha": 32})):
        run_here(run_folder(top / name, config | {"lora": lora, "evaluate_every": 0}, demonstrations=rows))
    return base, top / "full" / "model", top / "adapter" / "model"


def plain(base: Path, folder: Path) -> torch.nn.Module:
    """Loaded as anybody else would."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


@pytest.mark.parametrize("which", [1, 2], ids=["full", "adapter"])
@torch.no_grad()
def test_what_a_stage_saved_gives_the_same_logits_everywhere(trained: tuple[Path, Path, Path], which: int) -> None:
    base, folder = trained[0], trained[which]
    asked = chat_format().prompt([Turn(role="user", content="is it 7?")])
    theirs = plain(base, folder)
    expected = theirs(torch.tensor([asked])).logits
    before = AutoModelForCausalLM.from_pretrained(base)(torch.tensor([asked])).logits
    assert (expected - before).abs().max() > 0.1  # it has learned something
    ours = load_causal(str(folder), CPU)
    assert torch.allclose(ours(torch.tensor([asked])).logits, expected, atol=NATS)
    if isinstance(theirs, PeftModel):
        assert not isinstance(ours, PeftModel)
        assert torch.allclose(theirs.merge_and_unload()(torch.tensor([asked])).logits, expected, atol=NATS)
        theirs = plain(base, folder)
    pool = ModelPool(CPU, slots=2, max_models=1)
    pool.load("it", str(folder))
    sampling = SamplingParams(temperature=0, max_new_tokens=6, stop_ids=frozenset(), top_logprobs=VOCABULARY)
    (served,) = existing(pool.get("it")).engine.generate([EngineRequest(asked, sampling)])
    logprobs = theirs(torch.tensor([asked + served.tokens])).logits[0, len(asked) - 1 : -1].log_softmax(-1)
    for step, told in enumerate(served.top):
        assert len(told) == VOCABULARY
        row = torch.tensor([told[token] for token in range(VOCABULARY)])
        assert torch.allclose(row, logprobs[step], atol=NATS)
    assert served.tokens == logprobs.argmax(-1).tolist()
