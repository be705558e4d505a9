"""The model server with weights in 8 bits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.training.serving import ENDLESS, served
from tests.training.toys import toy_policy, toy_tokenizer
from training.kernels.int8 import can_multiply_int8

pytestmark = pytest.mark.skipif(not can_multiply_int8(), reason="there are no compiled kernels here")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(toy_tokenizer()), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(top / "gpt2")
    toy_tokenizer().save_pretrained(top / "gpt2")
    return {"toy": toy_policy(top / "toy", 0), "gpt2": top / "gpt2"}


def test_a_model_in_8_bits_answers_with_usage_and_logprobs_and_says_what_it_is(folders: dict[str, Path]) -> None:
    with served(folders, weights="int8") as site:
        assert site.get("/v1/models/toy").json()["weights"] == "int8"
        answer = site.chat(**ENDLESS, logprobs=True, seed=3).json()
        assert answer["usage"]["completion_tokens"] == 8
        rounded = [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
        alone = site.chat(**ENDLESS, logprobs=True, seed=3).json()
        assert [token["logprob"] for token in alone["choices"][0]["logprobs"]["content"]] == rounded
    with served(folders) as site:
        assert site.get("/v1/models/toy").json()["weights"] == "full"
        full = site.chat(**ENDLESS, logprobs=True, seed=3).json()["choices"][0]["logprobs"]["content"]
    assert full[0]["logprob"] != rounded[0]
    assert full[0]["logprob"] == pytest.approx(rounded[0], abs=0.2)


def test_a_model_that_cannot_be_kept_in_8_bits_is_served_in_full_and_the_log_says_so(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with served(folders, weights="int8") as site, caplog.at_level(logging.WARNING):
        assert site.load("gpt2", folders["gpt2"]).status_code == 200
        assert site.get("/v1/models/gpt2").json()["weights"] == "full"
        assert site.chat(model="gpt2", **ENDLESS).status_code == 200
    assert "is served with its full weights: 8-bit weights are for llama, mistral, qwen2, qwen3" in caplog.text
