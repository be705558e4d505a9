"""Packed sequences compute what each computes alone, for every architecture, and no padding reaches them."""

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
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from training.data.packing import LEAST_SAVED, ROW, SEQUENCE, pack, text_batch
from training.kernels import attention
from training.kernels.native import SWITCH, library
from training.models import llama_training
from training.models.checkpointing import checkpoint_activations
from training.models.forward import Forward
from training.models.trunk import VARLEN, Trunk

CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
SEQUENCES = [[3, 4, 5], [7] * 20, [1, 2] * 9, [9], list(range(40))]
SYSTEM = [30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41]
PROMPTS = [SYSTEM + [5] * 20, SYSTEM + [6, 7] * 9, [8] * 3]
REPLIES = [[1, 2, 3], [1, 2, 4, 5], [9] * 11, [10, 11] * 12, [12]]
GROUPS = [prompt + reply for reply in REPLIES for prompt in PROMPTS]  # replies to a few prompts, some begin alike
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=128, n_embd=32, n_layer=2, n_head=4)),
    "window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16)),
}


def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name]().eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sequences", [SEQUENCES, GROUPS], ids=["apart", "sharing"])
def test_each_sequence_has_the_hidden_states_it_has_alone(name: str, sequences: list[list[int]]) -> None:
    model = model_of(name)
    trunk = Trunk(model.base_model)
    assert trunk.packs == (name != "window")
    packed = pack(sequences, 0)
    hidden = trunk.hidden(packed)
    for ids, start in zip(sequences, packed.starts, strict=True):
        alone = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert torch.allclose(hidden[start : start + len(ids)], alone, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_with_half_precision_weights_are_packed_too(name: str, dtype: torch.dtype) -> None:
    assert Trunk(model_of(name).to(dtype).base_model).packs == (name != "window")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_would_see_other_sequences_is_not_packed(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sees_the_whole_row(module: Any, query: Any, key: Any, value: Any, mask: Any, *, blocks: Any, **_: Any) -> Any:
        row = sum(n * width for n, width in blocks)
        return attention.varlen_attention(module, query, key, value, mask, blocks=[(1, row)])

    monkeypatch.setattr(llama_training, "FAMILY", ())
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, VARLEN, sees_the_whole_row)
    assert not Trunk(model_of(name).to(dtype).base_model).packs


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("sequences", [SEQUENCES, GROUPS], ids=["apart", "sharing"])
def test_gradients_are_those_of_the_sequences_alone(name: str, sequences: list[list[int]]) -> None:
    model = model_of(name)
    batch = text_batch(sequences, [[True] * len(ids) for ids in sequences], 0, CPU)
    Forward(model).losses(batch).sum().backward()
    packed = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for ids in sequences:
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        (-logprobs[torch.arange(len(ids) - 1), torch.tensor(ids[1:], dtype=torch.long)].sum()).backward()
    for ours, slow in zip(packed, model.parameters(), strict=True):
        assert torch.allclose(ours, slow.grad, atol=2e-4)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("sequences", [SEQUENCES, GROUPS], ids=["apart", "sharing"])
def test_the_trunk_written_out_is_the_modules_own(
    name: str, sequences: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hidden states and the gradients of all weights, biases and norms included, in float32 and bf16."""
    batch = text_batch(sequences, [[True] * len(ids) for ids in sequences], 0, CPU)
    for tolerance, half in ((1e-5, False), (3e-2, True)):
        found = []
        for written_out in (True, False):
            model = model_of(name)
            draw = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(torch.randn(weight.shape, generator=draw), alpha=0.1)
            monkeypatch.setattr(llama_training, "FAMILY", (name,) if written_out else ())
            assert llama_training.supports_training(model.base_model) == written_out
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                losses = Forward(model).losses(batch)
            losses.sum().backward()
            found.append([losses.detach(), *(p.grad for p in model.parameters())])
        for ours, theirs in zip(*found, strict=True):
            assert float((ours - theirs).norm()) <= tolerance * float(theirs.norm())


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_passes_in_half_precision_stay_near_those_in_full(name: str) -> None:
    forward = Forward(model_of(name))
    batch = text_batch(SEQUENCES, [[True] * len(ids) for ids in SEQUENCES], 0, CPU)
    whole = forward.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = forward.losses(batch)
    assert forward.trunk.packs
    assert torch.allclose(half, whole, atol=0.05)
    assert not torch.equal(half, whole)


def test_frozen_weights_and_dropout_are_left_to_the_modules() -> None:
    model = model_of("llama").base_model
    assert llama_training.supports_training(model)
    model.embed_tokens.weight.requires_grad_(False)
    assert not llama_training.supports_training(model)
    assert llama_training.supports_training(model.requires_grad_(False))
    assert not llama_training.supports_training(model.to(torch.bfloat16))
    assert not llama_training.supports_training(
        LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.1)).base_model
    )


@pytest.mark.parametrize("switch", ["", "as-gpu"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_what_sequences_begin_with_is_computed_once(
    name: str, dtype: torch.dtype, checkpointing: bool, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same losses and gradients as with every sequence computed whole, also the way a GPU is used."""
    monkeypatch.setenv(SWITCH, switch)
    library.cache_clear()
    batch = text_batch(GROUPS, [[True] * len(ids) for ids in GROUPS], 0, CPU)
    assert batch.packed.computed < 0.6 * batch.packed.ids.numel()
    whole = batch._replace(packed=batch.packed._replace(shared=None))
    found = []
    for one in (batch, whole):
        model = model_of(name).to(dtype)
        if checkpointing:
            checkpoint_activations(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            losses = Forward(model).losses(one)
        losses.sum().backward()
        found.append([losses.detach().float(), *(p.grad.float() for p in model.parameters())])
    tolerance = 1e-5 if dtype is torch.float32 else 6e-2
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).norm()) <= tolerance * float(theirs.norm())
    library.cache_clear()


def test_an_adapter_is_part_of_the_pass() -> None:
    model = get_peft_model(model_of("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    packed = pack(SEQUENCES, 0)
    hidden = Forward(model).hidden(packed)
    with model.disable_adapter():
        without = Forward(model).hidden(packed)
    alone = model.get_base_model().base_model(input_ids=torch.tensor([SEQUENCES[1]])).last_hidden_state[0]
    start = int(packed.starts[1])
    assert torch.allclose(hidden[start : start + 20], alone, atol=1e-5)
    assert not torch.allclose(hidden, without, atol=1e-3)


def test_other_users_of_the_model_keep_their_attention() -> None:
    model = model_of("llama")
    before = model.config._attn_implementation
    Forward(model).hidden(pack(SEQUENCES, 0))
    assert model.config._attn_implementation == before
    with pytest.raises(IndexError):
        Forward(model).hidden(pack([[1000]], 0))
    assert model.config._attn_implementation == before


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=70), min_size=1, max_size=20))
def test_every_token_is_in_the_row_once_at_its_own_position(sequences: list[list[int]]) -> None:
    packed = pack(sequences, 0)
    row, positions = packed.ids[0], packed.positions[0]
    assert len(row) % ROW == 0
    assert sum(n * width for n, width in packed.blocks) == len(row)
    assert packed.offsets.diff().tolist() == [width for n, width in packed.blocks for _ in range(n)]
    assert set(packed.starts.tolist()) <= set(packed.offsets.tolist())
    for ids, start in zip(sequences, packed.starts.tolist(), strict=True):
        assert row[start : start + len(ids)].tolist() == ids
        assert positions[start : start + len(ids)].tolist() == list(range(len(ids)))
    assert int((row > 0).sum()) == sum(map(len, sequences))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=12), min_size=1, max_size=60))
def test_every_token_is_computed_once_for_all_that_came_before_it(sequences: list[list[int]]) -> None:
    packed = pack(sequences, 0, 1)
    unique = {tuple(ids[:end]) for ids in sequences for end in range(1, len(ids) + 1)}
    if packed.shared is None:
        assert len(unique) > packed.ids.numel() * (1 - LEAST_SAVED)
        return
    computed, copies = packed.shared
    assert len(computed) == len(set(computed.tolist())) == len(unique)
    stands: dict[int, tuple[int, ...]] = {}  # for each computed token, the sequence that ends there
    for ids, start in zip(sequences, packed.starts.tolist(), strict=True):
        for end, copy in enumerate(copies[start : start + len(ids)].tolist(), start=1):
            assert stands.setdefault(copy, tuple(ids[:end])) == tuple(ids[:end])
            assert packed.ids[0, computed[copy]] == ids[end - 1]
            assert packed.positions[0, computed[copy]] == end - 1


@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=40), min_size=1, max_size=40))
def test_the_tokens_that_are_computed_fill_whole_rows(sequences: list[list[int]]) -> None:
    packed = pack(sequences, 0)
    assert packed.computed % ROW == 0
    if packed.shared is not None:
        computed, copies = packed.shared
        assert len(set(computed.tolist())) == packed.computed
        assert int(copies.max()) < packed.computed


def test_sequences_without_a_common_beginning_are_computed_as_they_are() -> None:
    assert pack(SEQUENCES, 0).shared is None
    assert pack([[1, 2, 3, i] for i in range(4, 20)], 0).computed == ROW


def test_padding_is_small() -> None:
    lengths = list(range(20, 400, 7))
    row = pack([[1] * n for n in lengths], 0).ids.numel()
    assert row <= sum(-(-n // SEQUENCE) * SEQUENCE for n in lengths) + ROW


def test_targets_are_predicted_from_the_token_before() -> None:
    batch = text_batch([[5, 6, 7], [8, 9]], [[True, False, True], [True, True]], 0, CPU)
    assert batch.targets.tolist() == [7, 9]
    assert batch.packed.ids[0, batch.states].tolist() == [6, 8]
