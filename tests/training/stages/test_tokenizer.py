"""The tokenizer stage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.training.toys import PROJECT, events, run_folder, run_here, toy_tokenizer
from training.data.chat_format import DOCUMENT, END, PAD, SPECIAL, TEMPLATE
from training.stages.tokenizer import learn_vocabulary, measure

STORY = "the old cat sat on the warm mat. the young dog sat by the old log and saw 12 birds, 7 of them blue.\n"
ROWS = [{"id": str(i), "text": STORY * 3} for i in range(8)]


def test_a_tokenizer_is_learned_and_loads_anywhere(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "tokenizer", "vocabulary": 300, "context": 99}, corpus=ROWS)
    result = run_here(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert len(tokenizer) == 300
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (DOCUMENT, END, PAD)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(len(SPECIAL)))
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 99
    assert result["model"] == {"kind": "tokenizer", "vocabulary": 300, "context": 99}
    assert result["counts"]["documents"] == 8
    tokens = len(tokenizer.encode(STORY * 3))
    assert result["metrics"]["bytes_per_token"] == pytest.approx(len(STORY) * 3 / tokens)
    assert result["metrics"]["bytes_per_token"] > 1.5


def test_the_same_corpus_gives_the_same_files(tmp_path: Path) -> None:
    hashes = [
        run_here(run_folder(tmp_path / name, {"stage": "tokenizer", "vocabulary": 300}, corpus=ROWS))["files"]
        for name in "ab"
    ]
    assert hashes[0] == hashes[1]
    assert any(name.endswith("tokenizer.json") for name in hashes[0])


def test_it_works_in_as_many_threads_as_it_is_told(tmp_path: Path) -> None:
    """Counted in a process of its own, for a process makes its threads once."""
    count = (
        "import sys, psutil; from pathlib import Path; from training.__main__ import run_stage; "
        "run_stage('tokenizer', Path(sys.argv[1])); print(psutil.Process().num_threads())"
    )
    numbers = []
    for threads in (1, 4):
        folder = run_folder(tmp_path / str(threads), {"stage": "tokenizer", "threads": threads}, corpus=ROWS)
        command = [sys.executable, "-c", count, str(folder)]
        output = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        numbers.append(int(output.split()[-1]))
    assert numbers[1] - numbers[0] == 3


def test_a_small_corpus_gives_fewer_tokens_and_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "tokenizer", "vocabulary": 5000}, corpus=ROWS)
    assert run_here(folder)["metrics"]["vocabulary"] < 5000
    assert "not for 5000" in events(folder, "warning")[0]["message"]


def test_every_digit_is_a_token_of_its_own_and_words_bring_their_space() -> None:
    tokenizer = learn_vocabulary(iter(["room 1234 and room 1234"] * 20), 400, 20)
    assert tokenizer.encode("room 1234").tokens == ["room", "Ġ", "1", "2", "3", "4"]
    assert "Ġroom" in tokenizer.encode("and room").tokens


def test_bytes_per_token_counts_bytes_and_not_characters() -> None:
    assert measure(toy_tokenizer().backend_tokenizer, ["é"]) == {"bytes_per_token": 1.0}
