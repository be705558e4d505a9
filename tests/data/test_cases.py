"""Files that public bug reports of other tools describe, with what is right for each; they lie beside the project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.data.reading import read_file
from webapp.data.shapes import DemonstrationItem, JudgmentItem, PromptItem, RankingItem

CASES = Path(os.environ.get("TUTELAGE_CASES", Path(__file__).parents[2] / ".." / "shared" / "audit" / "cases"))
PLANET = "Which planet is closest to the sun?"
MERCURY, VENUS = "Mercury is the closest planet to the sun.", "I think it might be Venus."
ASK = [{"role": "user", "content": PLANET}]
WON = RankingItem(ASK, [MERCURY, VENUS], [[0], [1]])

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases (TUTELAGE_CASES) is not here")


def user(text: Any) -> Any:
    return [{"role": "user", "content": text}]


def system(text: Any) -> Any:
    return {"role": "system", "content": text}


def ranked(**fields: Any) -> Any:
    return RankingItem(ASK, [MERCURY, VENUS], [[0], [1]], **fields)


RIGHT = {
    "01-trl-kto-labels.jsonl": [
        JudgmentItem(ASK, MERCURY, True),
        JudgmentItem(ASK, VENUS, False),
        JudgmentItem(user("Name a fruit that is yellow."), "A plum.", False),
    ],
    "03-own-rankings-export.jsonl": [
        RankingItem(ASK, [VENUS, MERCURY, "The moon."], [[1], [0, 2]], strength=2.0, annotator="person:3")
    ],
    "04-helpsteer2-scores.jsonl": [ranked(strength=3.0)],
    "06-openai-weight-0-last.jsonl": [],
    "07-axolotl-training-false.jsonl": [
        DemonstrationItem([*ASK, {"role": "assistant", "content": "Pluto!"}, *user("Sure?")], "Mercury.", [1])
    ],
    "08-top-level-system.jsonl": [DemonstrationItem([system("Answer like a pirate."), *ASK], "Arr, Mercury it be.")],
    "10-openorca-system-prompt.jsonl": [DemonstrationItem([system("Answer like I am five."), *ASK], MERCURY)],
    "11-instruction-input-without-output.jsonl": [PromptItem(user("Translate into French.\n\nGood morning."))],
    "13-question-choices.jsonl": [
        PromptItem(user("Which of these is a metal?\n\nA. wood\nB. iron\nC. glass\nD. wool"))
    ],
    "15-ultrafeedback-raw.jsonl": [
        RankingItem(ASK, [MERCURY, VENUS, "The moon."], [[0], [1], [2]], strength=2.0)
    ],
    "16-helpsteer2-preference.jsonl": [ranked(strength=3.0)],
    "18-argilla-flat-ranking.jsonl": [ranked(annotator="u-1")],
    "20-labelstudio-json-min.json": [ranked(annotator="1")],
    "21-arena-csv-shape.jsonl": [WON],
    "23-oasst-flat-messages.jsonl": [WON, DemonstrationItem(ASK, MERCURY)],
    "24-reply-is-a-transcript.jsonl": [
        RankingItem(
            user("Write a two-line chat between a person and a robot."),
            ["Human: Are you awake?\n\nAssistant: Always.", "Human: Are you awake?\n\nAssistant: No."],
            [[0], [1]],
        ),
        DemonstrationItem(
            user("Write a two-line chat between a person and a robot, again."),
            "Human: Are you awake?\n\nAssistant: Always.",
        ),
    ],
    "26-indented-code.jsonl": [
        DemonstrationItem(user("Complete:\ndef double(x):\n"), "    y = x + x\n    return y\n")
    ],
    "27-preference-about-indentation.jsonl": [
        RankingItem(
            user("Continue the function body:\ndef double(x):"), ["    return x + x", "return x + x"], [[0], [1]]
        )
    ],
    "28-three-votes.jsonl": [
        ranked(annotator="ann"),
        ranked(annotator="ben"),
        RankingItem(ASK, [VENUS, MERCURY], [[0], [1]], annotator="cem"),
    ],
    "30-own-chat-export-thumb-down.jsonl": [
        JudgmentItem(user("Which fruit is yellow?"), "After December comes December.", False),
        DemonstrationItem(user("Which fruit is yellow?"), "A banana."),
    ],
    "31-tsv-open-quote.tsv": [
        DemonstrationItem(user("What is one?"), "A number"),
        DemonstrationItem(user("Who said stop?"), '"Stop! he said.'),
        DemonstrationItem(user("What is two?"), "Two."),
        DemonstrationItem(user("What is three?"), "Three."),
    ],
    "33-csv-empty-answer.csv": [DemonstrationItem(ASK, MERCURY)],
    "34-ends-with-thanks.jsonl": [DemonstrationItem(ASK, MERCURY, unanswered=user("Thanks!"))],
    "36-replies-with-scores.jsonl": [WON],
    "40-trl-conversational-explicit.jsonl": [WON],
    "41-trl-conversational-completion.jsonl": [DemonstrationItem(ASK, MERCURY)],
    "42-trl-conversational-prompt-only.jsonl": [PromptItem(ASK)],
    "44-hh-prompt-ends-with-assistant-marker.jsonl": [WON],
    "45-nectar.jsonl": [RankingItem(ASK, [MERCURY, VENUS, "No idea."], [[0], [1], [2]])],
    "47-shp.jsonl": [ranked(strength=3.0)],
    "49-content-parts.jsonl": [DemonstrationItem(ASK, MERCURY)],
    "50-developer-role.jsonl": [DemonstrationItem([system("Short answers."), *ASK], "Mercury.")],
    "51-tool-turns.jsonl": [],
    "52-sharegpt-chatgpt-role.jsonl": [DemonstrationItem(ASK, MERCURY)],
    "54-llamafactory-alpaca-ranking.json": [WON],
    "56-question-chosen-rejected-system.jsonl": [
        RankingItem([system("You are a helpful assistant."), *ASK], [MERCURY, VENUS], [[0], [1]])
    ],
    "57-labelstudio-pairwise.json": [ranked(annotator="1")],
    "59-labelstudio-textarea.json": [DemonstrationItem(ASK, MERCURY)],
    "61-openwebui-feedback.json": [JudgmentItem(ASK, MERCURY, True, annotator="u")],
    "62-openwebui-chats.json": [DemonstrationItem(ASK, MERCURY)],
    "64-semicolon-bom.csv": [
        WON,
        RankingItem(user("Wie heißt die Hauptstadt; von Österreich?"), ["Wien, natürlich.", "Graz."], [[0], [1]]),
    ],
    "65-utf16.jsonl": [DemonstrationItem(user("Grüße?"), "Grüß Gott.")],
    "67-trailing-comma-lines.jsonl": [
        DemonstrationItem(ASK, MERCURY),
        DemonstrationItem(user("Name a fruit that is yellow."), "A banana is yellow."),
    ],
    "70-wrapped-with-version.json": [DemonstrationItem(ASK, MERCURY)],
    "73-empty-system-turn.jsonl": [DemonstrationItem(ASK, MERCURY)],
    "74-llmbar.jsonl": [RankingItem(user("Name a planet."), ["Mars.", "Paris."], [[0], [1]])],
    "80-oasst-null-replies.jsonl": [WON, DemonstrationItem(ASK, MERCURY)],
    "82-huge-number.jsonl": [DemonstrationItem(ASK, MERCURY)],
    "84-one-broken-line.jsonl": [DemonstrationItem(user("a?"), "b"), DemonstrationItem(user("c?"), "d")],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_each_case_is_read_as_what_it_is(name: Any) -> None:
    assert read_file(CASES / name).items == RIGHT[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("06-openai-weight-0-last.jsonl", "its weight is 0"),
        ("51-tool-turns.jsonl", "turn 3: tool"),
        ("33-csv-empty-answer.csv", "the reply is empty"),
        ("84-one-broken-line.jsonl", "not valid JSON"),
    ],
)
def test_what_is_left_out_says_why(name: Any, reason: Any) -> None:
    assert [text for text in read_file(CASES / name).report.left_out if text.startswith(reason)]


def test_two_hundred_rows_around_twenty_bad_ones_are_read() -> None:
    found = read_file(CASES / "83-skip-bad-stops.jsonl")
    assert found.report.found == {"demonstrations": 200}
    assert found.report.error_count == 20


def test_a_zstd_file_is_read() -> None:
    assert DemonstrationItem(ASK, MERCURY) in read_file(CASES / "71-zstd.jsonl.zst").items


def test_a_table_without_names_says_so() -> None:
    assert "the first line does not name columns" in read_file(CASES / "69-headerless.tsv").error
