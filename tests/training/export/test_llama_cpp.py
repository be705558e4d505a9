"""What llama.cpp itself makes of the files that are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.export.exported import PRE_TOKENIZERS, export, family_policy
from tests.training.toys import toy_policy
from training.contract import InputError
from training.export import llama_cpp
from training.export.answers import Questions, answer
from training.models.loading import load_tokenizer

pytest.importorskip("xllamacpp")
TEXTS = (
    "It's 1234.56 and they'LL say 'so', O'Reilly!\n'tis a line\n\n\n  two\t\ttabs   \n \n end. \n\nÉtude №5: x²=٣ ﬁ",
    "def f(x):\r\n    return [x**2 for _ in range(10)]  # done...\n\n\n",
    "图书馆在哪里? 😀😀 nai\u0308ve  \u00a0space\u2003wide",
    "  leading, trailing  ",
    "\"Quoted.\" ('paren') $9,99 — dash…\n.\n \n?!\n",
    "<|im_start|>user\nhi<|im_end|>\n",
)


@pytest.mark.parametrize(
    ("kind", "family", "changed"),
    [
        ("llama", "smollm", {"tie_word_embeddings": True}),
        ("llama", "llama-bpe", {"attention_bias": True, "head_dim": 16}),
        ("qwen2", "qwen2", {"tie_word_embeddings": False}),
        ("qwen3", "qwen2", {}),
        ("mistral", "gpt-2", {"sliding_window": None}),
    ],
)
def test_llama_cpp_gives_exactly_the_same_tokens(
    tmp_path: Path, kind: str, family: str, changed: dict[str, Any]
) -> None:
    base = family_policy(tmp_path / "base", kind, family, taught=True, **changed)
    output, result = export(tmp_path, base, "gguf-f16", name="tiny")
    assert "llama.cpp answered 10 of 10 prompts by the same tokens" in result["model"]["checks"][-1]
    questions = Questions(load_tokenizer(str(base)), str(base))
    questions.fit(256)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = answer(model, questions, questions.stop_ids, lambda *_: None)
    requests = [llama_cpp.chat_request(turns, 32) for turns in questions.conversations]
    responses = list(llama_cpp.ask(output / "tiny-f16.gguf", 256, 1, requests))
    given = [llama_cpp.reply_of(*pair) for pair in zip(responses, questions.prompts, strict=True)]
    assert [reply.reply for reply in given] == [reply.reply for reply in expected]
    assert [reply.prompt for reply in given] == questions.prompts
    assert [len(reply.reply) for reply in expected] == list(range(5, 15)), "each answer has its own length, and ends"


@pytest.mark.parametrize("quantization", ["bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_quantized_files_answer_within_the_bound(tmp_path: Path, quantization: str) -> None:
    base = family_policy(tmp_path / "base", "llama", "smollm", torch.float32)
    output, result = export(tmp_path, base, f"gguf-{quantization}")
    assert "llama.cpp" in result["model"]["checks"][-1]
    sizes = {"bf16": 2, "q8_0": 1.1}
    numbers = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(base).parameters())
    assert (output / f"model-{quantization}.gguf").stat().st_size < numbers * sizes.get(quantization, 0.95) + 20_000


def test_a_model_pretrained_here_leaves_as_gguf(tmp_path: Path) -> None:
    _, result = export(tmp_path, toy_policy(tmp_path / "base"), "gguf-f16")
    assert "llama.cpp answered" in result["model"]["checks"][-1]


@pytest.mark.parametrize("family", [*PRE_TOKENIZERS, "seed-coder"])
def test_llama_cpp_cuts_text_into_the_same_tokens(tmp_path: Path, family: str) -> None:
    own = family == "seed-coder"
    base = toy_policy(tmp_path / "base") if own else family_policy(tmp_path / "base", "llama", family)
    output, _ = export(tmp_path, base, "gguf-f16")
    tokenizer = load_tokenizer(str(base))
    requests = [{"tokenize": {"content": text, "add_special": False, "parse_special": True}} for text in TEXTS]
    for text, response in zip(TEXTS, llama_cpp.ask(output / "model-f16.gguf", 64, 1, requests), strict=True):
        assert response["tokens"] == tokenizer.encode(text, add_special_tokens=False), text


@pytest.mark.parametrize("key", ["rope_freq_base", "layer_norm_rms_eps"])
def test_a_file_with_a_wrong_setting_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """All tensors are right, so only answers can tell."""
    write = getattr(gguf.GGUFWriter, f"add_{key}")
    monkeypatch.setattr(gguf.GGUFWriter, f"add_{key}", lambda self, value: write(self, value * 1e5))
    base = family_policy(tmp_path / "base", "llama", "smollm")
    with pytest.raises(InputError, match=r"not offered: llama\.cpp answers prompt \d+ otherwise"):
        export(tmp_path, base, "gguf-f16")
    assert not (tmp_path / "export-gguf-f16" / "output").exists()
