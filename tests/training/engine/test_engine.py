"""The engine against transformers' own generate and a plain forward pass.

Over 300 lines: all cases compare with the same reference.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.training.toys import toy_tokenizer
from training.contract import TrainingError
from training.engine import Delta, Engine, EngineRequest, PromptTooLong, SamplingParams, derive_seed
from training.engine.detokenizer import Detokenizer, StopStrings
from training.engine.llama_inference import LlamaForward
from training.engine.transformers_forward import GeneralForward

VOCABULARY = 300
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "eos_token_id": 7,
    "bos_token_id": None, "pad_token_id": 0, "initializer_range": 0.4,
}  # fmt: skip
ROPE = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 100.0}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "llama with biases, scaled rope": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True, rope_parameters=ROPE)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "qwen2, tied": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=7,
                   bos_token_id=None, initializer_range=0.4)
    ),
}  # fmt: skip
LENGTHS = [3, 17, 1, 30, 9, 9, 22, 5, 40, 2, 13, 55]
END = frozenset({7})
GREEDY = SamplingParams(temperature=0, max_new_tokens=20, stop_ids=END)


def build(name: str) -> Any:
    torch.manual_seed(len(name))
    model = MODELS[name]()
    for parameter in model.parameters():  # biases and norms too: what is zero or one at the start hides mistakes
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if parameter.mean() > 0.5 else 0.0, 0.2)
    return model.eval()


def prompts(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(8, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]


def generated_alone(model: Any, prompt: list[int], most: int = 20) -> list[int]:
    """transformers' own greedy reply, one prompt at a time."""
    most = min(most, 64 - len(prompt))
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=most, do_sample=False, pad_token_id=0)
    return ids[0, len(prompt) :].tolist()


def plain_logprobs(model: Any, prompt: list[int], reply: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, torch.tensor(reply)[:, None]).squeeze(-1)


@pytest.mark.parametrize("name", MODELS)
def test_greedy_replies_are_those_of_transformers_token_for_token(name: str) -> None:
    model = build(name)
    engine = Engine(model, toy_tokenizer(), slots=5)
    assert isinstance(engine._forward, GeneralForward if name == "gpt2" else LlamaForward)
    replies = engine.generate([EngineRequest(prompt, GREEDY) for prompt in prompts()])
    expected = [generated_alone(model, prompt) for prompt in prompts()]
    assert [reply.tokens for reply in replies] == expected
    assert [reply.finish == "stop" for reply in replies] == [tokens[-1] == 7 for tokens in expected]


@pytest.mark.parametrize("name", MODELS)
def test_logprobs_are_those_of_a_plain_forward_pass_whatever_the_temperature(name: str) -> None:
    model = build(name)
    sampling = SamplingParams(temperature=1.7, top_k=50, top_p=0.9, max_new_tokens=15, seed=3)
    requests = [EngineRequest(prompt, sampling) for prompt in prompts()]
    for request, reply in zip(requests, Engine(model, toy_tokenizer(), slots=4).generate(requests), strict=True):
        expected = plain_logprobs(model, request.prompt, reply.tokens)
        torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=2e-4, rtol=1e-4)


def test_the_general_forward_and_the_written_out_one_agree() -> None:
    model = build("qwen2")
    fast, general = Engine(model, toy_tokenizer(), slots=3), Engine(model, toy_tokenizer(), slots=3)
    general._forward = GeneralForward(model, general._cache)
    requests = [EngineRequest(prompt, GREEDY) for prompt in prompts()]
    assert [r.tokens for r in fast.generate(requests)] == [r.tokens for r in general.generate(requests)]


def test_a_reply_does_not_depend_on_what_else_is_in_the_batch() -> None:
    model = build("llama")
    sampling = [SamplingParams(temperature=1.2, max_new_tokens=12, seed=derive_seed(1, i)) for i in range(len(LENGTHS))]
    requests = [EngineRequest(prompt, params) for prompt, params in zip(prompts(), sampling, strict=True)]
    together = Engine(model, toy_tokenizer(), slots=3).generate(requests)
    alone = [Engine(model, toy_tokenizer(), slots=1).generate([request])[0] for request in requests]
    assert [r.tokens for r in together] == [r.tokens for r in alone]


def test_replies_to_one_prompt_share_its_reading_and_differ_by_seed() -> None:
    model = build("llama")
    prompt = prompts()[3]
    sampling = [SamplingParams(max_new_tokens=12, seed=seed, stop_ids=END) for seed in (1, 2, 3, 1)]
    engine = Engine(model, toy_tokenizer(), slots=4)
    read: list[int] = []
    prefill = engine._forward.prefill
    engine._forward.prefill = lambda prompts, *rest: read.append(len(prompts)) or prefill(prompts, *rest)
    first, second, third, again = (r.tokens for r in engine.generate([EngineRequest(prompt, s) for s in sampling]))
    assert read == [1]
    assert first == again
    assert len({tuple(first), tuple(second), tuple(third)}) == 3


def test_sampling_at_temperature_one_follows_the_models_distribution() -> None:
    model = build("llama")
    prompt = prompts()[1]
    requests = [EngineRequest(prompt, SamplingParams(max_new_tokens=1, seed=derive_seed(i))) for i in range(4000)]
    drawn = torch.tensor([r.tokens[0] for r in Engine(model, toy_tokenizer(), slots=1000).generate(requests)])
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    seen = torch.bincount(drawn, minlength=VOCABULARY) / len(drawn)
    assert (seen - expected).abs().sum() < 0.2


def test_new_weights_are_used_by_the_next_call_and_training_mode_is_left_alone() -> None:
    for name in ("llama", "gpt2"):
        model = build(name).train()
        engine = Engine(model, toy_tokenizer(), slots=4)
        engine.generate([EngineRequest(prompts()[0], GREEDY)])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-0.9)
        assert model.training
        replies = engine.generate([EngineRequest(prompt, GREEDY) for prompt in prompts()])
        assert [r.tokens for r in replies] == [generated_alone(model.eval(), prompt) for prompt in prompts()]


def test_weights_of_a_model_that_is_not_live_are_read_once_and_the_model_is_let_go() -> None:
    model = build("llama")
    engine = Engine(model, toy_tokenizer(), slots=4, live=False)
    before = engine.generate([EngineRequest(prompts()[0], GREEDY)])[0].tokens
    assert engine._forward.base is None  # type: ignore[attr-defined]
    assert engine.generate([EngineRequest(prompts()[0], GREEDY)])[0].tokens == before


@pytest.mark.parametrize("name", ["llama", "llama, tied", "mistral", "qwen2", "qwen3", "gpt2"])
def test_an_adapter_under_training_is_folded_in_and_can_be_switched_off(name: str) -> None:
    base = build(name)
    requests = [EngineRequest(prompt, GREEDY) for prompt in prompts()]
    plain = [r.tokens for r in Engine(base, toy_tokenizer(), slots=4).generate(requests)]
    targets = ["c_attn"] if name == "gpt2" else "all-linear"
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    engine = Engine(model.eval(), toy_tokenizer(), slots=4)
    assert [r.tokens for r in engine.generate(requests)] == [generated_alone(model, prompt) for prompt in prompts()]
    assert [r.tokens for r in engine.generate(requests)] != plain
    for request, reply in zip(requests, engine.generate(requests), strict=True):
        expected = plain_logprobs(model, request.prompt, reply.tokens)
        torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=2e-4, rtol=1e-4)
    with model.disable_adapter():
        assert [r.tokens for r in engine.generate(requests)] == plain


@pytest.mark.parametrize("name", ["llama, tied", "mistral", "qwen2", "qwen3", "gpt2"])
@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=7), slots=st.integers(1, 8), seed=st.integers(0, 99))
def test_any_mix_of_lengths_in_any_number_of_slots_gives_transformers_tokens(
    name: str, lengths: list[int], slots: int, seed: int
) -> None:
    model = build(name)
    draw = torch.Generator().manual_seed(seed)
    asked = [torch.randint(8, VOCABULARY, (n,), generator=draw).tolist() for n in lengths]
    most = [1 + (seed + i) % 12 for i in range(len(asked))]  # they end at different times
    requests = [
        EngineRequest(prompt, SamplingParams(temperature=0, max_new_tokens=n, stop_ids=END))
        for prompt, n in zip(asked, most, strict=True)
    ]
    replies = Engine(model, toy_tokenizer(), slots=slots).generate(requests)
    assert [reply.tokens for reply in replies] == [
        generated_alone(model, prompt, n) for prompt, n in zip(asked, most, strict=True)
    ]


def test_a_model_in_bf16_generates_in_bf16_and_reports_float32_logprobs() -> None:
    model = build("qwen2").to(torch.bfloat16)
    reply = Engine(model, toy_tokenizer(), slots=2).generate([EngineRequest(prompts()[1], GREEDY)])[0]
    expected = plain_logprobs(model, prompts()[1], reply.tokens)
    torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=0.4, rtol=0.1)


def test_the_context_bounds_the_reply_and_a_longer_prompt_is_refused_with_its_length() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=2)
    full = SamplingParams(temperature=0, max_new_tokens=1000, stop_ids=frozenset())
    reply = engine.generate([EngineRequest([9] * 60, full)])[0]
    assert (len(reply.tokens), reply.finish) == (4, "length")
    with pytest.raises(PromptTooLong, match=r"has 64 tokens.*context of 64"):
        engine.generate([EngineRequest([9] * 64, full)])
    with pytest.raises(TrainingError, match="prompt is empty"):
        engine.generate([EngineRequest([], full)])
    with pytest.raises(TrainingError, match="outside the model's vocabulary of 300"):
        engine.generate([EngineRequest([300], full)])
    assert not engine.busy


def test_a_sliding_window_ends_the_context_where_it_would_begin_to_slide() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=24)).eval()
    assert Engine(model, toy_tokenizer(), slots=2).context == 24


def test_a_model_whose_numbers_are_nan_fails_with_a_sentence_and_the_engine_recovers() -> None:
    model = build("llama")
    engine = Engine(model, toy_tokenizer(), slots=2)
    good = model.model.norm.weight.detach().clone()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        engine.generate([EngineRequest(prompts()[0], GREEDY)])
    with torch.no_grad():
        model.model.norm.weight.copy_(good)
    assert engine.generate([EngineRequest(prompts()[0], GREEDY)])[0].tokens == generated_alone(model, prompts()[0])


def test_a_cancelled_request_leaves_its_slot_to_the_next() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=1)
    endless = SamplingParams(max_new_tokens=40, stop_ids=frozenset())
    first, second = EngineRequest([9, 10], endless), EngineRequest([11], endless)
    engine.submit(first)
    engine.submit(second)
    engine.step()
    assert (engine.running, engine.waiting) == (1, 1)
    engine.cancel(first)
    ((left, completion),) = engine.step()
    assert left is first
    assert (completion.finish, len(completion.tokens)) == ("cancelled", 2)
    assert (engine.running, engine.waiting) == (1, 0)


def test_streamed_pieces_are_whole_characters_and_add_up_to_the_text() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=4)  # random bytes: most of them no valid character
    deltas: list[list[Delta]] = [[] for _ in LENGTHS]
    requests = [
        EngineRequest(prompt, SamplingParams(max_new_tokens=30, seed=i), deltas[i].append)
        for i, prompt in enumerate(prompts())
    ]
    for reply, told in zip(engine.generate(requests), deltas, strict=True):
        assert "".join(delta.text for delta in told) == reply.text
        assert [token for delta in told for token in delta.tokens] == reply.tokens
        assert [logprob for delta in told for logprob in delta.logprobs] == reply.logprobs


def test_text_is_cut_before_a_stop_string_and_nothing_of_it_is_streamed() -> None:
    tokenizer = toy_tokenizer()
    engine = Engine(build("llama"), tokenizer, slots=2)
    sampling = SamplingParams(max_new_tokens=40, seed=5, stop_ids=frozenset())
    whole = engine.generate([EngineRequest(prompts()[1], sampling)])[0]
    stop = whole.text[6:9]
    cut = SamplingParams(max_new_tokens=40, seed=5, stop_ids=frozenset(), stop=(stop,))
    deltas: list[Delta] = []
    reply = engine.generate([EngineRequest(prompts()[1], cut, deltas.append)])[0]
    assert reply.text == whole.text[: whole.text.index(stop)]
    assert "".join(delta.text for delta in deltas) == reply.text
    assert reply.finish == "stop"
    assert len(reply.tokens) < len(whole.tokens)


def test_alternatives_are_the_likeliest_tokens_with_their_logprobs() -> None:
    model = build("llama")
    sampling = SamplingParams(temperature=0, max_new_tokens=3, top_logprobs=2, stop_ids=frozenset())
    silent = SamplingParams(max_new_tokens=3, stop_ids=frozenset())
    engine = Engine(model, toy_tokenizer(), slots=2)
    reply, other = engine.generate([EngineRequest(prompts()[0], sampling), EngineRequest(prompts()[1], silent)])
    assert [next(iter(top)) for top in reply.top] == reply.tokens
    assert [top[token] for top, token in zip(reply.top, reply.tokens, strict=True)] == pytest.approx(reply.logprobs)
    assert all(len(top) == 2 for top in reply.top)
    assert not any(other.top)


def test_a_character_of_several_tokens_is_told_once_it_is_whole() -> None:
    tokenizer = toy_tokenizer()  # has seen neither letter nor emoji: they are bytes to it
    tokens = tokenizer.encode("ï🙂a", add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token) for token in tokens] == ["", "ï", "", "", "", "🙂", "a"]
    assert [detokenizer.push(token) for token in tokens[2:4]] == ["", ""]
    assert detokenizer.flush() == "\ufffd"


def test_what_may_be_the_beginning_of_a_stop_string_is_held_back_until_it_is_known() -> None:
    stops = StopStrings(("###", "\nUser:"))
    assert [stops.push(piece) for piece in ("a#", "#b", "c\nUs", "ing ", "d\nUser", ": x")] == [
        "a", "##b", "c", "\nUsing ", "d", "",
    ]  # fmt: skip
    assert stops.found
    assert StopStrings(("###",)).push("a###b") == "a"
    ended = StopStrings(("###",))
    assert (ended.push("a##"), ended.flush()) == ("a", "##")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_engine_over_weights_that_change_keeps_nothing_between_two_calls(name: str) -> None:
    model = build(name)
    engine = Engine(model, toy_tokenizer(), slots=3)
    requests = [EngineRequest(prompt, GREEDY) for prompt in prompts()]
    first = [completion.tokens for completion in engine.generate(requests)]
    assert engine._cache.pages == 0
    assert [completion.tokens for completion in engine.generate(requests)] == first
    one = EngineRequest(prompts()[0], GREEDY)
    engine.submit(one)
    found = [completion for _ in range(GREEDY.max_new_tokens) for _, completion in engine.step()]
    assert [completion.tokens for completion in found] == first[:1]


def test_memory_that_grew_may_be_let_go() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"max_position_embeddings": 256})).eval()
    engine = Engine(model, toy_tokenizer(), slots=2)
    requests = [EngineRequest(list(range(8, 8 + n)), GREEDY) for n in (5, 150)]
    first = [completion.tokens for completion in engine.generate(requests)]
    assert [completion.tokens for completion in engine.generate(requests)] == first


def test_replies_may_be_drawn_in_another_precision_than_the_weights_are_kept_in() -> None:
    model = build("qwen2")
    engine = Engine(model, toy_tokenizer(), slots=4, dtype=torch.bfloat16)
    assert model.dtype == torch.float32
    for request in (EngineRequest(prompt, GREEDY) for prompt in prompts()[:6]):
        (completion,) = engine.generate([request])
        ids = torch.tensor([request.prompt + completion.tokens])
        logprobs = model(ids).logits[0, len(request.prompt) - 1 : -1].log_softmax(-1)
        chosen = logprobs.gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
        assert torch.allclose(chosen, torch.tensor(completion.logprobs), atol=0.25)


def test_a_few_replies_are_not_padded_and_many_take_few_shapes() -> None:
    engine = Engine(build("llama"), toy_tokenizer(), slots=32, live=False)
    rows: list[int] = []
    decode = engine._forward.decode
    engine._forward.decode = lambda tokens, places: (
        rows.append(len(tokens)), decode(tokens, places)
    )[1]  # fmt: skip
    for n in (1, 3, 8, 9, 20):
        engine.generate([EngineRequest([1, 2], SamplingParams(max_new_tokens=2, stop_ids=frozenset()))] * n)
    assert rows == [1, 3, 8, 16, 24]


def test_an_engine_that_owns_its_model_gives_the_same_and_holds_its_weights_once() -> None:
    model = build("llama")
    shared, owner = (
        Engine(model, toy_tokenizer(), slots=4, live=False, owned=owned) for owned in (False, True)
    )  # in this order: the second takes the model apart
    asked = [EngineRequest(prompt, GREEDY) for prompt in prompts()[:4]]
    assert [reply.tokens for reply in owner.generate(asked)] == [reply.tokens for reply in shared.generate(asked)]
    assert not any(name.startswith("model.layers") for name, _ in model.named_parameters())
