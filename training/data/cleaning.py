"""Makes one document fit to learn from. Pure functions of the text."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

import ftfy
import phonenumbers
import trafilatura
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from stdnum import luhn

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
DATE: Final = re.compile(r"\d{4}-\d\d-\d\d\b")
NORTH_AMERICA: Final = 1

# Where a number without a country code may be from: plans of many lengths, and of the languages we meet most.
REGIONS: Final = ("US", "GB", "DE", "FR", "ES")
NO_LANGUAGE: Final = {"und", "zxx"}  # ISO 639's codes for undetermined, and for nothing that is language
MIN_CONFIDENCE: Final = 0.5  # below this a text has no language


def text_of_html(html: str) -> str:
    """The main text of a page, without menus and other furniture; empty if there is none."""
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
    if 12 <= len(digits) <= 19 and luhn.is_valid(digits):
        return "card"
    groups = re.findall(r"\d+", number)
    if len(groups) == 1 and number[0] not in "+(":  # an identifier far more often than a phone number
        return ""
    if number.count("(") != number.count(")"):  # 3 (1803-1805
        return ""
    if THOUSANDS.fullmatch(number) or DATE.match(number) or all("1000" <= group <= "2100" for group in groups):
        return ""
    regions = (None,) if number[0] == "+" else REGIONS
    return "phone" if any(is_phone(number, region) for region in regions) else ""


def is_phone(number: str, region: str | None) -> bool:
    """Whether the number fits the numbering plan of the region, or of the country that its code names."""
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    # what is written as a phone number need not be assigned to anyone
    written_as_phone = number[0] in "+(" or parsed.country_code == NORTH_AMERICA
    return phonenumbers.is_valid_number(parsed) or (written_as_phone and phonenumbers.is_possible_number(parsed))


@functools.cache
def language_identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE)


def languages() -> list[str]:
    """The codes (ISO 639-1) of the languages that can be recognized."""
    return sorted(set(language_identifier().labels) - NO_LANGUAGE)


def language(text: str) -> str:
    """The code (ISO 639-1) of the text's language; empty if none is likely."""
    code, _ = language_identifier().classify(text)
    return "" if code in NO_LANGUAGE else code


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
