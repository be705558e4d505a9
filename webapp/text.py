"""People's and models' text as safe HTML, and as text that PostgreSQL can hold."""

from __future__ import annotations

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

MARKDOWN = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}).enable(
    ["table", "strikethrough"]
)
TAGS = {
    "p", "br", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


def render_markdown(text: str) -> SafeString:
    """Markdown to HTML without scripts, images, styles or raw HTML."""
    html = MARKDOWN.render(text)
    cleaned = nh3.clean(html, tags=TAGS, attributes={"a": {"href", "title"}}, link_rel="noopener noreferrer nofollow")
    return mark_safe(cleaned)  # noqa: S308 (nh3 cleaned it)


def clean_text(text: str) -> str:
    """Text without NUL bytes, which PostgreSQL cannot hold, and without lone surrogates, which UTF-8 cannot."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def counted(number: int, noun: str) -> str:
    """1 prompt, 1,200 prompts."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
