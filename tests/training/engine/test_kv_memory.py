"""Memory for keys and values: who gets it, who gives it back, and that no reply differs for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tests.training.toys import toy_tokenizer
from training.engine import Engine, EngineRequest, PromptTooLong, SamplingParams
from training.engine.kv_budget import KVBudget
from training.engine.kv_cache import PAGE
from training.kernels.heap import resident

CPU = torch.device("cpu")
CONTEXT = 16 * PAGE


def build(kind: str, heads: int = 2) -> Any:
    torch.manual_seed(1)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.4)
        return GPT2LMHeadModel(config).eval()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2 * heads,
            num_key_value_heads=heads, head_dim=32, max_position_embeddings=CONTEXT, initializer_range=0.4,
        )
    ).eval()  # fmt: skip


def requests(count: int, reply: int = 3 * PAGE, prompt: int = PAGE) -> list[EngineRequest]:
    draw = torch.Generator().manual_seed(0)
    return [
        EngineRequest(
            torch.randint(8, 300, (prompt + 7 * i,), generator=draw).tolist(),
            SamplingParams(max_new_tokens=reply, seed=i, stop_ids=frozenset()),
        )
        for i in range(count)
    ]


def pages(engine: Engine, count: int) -> KVBudget:
    """A budget of that many pages, and the engine's from now on."""
    budget = KVBudget(CPU, count * engine._cache.page_bytes)
    engine.use_memory(budget)
    return budget


def peak(engine: Engine, budget: KVBudget) -> list[int]:
    """Bytes in use after each step from now on."""
    seen: list[int] = []
    step = engine.step

    def watched() -> Any:
        done = step()
        seen.append(budget.used)
        return done

    engine.step = watched
    return seen


@pytest.mark.fp32
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("mapped", [True, False])
def test_replies_that_do_not_fit_at_once_go_in_turns_and_are_the_same(kind: str, mapped: bool) -> None:
    model = build(kind)
    asked = requests(8)
    expected = [reply.tokens for reply in Engine(model, toy_tokenizer(), slots=8).generate(asked)]
    engine = Engine(model, toy_tokenizer(), slots=8)
    engine._cache._mapped = mapped
    budget = pages(engine, 11)  # two replies to their end, or a few at their beginning
    used = peak(engine, budget)
    assert [reply.tokens for reply in engine.generate(asked)] == expected
    assert budget.preemptions > 0
    assert 0 < max(used) <= budget.limit
    assert (budget.used, budget.left) == (0, budget.limit)


@pytest.mark.fp32
def test_a_preempted_reply_is_streamed_once_and_whole() -> None:
    model = build("llama")
    asked = requests(4, reply=5 * PAGE)
    streamed: list[list[int]] = [[] for _ in asked]
    for request, tokens in zip(asked, streamed, strict=True):
        request.on_delta = lambda delta, tokens=tokens: tokens.extend(delta.tokens)
    engine = Engine(model, toy_tokenizer(), slots=4)
    budget = pages(engine, 10)
    replies = engine.generate(asked)
    assert budget.preemptions > 0
    assert streamed == [reply.tokens for reply in replies]
    assert {len(tokens) for tokens in streamed} == {5 * PAGE}


@pytest.mark.fp32
def test_two_engines_share_one_budget_and_neither_waits_forever() -> None:
    model = build("llama")
    asked = requests(6)
    expected = [reply.tokens for reply in Engine(model, toy_tokenizer(), slots=6).generate(asked)]
    first, second = Engine(model, toy_tokenizer(), slots=6), Engine(model, toy_tokenizer(), slots=6)
    budget = pages(first, 12)
    second.use_memory(budget)
    replies: dict[int, list[int]] = {}
    copies = {engine: requests(6) for engine in (first, second)}
    for engine, own in copies.items():
        for request in own:
            engine.submit(request)
    begun_while_the_other_was_busy = False
    for _ in range(4000):
        for engine in (first, second):
            for request, completion in engine.step():
                replies[id(request)] = completion.tokens
        assert budget.used <= budget.limit
        begun_while_the_other_was_busy |= bool(second.running and first.busy)
        if not (first.busy or second.busy):
            break
    for own in copies.values():
        assert [replies[id(request)] for request in own] == expected
    assert begun_while_the_other_was_busy
    assert budget.used == 0


def test_what_can_never_fit_is_refused_with_the_reason() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=2)
    assert engine.context == CONTEXT
    pages(engine, 5)
    assert engine.context == 4 * PAGE
    with pytest.raises(PromptTooLong, match=f"has 300 tokens.*fit in {4 * PAGE} tokens: the server has no memory"):
        engine.submit(EngineRequest([9] * 300))
    reply = engine.generate([EngineRequest([9] * 200, SamplingParams(max_new_tokens=999, stop_ids=frozenset()))])[0]
    assert (len(reply.tokens), reply.finish) == (4 * PAGE - 200, "length")


def test_a_reply_ends_where_memory_does_when_the_limit_falls_under_it() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=2)
    budget = pages(engine, 8)
    engine.submit(EngineRequest([9] * 100, SamplingParams(max_new_tokens=999, stop_ids=frozenset())))
    engine.step()
    budget.limit = 3 * engine._cache.page_bytes
    done = [completion for _ in range(300) for _, completion in engine.step()]
    assert [completion.finish for completion in done] == ["length"]
    assert 90 <= len(done[0].tokens) <= 3 * PAGE - 100 + 1
    assert not engine.busy


def test_replies_to_one_prompt_share_its_pages() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=8)
    budget = pages(engine, 100)
    used = peak(engine, budget)
    prompt = requests(1, prompt=5 * PAGE + 3)[0].prompt
    sampling = [SamplingParams(max_new_tokens=5, seed=i, stop_ids=frozenset()) for i in range(8)]
    together = [reply.tokens for reply in engine.generate([EngineRequest(prompt, params) for params in sampling])]
    assert max(used) == (5 + 8) * engine._cache.page_bytes
    alone = [engine.generate([EngineRequest(prompt, params)])[0].tokens for params in sampling]
    assert together == alone


def test_without_a_limit_a_request_takes_what_its_tokens_need_and_idle_engines_hold_nothing() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=16, live=False)
    engine.submit(EngineRequest([9] * 3, SamplingParams(max_new_tokens=CONTEXT, stop_ids=frozenset())))
    engine.step()
    assert engine.memory.used == engine._cache.page_bytes
    while engine.busy:
        engine.step()
    assert engine.memory.used == 0


def test_memory_goes_back_to_the_system_when_nobody_generates() -> None:
    engine = Engine(build("llama", heads=16), toy_tokenizer(), slots=16, live=False)
    for request in requests(16, reply=20, prompt=CONTEXT - 200):
        engine.submit(request)
    taken = most = 0
    while engine.busy:
        engine.step()
        if engine.memory.used > taken:
            taken, most = engine.memory.used, resident()
    assert taken > 90e6
    assert most - resident() > 0.6 * taken


def test_a_cancelled_request_gives_its_pages_back_at_once() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=2)
    pages(engine, 100)
    asked = requests(2, prompt=6 * PAGE)
    for request in asked:
        engine.submit(request)
    engine.step()
    engine.cancel(asked[1])
    engine.step()
    assert engine._cache.available() == 2 * 17 - 7  # the other has six full pages and one begun


def test_failure_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=2)
    budget = pages(engine, 100)

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(engine._forward, "decode", broken)
    with pytest.raises(RuntimeError, match="broken"):
        engine.generate(requests(2))
    assert budget.used == 0
    assert not engine.busy


def test_half_of_what_is_free_is_the_limit_unless_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.engine.kv_budget.free_bytes", lambda _: 1000)
    budget = KVBudget(CPU)
    assert budget.limit == 500
    monkeypatch.setattr("training.engine.kv_budget.free_bytes", lambda _: 400)
    budget.measure()
    assert budget.limit == 200
    budget.measure(at_least=300)
    assert budget.limit == 300
    fixed = KVBudget(CPU, 77)
    fixed.measure()
    assert fixed.limit == 77
