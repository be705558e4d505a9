"""Cleaning collected text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.toys import run_folder, run_here
from training.contract import DroppedRow, TextRow, TrainingError
from training.data.cleaning import (
    INVISIBLE,
    clean_text_of,
    language,
    number_kind,
    split_text,
    without_personal_data,
)
from training.data.duplicates import Originals, five_grams, jaccard
from training.run.rows import read_rows
from training.stages.corpus import is_held_out

WORDS = ["river", "stone", "lantern", "orchard", "violin", "harbour", "thunder", "meadow", "copper"]
PAGE = """<html><head><title>t</title></head><body><nav><a href="/">Home</a><a href="/x">Buy now</a></nav><article>
<h1>The old lighthouse</h1><p>The lighthouse stood on the rock for two hundred years, and nobody lived in it.</p>
<p>One winter a keeper came with a lamp &amp; a cat, and the light was seen again from far away on the sea.</p>
</article><script>track()</script><footer>Copyright</footer></body></html>"""


def prose(seed: int, words: int = 120) -> str:
    random_words = random.Random(seed)
    return " ".join(random_words.choice(WORDS) + str(random_words.randrange(99)) for _ in range(words))


def clean_up(folder: Path, documents: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Result, and the rows of the three files by name."""
    result = run_here(run_folder(folder, {"stage": "corpus", "heldout_fraction": 0, **changes}, documents=documents))
    rows = {
        name: [json.loads(line) for line in (folder / "output" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("corpus", "heldout", "dropped")
    }
    return {"result": result, **rows}


# --------------------------------------------------------------------------------------------------------- the stage


def test_every_document_is_kept_held_out_or_dropped_with_its_reason(tmp_path: Path) -> None:
    original = prose(1)
    told = clean_up(
        tmp_path,
        [
            {"id": "good", "text": original, "source": "book"},
            {"id": "short", "text": "too short"},
            {"id": "empty", "text": " \n "},
            {"id": "copy", "text": original.upper().replace(" ", "  ")},
            {"id": "near", "text": original + " one more word"},
            {"id": "other", "text": prose(2)},
        ],
    )
    assert [row["id"] for row in told["corpus"]] == ["good", "other"]
    assert told["corpus"][0]["source"] == "book"
    assert [(row["id"], row["reason"], row["detail"]) for row in told["dropped"]] == [
        ("short", "too short", "9 characters"),
        ("empty", "no text", ""),
        ("copy", "copy", "good"),
        ("near", "near copy", "good"),
    ]
    counts = told["result"]["counts"]
    assert (counts["documents"], counts["corpus"], counts["heldout"], counts["dropped"]) == (6, 2, 0, 4)
    assert counts["dropped: near copy"] == 1
    assert set(told["result"]["files"]) == {f"output/{name}.jsonl" for name in ("corpus", "heldout", "dropped")}


def test_the_files_are_what_the_next_stages_read(tmp_path: Path) -> None:
    clean_up(tmp_path, [{"id": "a", "text": prose(1)}, {"id": "b", "text": "x"}])
    assert read_rows(tmp_path / "output" / "corpus.jsonl", TextRow)[0][0].id == "a"
    assert read_rows(tmp_path / "output" / "dropped.jsonl", DroppedRow)[0][0].reason == "too short"


def test_text_is_taken_out_of_a_page_without_its_furniture(tmp_path: Path) -> None:
    told = clean_up(
        tmp_path, [{"id": "page", "text": PAGE, "format": "html"}, {"id": "none", "text": "<p>", "format": "html"}]
    )
    text = told["corpus"][0]["text"]
    assert "a keeper came with a lamp & a cat" in text
    assert not {"Buy", "track", "<p>"} & set(text.split())
    assert told["dropped"][0]["reason"] == "no text"


def test_a_share_is_held_out_by_a_hash_of_the_text_whatever_the_order(tmp_path: Path) -> None:
    documents = [{"id": str(i), "text": prose(i)} for i in range(200)]
    first = clean_up(tmp_path / "a", documents, heldout_fraction=0.2)
    second = clean_up(tmp_path / "b", documents[::-1], heldout_fraction=0.2)
    held_out = {row["id"] for row in first["heldout"]}
    assert held_out == {row["id"] for row in second["heldout"]}
    assert 20 <= len(held_out) <= 60
    assert held_out.isdisjoint(row["id"] for row in first["corpus"])


def test_a_long_document_is_cut_and_its_pieces_stay_on_one_side(tmp_path: Path) -> None:
    long = prose(3, 400)
    told = clean_up(tmp_path, [{"id": "long", "text": long}], max_chars=1000)
    assert [row["id"] for row in told["corpus"]] == [f"long#{k}" for k in range(1, len(told["corpus"]) + 1)]
    assert all(len(row["text"]) <= 1000 for row in told["corpus"])
    assert " ".join(row["text"] for row in told["corpus"]) == long


def test_only_the_wanted_language_is_kept(tmp_path: Path) -> None:
    english = "The king was in the house and he had not seen that it was raining on the roof of it."
    german = "Der König war nicht im Haus und die Frau ist auch nicht mit dem Hund auf das Dach gegangen."
    told = clean_up(tmp_path, [{"id": "en", "text": english}, {"id": "de", "text": german}], language="de")
    assert [row["id"] for row in told["corpus"]] == ["de"]
    assert (told["dropped"][0]["reason"], told["dropped"][0]["detail"]) == ("other language", "en")


def test_a_language_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "corpus", "language": "xx"}, documents=[{"id": "a", "text": prose(1)}])
    with pytest.raises(TrainingError, match=r"xx is not one of ace, af, .*en, .*zu"):
        run_here(folder)


def test_a_corpus_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, {"stage": "corpus"}, documents=[{"id": str(i), "text": "tiny"} for i in range(3)])
    with pytest.raises(TrainingError, match="nothing is left of 3 documents; 3 too short"):
        run_here(folder)


# ------------------------------------------------------------------------------------------------------------ cleaning


@pytest.mark.parametrize(
    ("dirty", "tidy"),
    [
        ("caf\u00c3\u00a9 \u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d", 'café "quoted"'),
        ("cafe\u0301", "café"),
        ("a\0b\x07c\u200bd\ufeffe\u00adf\u202eg", "abcdefg"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("one  \n\n\n\n\ntwo\t\n", "one\n\ntwo"),
        ("a\u00a0b", "a b"),
        ("    def f():\n        return 1", "def f():\n        return 1"),
        ("👩\u200d🚀 ok", "👩\u200d🚀 ok"),
    ],
)
def test_text_is_tidied(dirty: str, tidy: str) -> None:
    assert clean_text_of(dirty) == tidy


@settings(deadline=None)
@given(st.text())
def test_nothing_invisible_is_left_in_a_tidied_text(text: str) -> None:
    tidy = clean_text_of(text)
    assert not INVISIBLE.search(tidy)
    assert "\n\n\n" not in tidy
    assert tidy == tidy.strip()


@settings(deadline=None)
@given(st.text(alphabet="ab \n", max_size=300), st.integers(5, 50))
def test_pieces_hold_all_the_text_and_none_is_too_long(text: str, most: int) -> None:
    cut = split_text(text, most)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(len(piece) <= most for piece in cut)


def test_a_text_is_cut_at_the_end_of_a_paragraph_where_one_is_near() -> None:
    assert split_text("a" * 85 + "\n\n" + "b c " * 10, 100)[0] == "a" * 85


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("write to jo.smith+x@mail.example.org, please", "write to <email>, please"),
        ("call +44 20 7946 0958 or (555) 123-4567.", "call <phone> or <phone>."),
        ("call 555-123-4567 today", "call <phone> today"),
        ("card 4111 1111 1111 1111 ok", "card <card> ok"),
        ("card 4111111111111111", "card <card>"),
        ("(37) 788-063 or 345-899-3560x4587", "<phone> or <phone>"),
    ],
)
def test_personal_data_gives_way_to_placeholders(text: str, hidden: str) -> None:
    assert without_personal_data(text) == (hidden, hidden.count("<"))


@pytest.mark.parametrize(
    "text",
    [
        "in 1914-1918 and 1939-1945", "born (18.08.1856), voyage 4 (1811-1812)",
        "1815 1914 1939 2001", "1,000,000,000 people", "10 000 000 000 stars",
        "3.14159265358979", "on 2020-01-02", "the number 1234567890", "@home and a@b", "ISBN 9", "2 + 2 = 4",
    ],
)  # fmt: skip
def test_other_numbers_and_signs_stay(text: str) -> None:
    assert without_personal_data(text) == (text, 0)


def test_the_check_digit_tells_cards_from_other_numbers() -> None:
    assert number_kind("4111 1111 1111 1111") == "card"
    assert number_kind("4111 1111 1111 1112") == ""


def test_a_language_is_recognized_in_any_script() -> None:
    assert language("le chat est dans la maison avec les enfants et une souris") == "fr"
    assert language("el perro está en la casa con los niños y una vaca por la tarde") == "es"
    assert language("凧は風の力で空を飛びます。子どもたちは公園で遊びます。") == "ja"
    assert language("Latawiec lata, ponieważ wiatr naciska na jego powierzchnię.") == "pl"
    assert language("12 + 34 = 46") == ""


# ---------------------------------------------------------------------------------------------------------- duplicates


def slow_jaccard(a: str, b: str) -> float:
    sets = [{tuple(text.split()[i : i + 5]) for i in range(len(text.split()) - 4)} for text in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_similarity_is_that_of_the_sets_of_five_words() -> None:
    a, b = prose(1), prose(1, 100) + " " + prose(2, 20)
    assert jaccard(five_grams(a), five_grams(b)) == pytest.approx(slow_jaccard(a, b))
    assert 0.5 < slow_jaccard(a, b) < 1


def test_near_copies_above_the_threshold_are_found_and_others_are_not() -> None:
    originals = Originals(0.7)
    assert originals.near("a", prose(1)) == ""
    assert originals.near("b", prose(1) + " with a short end") == "a"
    assert originals.near("c", prose(1, 60) + " " + prose(2, 60)) == ""


def test_a_threshold_of_one_keeps_near_copies() -> None:
    originals = Originals(1)
    assert originals.near("a", prose(1)) == ""
    assert originals.near("b", prose(1)) == ""


def test_short_texts_are_compared_as_a_whole() -> None:
    assert len(five_grams("two words")) == 1
    assert jaccard(five_grams("two words"), five_grams("two, words!")) == 1
    assert jaccard(five_grams("two words"), five_grams("words two")) == 0


def test_the_side_of_a_text_is_the_same_for_ever() -> None:
    assert [is_held_out(f"text {i}", 0.3) for i in range(8)] == [False] * 6 + [True] * 2
    assert not is_held_out("anything", 0.0)
