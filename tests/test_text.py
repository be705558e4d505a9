"""Text of people and models: rendered safely, and shown exactly as it is."""

from __future__ import annotations

import re

import pytest

from webapp.text import describe_blank, render_markdown, render_plain, trim_reply

TAGS = re.compile(r"<[^>]*>")


def test_a_table_scrolls_by_itself_and_can_be_reached_by_keyboard() -> None:
    html = render_markdown("| a | b |\n|---|---|\n| 1 | 2 |")
    assert '<div class="table-scroller" role="region" aria-label="Table" tabindex="0"><table dir="auto">' in html
    assert html.count("<div") == html.count("</div>") == 1


def test_a_tag_that_is_text_stays_text() -> None:
    assert "&lt;table&gt;" in render_markdown("<table>")
    assert "<div" not in render_markdown("<table></table>")


def test_each_block_runs_in_the_direction_of_its_own_text() -> None:
    html = render_markdown("שלום\n\n1. one\n\n> two")
    assert re.findall(r"<(\w+) dir=\"auto\">", html) == ["p", "ol", "blockquote"]


@pytest.mark.parametrize(
    "text",
    [
        "def double(x):\n    return x + x\n\n# done",
        "Name    Age\nAnn     12",
        "use __init__ and a*b*c",
        "\ta\u200bb",
        "",
    ],
)
def test_the_plain_view_holds_every_character(text: str) -> None:
    shown = TAGS.sub("", render_plain(text)).replace("&lt;", "<").replace("&#x27;", "'")
    assert shown == text


def test_the_plain_view_marks_what_cannot_be_seen() -> None:
    html = render_plain("  a  b \tc\n")
    assert re.findall(r'data-mark="([^"]*)"', html) == ["··", "··", "→", "↵"]


def test_the_plain_view_names_characters_that_show_nothing() -> None:
    assert 'data-mark="[U+202E]"' in render_plain("a\u202eb")
    assert "data-mark" not in render_plain("👩\u200d👧")


def test_the_plain_view_escapes() -> None:
    assert "<script" not in render_plain("<script>  </script>")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "Nothing: it is empty."),
        ("  \n", "Only white space: 2 spaces, 1 line break."),
        ("\u00a0", "Only white space: 1 other white space."),
        ("[a]: https://example.org", "Nothing to be seen"),
        ("\u200b", "Nothing to be seen"),
        ("---", ""),
        ("A kite.", ""),
    ],
)
def test_a_text_that_shows_nothing_is_described(text: str, note: str) -> None:
    assert describe_blank(text).startswith(note)
    assert bool(describe_blank(text)) == bool(note)


def test_a_trimmed_reply_keeps_its_indentation() -> None:
    assert trim_reply("\r\n \n    return x\r\n  y \n\n") == "    return x\n  y"
    assert trim_reply(" \n\t") == ""
