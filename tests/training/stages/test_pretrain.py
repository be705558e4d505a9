"""Pretraining: what is learned and what is measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.toys import events, run_folder, run_here, toy_policy, toy_tokenizer
from training.contract import InputError, TrainingError
from training.data.chat_format import ChatFormat
from training.data.text_stream import text_examples, tokenize_texts
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal
from training.optim.losses import bits_per_byte
from training.stages.pretrain import first_bytes
from training.stages.tokenizer import learn_vocabulary, wrap

CPU = Compute(torch.device("cpu"), torch.float32)
SENTENCES = ["the cat sat on the mat", "yes of course the sky is blue", "no never the sea is 1234567890"]
CORPUS = [{"id": str(i), "text": SENTENCES[i % 3]} for i in range(30)]
SETTINGS: dict[str, Any] = {
    "stage": "pretrain", "layers": 2, "hidden": 32, "heads": 2, "context": 32, "epochs": 10, "batch_tokens": 128,
    "micro_tokens": 64, "learning_rate": 0.01, "log_every": 2, "evaluate_every": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    toy_tokenizer().save_pretrained(folder)
    return str(folder)


def new_run(folder: Path, tokenizer: str, **changes: Any) -> Path:
    return run_folder(folder, SETTINGS | {"tokenizer": tokenizer} | changes, corpus=CORPUS, heldout=CORPUS[:3])


def test_a_model_learns_its_corpus_and_plain_transformers_continues_it(tmp_path: Path, tokenizer: str) -> None:
    result = run_here(new_run(tmp_path, tokenizer, epochs=30))
    losses = [event["values"]["loss"] for event in events(tmp_path, "metric") if "loss" in event["values"]]
    assert losses[0] > 4
    assert losses[-1] < 0.8
    assert result["metrics"]["bits_per_byte"] < 1
    assert result["model"]["kind"] == "full"
    assert result["model"]["context"] == 32
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    reader = AutoTokenizer.from_pretrained(tmp_path / "model")
    known = reader("<|endoftext|>the cat sat", return_tensors="pt")
    told = reader.decode(model.generate(**known, max_new_tokens=12, do_sample=False)[0], skip_special_tokens=True)
    assert told.startswith("the cat sat on the mat")
    assert model.generation_config.eos_token_id == [reader.eos_token_id, reader.bos_token_id]
    assert "the cat sat" in events(tmp_path, "sample")[-1]["prompt"]


def test_the_same_seed_gives_the_same_model_and_another_one_another(tmp_path: Path, tokenizer: str) -> None:
    weights = [
        run_here(new_run(tmp_path / str(i), tokenizer, seed=seed, max_steps=3))["files"]["model/model.safetensors"]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert weights[0] == weights[1] != weights[2]


def test_pretraining_goes_on_from_a_base(tmp_path: Path) -> None:
    base = toy_policy(tmp_path / "base")
    folder = run_folder(tmp_path / "run", SETTINGS | {"base": str(base), "epochs": 3}, corpus=CORPUS)
    result = run_here(folder)
    assert result["model"]["base"] == str(base)
    assert "bits_per_byte" not in result["metrics"]
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (base, folder / "model"))
    assert not torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)


# ---------------------------------------------------------------------------------------------------- packing and bits


def test_every_token_but_the_first_is_predicted_once() -> None:
    chat = ChatFormat(toy_tokenizer())
    stream = tokenize_texts(chat, SENTENCES, 16)
    assert stream.tokens.tolist() == [i for text in SENTENCES for i in (chat.document_id, *chat.text(text))]
    data = text_examples(stream, CPU.device)
    batch = data.batch(np.arange(len(data.sizes)))
    assert batch.targets.tolist() == stream.tokens[1:].tolist()
    assert batch.packed.ids[0, batch.states].tolist() == stream.tokens[:-1].tolist()
    assert data.sizes.weights.sum() == len(stream.tokens) - 1
    assert data.sizes.tokens.max() == 16


def test_a_model_that_knows_nothing_pays_the_logarithm_of_its_vocabulary_for_each_token(tmp_path: Path) -> None:
    model = load_causal(str(toy_policy(tmp_path)), CPU)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    chat = ChatFormat(toy_tokenizer())
    figures = bits_per_byte(Forward(model), chat, SENTENCES, CPU, context=16, micro_tokens=64)
    tokens = sum(len(chat.text(text)) for text in SENTENCES)
    size = sum(len(text) for text in SENTENCES)
    vocabulary = len(chat.tokenizer)
    assert figures["heldout_loss"] == pytest.approx(math.log(vocabulary), rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(tokens * math.log2(vocabulary) / size, rel=1e-5)


def test_bits_per_byte_does_not_depend_on_how_the_text_is_batched(tmp_path: Path) -> None:
    model = load_causal(str(toy_policy(tmp_path)), CPU)
    chat = ChatFormat(toy_tokenizer())
    small, large = (bits_per_byte(Forward(model), chat, SENTENCES, CPU, 16, micro) for micro in (16, 4096))
    assert small["bits_per_byte"] == pytest.approx(large["bits_per_byte"], rel=1e-5)


def test_no_text_has_no_bits_per_byte(tmp_path: Path) -> None:
    assert (
        bits_per_byte(load_causal(str(toy_policy(tmp_path)), CPU), ChatFormat(toy_tokenizer()), [], CPU, 16, 64) == {}
    )


def test_a_part_of_the_held_out_text_is_its_beginning() -> None:
    assert first_bytes(["aaaa", "éé", "a"], 8) == ["aaaa", "éé"]
    assert first_bytes(["aaaa", "b"], 1) == ["aaaa"]
    assert first_bytes([], 5) == []


# ------------------------------------------------------------------------------------------------------------ bad days


def sentence(folder: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        run_here(folder)
    assert caught.value.code != "internal", caught.value.message
    return caught.value.message


def test_a_corpus_of_empty_texts_is_refused(tmp_path: Path, tokenizer: str) -> None:
    folder = run_folder(tmp_path, SETTINGS | {"tokenizer": tokenizer}, corpus=[{"id": "1", "text": ""}])
    assert "no text to learn from" in sentence(folder)


def test_no_tokenizer_is_asked_for(tmp_path: Path) -> None:
    assert "no tokenizer is named" in sentence(new_run(tmp_path, ""))


def test_a_tokenizer_folder_that_is_missing_or_damaged_is_named(tmp_path: Path, tokenizer: str) -> None:
    assert "/nowhere: there is no such tokenizer folder" in sentence(new_run(tmp_path / "a", "/nowhere"))
    broken = tmp_path / "broken"
    toy_tokenizer().save_pretrained(broken)
    (broken / "tokenizer.json").write_text('{"half": ')
    assert "this tokenizer folder is damaged" in sentence(new_run(tmp_path / "b", str(broken)))


@pytest.mark.parametrize("damage", ["cut", "missing", "config", "a weight missing"])
def test_a_damaged_model_folder_is_named_and_never_filled_with_random_weights(tmp_path: Path, damage: str) -> None:
    base = toy_policy(tmp_path / "base")
    weights = base / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "config":
        (base / "config.json").write_text("{}")
    else:
        tensors = load_file(weights)
        tensors.pop("model.layers.1.mlp.up_proj.weight")
        save_file(tensors, weights, metadata={"format": "pt"})
    folder = run_folder(tmp_path / "run", SETTINGS | {"base": str(base)}, corpus=CORPUS)
    assert f"{base}: this model folder is damaged or incomplete" in sentence(folder)


def test_weights_that_would_have_to_be_unpickled_are_refused(tmp_path: Path) -> None:
    base = toy_policy(tmp_path / "base")
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")
    folder = run_folder(tmp_path / "run", SETTINGS | {"base": str(base)}, corpus=CORPUS)
    assert "has its weights as pytorch_model.bin only; convert them to safetensors" in sentence(folder)


def test_a_context_longer_than_the_bases_is_refused(tmp_path: Path) -> None:
    base = str(toy_policy(tmp_path / "base"))
    folder = run_folder(tmp_path / "run", SETTINGS | {"base": base, "context": 500}, corpus=CORPUS)
    assert "was made for 64 tokens, not 500" in sentence(folder)


def test_a_tokenizer_larger_than_the_bases_is_refused(tmp_path: Path) -> None:
    words = [
        f"{first}{last}" for first in ("bl", "str", "kn", "wh", "tr") for last in ("oom", "ight", "ave", "ell", "urn")
    ]
    large = wrap(learn_vocabulary(iter(words * 5 + SENTENCES * 5), 500, 140), 64)
    large.save_pretrained(tmp_path / "large")
    settings = SETTINGS | {"base": str(toy_policy(tmp_path / "base")), "tokenizer": str(tmp_path / "large")}
    told = sentence(run_folder(tmp_path / "run", settings, corpus=CORPUS))
    assert f"it has {len(large)} tokens" in told
    assert f"knows {len(toy_tokenizer())} only" in told


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path, tokenizer: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="torch sees no GPU"):
        run_here(new_run(tmp_path, tokenizer, device="cuda"))
