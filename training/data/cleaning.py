"""Makes one document fit to learn from. Pure functions of the text."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import ftfy
import trafilatura

# Controls, but for tab and line feed; zero-width spaces, soft hyphens, direction marks, byte-order marks, annotation
# marks, noncharacters. Joiners stay: emoji and several scripts need them.
INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
LINE_ENDS: Final = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")
SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
TRAILING: Final = re.compile(r"[ \t]+(?=\n|\Z)")
GAPS: Final = re.compile(r"\n{3,}")

EMAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+")
DIGITS: Final = re.compile(r"(?<![\w.+])(?<!\d,)\+?\(?\d(?:[ \u2011().\-/]{0,3}\d){7,22}(?:x\d{2,5})?(?!\w)")
THOUSANDS: Final = re.compile(r"\d{1,3}([., ])\d{3}(?:\1\d{3})*")

# The commonest words of each language, but for those that another of them shares.
COMMON_WORDS: Final = """
    en: the of and to that was he for it with as his on be at by had not are but from they which you
    de: der und das ist nicht ein eine mit dem den auch auf sich für von zu wird als sind im wie ich sie
    fr: le les des et est une dans qui pour pas au sur ce avec il sont par vous nous elle plus du cette
    es: el los las del y una por con para su al lo como más pero sus fue este ha porque muy sin sobre
"""
COMMON: Final[dict[str, frozenset[str]]] = {
    line.split(":")[0].strip(): frozenset(line.split()[1:]) for line in COMMON_WORDS.strip().splitlines()
}
LEAST_COMMON_SHARE: Final = 0.06


def text_of_html(html: str) -> str:
    """The main text of a page, without menus and other furniture; empty where there is none."""
    return trafilatura.extract(html, include_comments=False, deduplicate=False, output_format="txt") or ""


def clean_text_of(text: str) -> str:
    """Broken encodings mended, NFC, one kind of space and line end, nothing invisible, no runs of empty lines."""
    text = LINE_ENDS.sub("\n", text)
    if not text.isascii():
        # line by line: most lines of most texts are ASCII, to which mending does nothing
        text = "\n".join(line if line.isascii() else ftfy.fix_text(line) for line in text.split("\n"))
        text = unicodedata.normalize("NFC", SPACES.sub(" ", text))
    text = INVISIBLE.sub("", text)
    return GAPS.sub("\n\n", TRAILING.sub("", text)).strip()


def without_personal_data(text: str) -> tuple[str, int]:
    """The text with <email>, <phone> and <card> in the place of such, and how many there were."""
    replaced = 0

    def hide(match: re.Match[str]) -> str:
        nonlocal replaced
        kind = number_kind(match[0])
        replaced += bool(kind)
        return f"<{kind}>" if kind else match[0]

    if "@" in text:
        text, replaced = EMAIL.subn("<email>", text)
    return DIGITS.sub(hide, text), replaced


def number_kind(number: str) -> str:
    """card, phone, or empty for a number that is neither, such as a list of years or 1,000,000,000."""
    digits = re.sub(r"\D", "", number.partition("x")[0])
    if 12 <= len(digits) <= 19 and luhn(digits):
        return "card"
    if not 9 - (number[0] == "(") <= len(digits) <= 15 or THOUSANDS.fullmatch(number):
        return ""
    if number.count("(") != number.count(")"):  # 3 (1803-1805
        return ""
    groups = re.findall(r"\d+", number)
    if all(len(group) == 4 and "1000" <= group <= "2100" for group in groups):
        return ""
    return "phone" if number[0] in "+(" or (len(groups) > 1 and max(map(len, groups)) <= 8) else ""


def luhn(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1, annex B)."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def language(text: str) -> str:
    """The code of the language whose common words make up most of the text; empty where none makes up much of it."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    shares = {code: sum(word in common for word in words) / max(1, len(words)) for code, common in COMMON.items()}
    best = max(shares, key=lambda code: shares[code])
    return best if shares[best] >= LEAST_COMMON_SHARE else ""


def split_text(text: str, max_characters: int) -> list[str]:
    """Cut the text into pieces of at most `max_characters`: at an empty line, a line end or a space in a piece's last
    fifth, or anywhere if it has none."""
    cut: list[str] = []
    while len(text) > max_characters:
        at = next(
            (i for mark in ("\n\n", "\n", " ") if (i := text.rfind(mark, max_characters * 4 // 5, max_characters)) > 0),
            max_characters,
        )
        cut.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [*cut, text] if text else cut
