"""Architectures from elsewhere go through the stages: a tiny random model of each. What does not work here says so, and
docs/training.md tells which do."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.training.toys import (
    ARCHITECTURES,
    PROJECT,
    prompts,
    run_folder,
    run_here,
    tiny_folder,
    tiny_model,
    toy_tokenizer,
    turns,
)
from training.contract import InputError, Turn
from training.data.chat_format import ChatFormat
from training.engine import Engine, EngineRequest, SamplingParams
from training.models.compute import Compute
from training.models.loading import CausalModel, load_causal
from training.preferences.reward_model import encode, load_reward, score

pytestmark = pytest.mark.slow
CPU = Compute(torch.device("cpu"), torch.float32)
NO_REWARD = {"granite", "cohere"}
NAMES = {
    "llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral", "gemma": "Gemma", "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3", "phi3": "Phi-3", "olmo2": "OLMo 2", "smollm3": "SmolLM3", "stablelm": "StableLM",
    "granite": "Granite", "cohere": "Cohere", "gpt2": "GPT-2", "gpt_neox": "GPT-NeoX", "opt": "OPT", "bloom": "BLOOM",
    "falcon": "Falcon",
}  # fmt: skip


@pytest.fixture(scope="module", params=ARCHITECTURES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp(kind) / "model", kind)


@pytest.mark.parametrize("rank", [0, 2], ids=["full", "adapter"])
def test_it_learns_from_demonstrations(folder: Path, tmp_path: Path, rank: int) -> None:
    rows = [{"id": f"d:{i}", "messages": turns(f"is it {i}?", "yes of course")} for i in range(4)]
    config = {"stage": "sft", "base": str(folder), "epochs": 30, "max_tokens": 48, "batch_tokens": 64}
    config |= {"lora": {"rank": rank}, "learning_rate": 3e-3, "max_steps": 2}
    result = run_here(run_folder(tmp_path, config, demonstrations=rows, heldout=rows))
    assert result["metrics"]["skipped"] == 0
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        after = load_causal(str(tmp_path / "model"), CPU)(ids).logits
    assert (after - before).abs().max() > 1e-3
    assert math.isfinite(result["metrics"]["heldout_loss"])


def test_it_becomes_a_reward_model_and_a_policy(kind: str, folder: Path, tmp_path: Path) -> None:
    rows = [
        {"id": f"r:{i}", "messages": turns(f"is it {i}?"), "replies": ["yes", "no"], "groups": [[0], [1]]}
        for i in range(4)
    ]
    config = {"stage": "reward", "base": str(folder), "max_steps": 1, "min_rows": 1, "max_tokens": 48}
    reward = run_folder(tmp_path / "reward", config, rankings=rows)
    if kind in NO_REWARD:
        with pytest.raises(InputError, match=f"no sequence classification for models of type {kind}"):
            run_here(reward)
    else:
        run_here(reward)
        model, tokenizer = load_reward(str(reward / "model"), CPU)
        talks = [[Turn(role="user", content="is it?"), Turn(role="assistant", content=r)] for r in ("yes", "no never")]
        other = AutoModelForSequenceClassification.from_pretrained(reward / "model").eval()
        for talk, own in zip(talks, score(model, tokenizer, talks), strict=True):
            ids = encode(ChatFormat(tokenizer), talk[:-1], talk[-1].content, 48).encoded.ids
            assert other(torch.tensor([ids])).logits.item() == pytest.approx(own, abs=1e-4)
    source = "function:brevity" if kind in NO_REWARD else str(reward / "model")
    config = {
        "stage": "ppo", "policy": str(folder), "reward": source, "steps": 1, "prompts_per_step": 4, "epochs": 2,
        "value_warmup": 0, "sampling": {"max_new_tokens": 5},
    }  # fmt: skip
    ppo = run_folder(tmp_path / "ppo", config, prompts=prompts(4))
    found = run_here(ppo)["metrics"]
    assert found["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert found["val/rollout_gap"] < 1e-5
    assert "skipped" not in found


def test_the_engine_says_what_transformers_says(folder: Path) -> None:
    check_engine(load_causal(str(folder), CPU))


@pytest.mark.parametrize("newer", [False, True])
def test_the_engine_says_what_transformers_says_where_falcon_has_alibi(newer: bool) -> None:
    check_engine(tiny_model("falcon", alibi=True, new_decoder_architecture=newer))


def check_engine(model: CausalModel) -> None:
    draw = torch.Generator().manual_seed(0)
    asked = [torch.randint(8, len(toy_tokenizer()), (n,), generator=draw).tolist() for n in (3, 17, 1, 26, 9, 9)]
    sampling = SamplingParams(temperature=0, max_new_tokens=12, stop_ids=frozenset({7}))
    replies = Engine(model, toy_tokenizer(), slots=2).generate([EngineRequest(prompt, sampling) for prompt in asked])
    for prompt, reply in zip(asked, replies, strict=True):
        alone = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=7, pad_token_id=0
        )[0, len(prompt) :]  # fmt: skip
        assert reply.tokens == alone.tolist()
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply.tokens])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, alone[:, None])[:, 0]
        assert reply.logprobs == pytest.approx(expected.tolist(), abs=2e-4)


def test_the_documentation_names_them() -> None:
    text = " ".join((PROJECT / "docs" / "training.md").read_text().split())
    (everywhere,) = re.findall(r"Tested in every stage: ([^.]*)\.", text)
    assert set(everywhere.split(", ")) == {NAMES[one] for one in ARCHITECTURES if one not in NO_REWARD}
    (told,) = re.findall(r"([^.;]*) cannot become reward models", text)
    assert all(NAMES[kind] in told for kind in NO_REWARD)
