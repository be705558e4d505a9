from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.models.test_memory import CPU
from tests.training.toys import toy_policy
from training.contract import ModelFacts, facts_of_config, facts_of_folder
from training.models.loading import load_causal, model_info
from training.models.memory import parameters_of


def test_a_llama_config_gives_its_numbers() -> None:
    facts = facts_of_config(
        {
            "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 30, "hidden_size": 576,
            "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
            "dtype": "bfloat16", "max_position_embeddings": 8192, "tie_word_embeddings": True,
        }
    )  # fmt: skip
    assert facts == ModelFacts(
        architecture="LlamaForCausalLM", layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64,
        vocabulary=49152, context=8192, tied=True, dtype="bfloat16",
    )  # fmt: skip


def test_gpt2_calls_them_otherwise_and_has_as_many_key_value_heads_as_heads() -> None:
    facts = facts_of_config({"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024})
    assert (facts.layers, facts.hidden, facts.intermediate, facts.kv_heads, facts.head_dim, facts.context) == (
        12, 768, 3072, 12, 64, 1024,
    )  # fmt: skip


def test_the_text_part_of_a_config_counts() -> None:
    facts = facts_of_config(
        {"torch_dtype": "bfloat16", "text_config": {"hidden_size": 1152, "num_hidden_layers": 26, "vocab_size": 262144}}
    )
    assert (facts.hidden, facts.layers, facts.vocabulary, facts.dtype) == (1152, 26, 262144, "bfloat16")


def test_a_folder_says_the_same_as_the_loaded_model(tmp_path: Path) -> None:
    folder = toy_policy(tmp_path / "model")
    facts = facts_of_folder(folder)
    assert facts is not None
    assert facts.parameters == parameters_of(str(folder))
    assert facts.chat_template is True
    loaded = model_info(load_causal(str(folder), CPU))
    shape = ("architecture", "layers", "hidden", "heads", "kv_heads", "vocabulary", "context", "tied")
    assert {name: loaded["facts"][name] for name in shape} == facts.model_dump(include=set(shape))


def test_an_adapter_has_its_base_s_numbers_and_its_own_rank(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 32, "base_model_name_or_path": "org/base"}))
    base = ModelFacts(parameters=1000, layers=2, hidden=8, chat_template=True)
    assert facts_of_folder(tmp_path, base) == base.model_copy(update={"adapter_rank": 32})


@pytest.mark.parametrize("content", [b"", b"rubbish!", b"\x08\0\0\0\0\0\0\0rubbish!"])
def test_damaged_weights_say_nothing_of_their_size(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (tmp_path / "model.safetensors").write_bytes(content)
    facts = facts_of_folder(tmp_path)
    assert facts is not None
    assert (facts.parameters, facts.hidden) == (0, 8)


def test_a_folder_without_a_model_has_no_facts(tmp_path: Path) -> None:
    assert facts_of_folder(tmp_path) is None


CARD = """---
license: apache-2.0
language:
- en
- "de"
tags: [chat, 'small']
base_model: org/base
model-index:
- name: other
  results:
  - task: text
---
# A model
license: mit
"""


def test_the_card_and_the_generation_config_say_what_the_authors_say(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (tmp_path / "README.md").write_text(CARD)
    generation = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    facts = facts_of_folder(tmp_path)
    assert facts is not None
    assert (facts.license, facts.languages, facts.base_model) == ("apache-2.0", ["en", "de"], "org/base")
    assert facts.tags == ["chat", "small"]
    assert facts.sampling == {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("card", "generation"),
    [
        ("no front matter", "[]"),
        ("---\nlicense:\n  - : [\n---", '{"temperature": "hot", "top_p": 7, "top_k": true}'),
        ("---\nlanguage: {a: b}\n- stray\n---\n", '{"temperature": NaN, "top_p": Infinity, "top_k": -1}'),
        ("\x00---\n" + "x" * 100_000, "{"),
    ],
)
def test_rubbish_beside_the_weights_is_no_fact(tmp_path: Path, card: str, generation: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "generation_config.json").write_text(generation)
    facts = facts_of_folder(tmp_path)
    assert facts is not None
    assert (facts.license, facts.sampling) == ("", {})
