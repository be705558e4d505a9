"""People's and models' text as safe HTML, rendered or exactly as it is, and as text that PostgreSQL can hold."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Final

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore

BLOCKS: Final = frozenset({"p", "ul", "ol", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "table"})
TAGS: Final = BLOCKS | {"br", "strong", "em", "s", "code", "pre", "a", "hr", "li", "thead", "tbody", "tr", "th", "td"}
TABLE: Final = '<table dir="auto">'
ATTRIBUTES: Final = {"a": {"href", "title"}} | {tag: {"dir"} for tag in BLOCKS}
SCROLLER: Final = '<div class="table-scroller" role="region" aria-label="Table" tabindex="0">'
# What the eye cannot tell from something else: runs of spaces, spaces at the ends of lines, tabs, other white space.
UNSEEN: Final = re.compile(r"(?m)^ +| +$| {2,}|\t|[^\S \n\t]")
ALLOWED_UNSEEN: Final = "\u200d"  # it joins emoji
BLANK_START: Final = re.compile(r"\A(?:[^\S\n]*\n)+")
NAMES: Final = {" ": "space", "\n": "line break", "\t": "tab"}


def set_directions(state: StateCore) -> None:
    """Let each outer block run in the direction of its own first letter, with its list markers and columns. Blocks
    inside one have none of their own: text that has its own direction does not count for what is around it."""
    for token in state.tokens:
        if token.nesting == 1 and token.level == 0 and token.tag in BLOCKS:
            token.attrSet("dir", "auto")


MARKDOWN = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}).enable(
    ["table", "strikethrough"]
)
MARKDOWN.core.ruler.push("set_directions", set_directions)


def render_markdown(text: str) -> SafeString:
    """Markdown to HTML without scripts, images, styles or raw HTML. A wide table scrolls by itself."""
    html = nh3.clean(
        MARKDOWN.render(text), tags=set(TAGS), attributes=ATTRIBUTES, link_rel="noopener noreferrer nofollow"
    )
    html = html.replace(TABLE, SCROLLER + TABLE).replace("</table>", "</table></div>")
    return mark_safe(html)  # noqa: S308 (nh3 cleaned it, and text cannot hold a tag: it is escaped)


def render_plain(text: str) -> SafeString:
    """The text exactly as it is, for a `pre`: what cannot be seen is marked, and copies as what it is."""
    body = text.removesuffix("\n")
    marked = "".join(
        _mark(run) if unseen else _mark_controls(run) for run, unseen in _parts(body)
    )  # fmt: skip
    if body != text:
        marked += '<span class="unseen" data-mark="↵"></span>'
    return mark_safe(marked)  # noqa: S308 (each part is escaped)


def _parts(text: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is white space to mark."""
    runs: list[tuple[str, bool]] = []
    end = 0
    for match in UNSEEN.finditer(text):
        runs += [(text[end : match.start()], False), (match[0], True)]
        end = match.end()
    return [*runs, (text[end:], False)]


def _mark(white: str) -> str:
    mark = "".join("·" if char == " " else "→" if char == "\t" else _code_point(char) for char in white)
    return f'<span class="unseen" data-mark="{mark}">{escape(white)}</span>'


def _mark_controls(text: str) -> str:
    """Escaped, with characters that show nothing (zero-width, direction overrides, controls) named by code point."""
    if text.isprintable():
        return str(escape(text))
    return "".join(
        f'<span class="unseen named" data-mark="{_code_point(char)}">{escape(char)}</span>'
        if unicodedata.category(char) in {"Cf", "Cc", "Co", "Cn"} and char not in ("\n", ALLOWED_UNSEEN)
        else escape(char)
        for char in text
    )


def _code_point(char: str) -> str:
    return f"[U+{ord(char):04X}]"


def describe_blank(text: str) -> str:
    """What a text is that shows nothing when it is rendered; empty where something is to be seen."""
    if not text:
        return "Nothing: it is empty."
    if not text.strip():
        counts = Counter(NAMES.get(char, "other white space") for char in text)
        kinds = [f"{n} {name}{'s' if n > 1 and name in NAMES.values() else ''}" for name, n in counts.items()]
        return f"Only white space: {', '.join(kinds)}."
    rendered = nh3.clean(MARKDOWN.render(text), tags={"hr"})
    visible = [char for char in rendered if not char.isspace() and unicodedata.category(char) not in {"Cf", "Cc"}]
    return "" if visible else "Nothing to be seen when it is rendered; the plain view shows what it holds."


def trim_reply(text: str) -> str:
    """A reply as a person meant it: without blank lines before it or white space after it. Indentation stays."""
    return BLANK_START.sub("", clean_text(text).replace("\r\n", "\n")).rstrip()


def clean_text(text: str) -> str:
    """Text without NUL bytes, which PostgreSQL cannot hold, and without lone surrogates, which UTF-8 cannot."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def counted(number: int, noun: str) -> str:
    """1 prompt, 1,200 prompts."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
