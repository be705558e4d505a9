"""The model server when the memory for keys and values is short."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.training.serving import ENDLESS, served
from tests.training.toys import toy_policy
from training.engine.kv_budget import KVBudget
from training.engine.kv_cache import PAGE

PAGE_BYTES = PAGE * 2 * 2 * 32 * 4  # two layers, keys and values, width 32, float32
LONG = {"max_tokens": 3 * PAGE, **ENDLESS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    folders = {name: toy_policy(top / name, seed) for seed, name in enumerate(("toy", "other"))}
    for folder in folders.values():
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 16 * PAGE}))
    return folders


def budget(pages: int) -> KVBudget:
    return KVBudget(torch.device("cpu"), pages * PAGE_BYTES)


@pytest.mark.fp32
def test_many_chats_with_two_models_in_little_memory_all_get_the_reply_they_would_have_got(
    folders: dict[str, Path],
) -> None:
    def replies(pages: int) -> tuple[list[str], int]:
        with served(folders, slots=8, memory=budget(pages)) as site:
            site.load("other", folders["other"])
            with ThreadPoolExecutor(16) as threads:
                answers = list(
                    threads.map(lambda i: site.chat(model=("toy", "other")[i % 2], seed=i, **LONG), range(16))
                )
            assert {answer.status_code for answer in answers} == {200}
            assert site.get("/health").json()["kv_cache"] == {"used_bytes": 0, "limit_bytes": pages * PAGE_BYTES}
            metrics = dict(line.rsplit(" ", 1) for line in site.get("/metrics").text.splitlines() if line[0] != "#")
            assert float(metrics["tutelage_kv_cache_bytes"]) == 0
            assert float(metrics["tutelage_kv_cache_limit_bytes"]) == pages * PAGE_BYTES
            preempted = int(float(metrics["tutelage_replies_preempted"]))
            return [answer.json()["choices"][0]["message"]["content"] for answer in answers], preempted

    plenty, never = replies(1000)
    little, often = replies(12)
    assert little == plenty
    assert never == 0 < often


def test_a_prompt_that_never_fits_is_400_and_says_why_and_the_models_length_is_what_fits(
    folders: dict[str, Path],
) -> None:
    with served(folders, memory=budget(4)) as site:
        assert site.get("/v1/models/toy").json()["max_model_len"] == 3 * PAGE
        answer = site.post("/v1/completions", {"model": "toy", "prompt": [[9] * 300]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "no memory for keys and values" in answer.json()["error"]["message"]
        choice = site.chat(**ENDLESS, max_tokens=9999).json()["choices"][0]
        assert choice["finish_reason"] == "length"


def test_loading_and_unloading_measure_anew_what_is_free(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(folders) as site:
        monkeypatch.setattr("training.engine.kv_budget.free_bytes", lambda _: 1000 * PAGE_BYTES)
        site.load("other", folders["other"])
        assert site.pool.memory.limit == 500 * PAGE_BYTES
        monkeypatch.setattr("training.engine.kv_budget.free_bytes", lambda _: 1200 * PAGE_BYTES)
        site.pool.unload("other")
        assert site.pool.memory.limit == 600 * PAGE_BYTES
