"""Bytes as text. UTF-8 is expected; UTF-16 and UTF-32 are known by their byte order mark; Windows-1252 is guessed, and
said, where a file is no UTF-8 and reads as western text."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from charset_normalizer import from_bytes

from webapp.data.locations import MAX_RECORD, BadRow, Location, readable_size
from webapp.errors import BadInput

WESTERN: Final = "cp1252"
WESTERN_NAME: Final = "Windows-1252"
CANDIDATES: Final = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "koi8_r",
    "shift_jis",
    "gb18030",
    "big5",
    "euc_kr",
    "euc_jp",
]
MARKS: Final = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
NOT_UTF8: Final = "not UTF-8 text"
TOO_LONG: Final = f"longer than {readable_size(MAX_RECORD)}"
SAMPLE: Final = 64 * 1024
CHUNK: Final = 256 * 1024
WESTERN_LIKE: Final = frozenset({"cp1252", "cp1250", "latin_1", "iso8859_15"})  # they share most of their letters
BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]")
WORD: Final = re.compile(r"[^\W\d_]+")
MAX_SHARE: Final = 0.67  # of the letters of words that are not all ASCII
ENOUGH: Final = 40  # bytes above ASCII that make a guess of the encoding worth asking for
ONE_LETTER_WORDS: Final = "àÀáÁâÂåÅäÄæÆèÈéÉêÊíÍîÎóÓôÔöÖøØúÚüÜ"
WORDLIKE: Final = "€‚ƒ„…‘’“”•–—™š›œžŸ ¡¢£¥§©ª«°±²³´µ·¹º»¼½¾¿×÷"

OnNote = Callable[[str, Location], None]


class Transcoded(io.RawIOBase):
    """A stream in another encoding, as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str, title: str, name: str) -> None:
        self.stream, self.title, self.name = stream, title, name
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        ended = False
        while not self.ready and not ended:
            data = self.stream.read(CHUNK)
            ended = not data
            try:
                self.ready = self.decoder.decode(data, ended).encode()
            except UnicodeError as error:
                raise BadInput(
                    f"{self.name}: not {self.title} text, as its first bytes say. Save it as UTF-8."
                ) from error
        count = min(len(buffer), len(self.ready))
        buffer[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


def as_utf8(stream: io.BufferedReader, name: str, on_note: OnNote) -> io.BufferedReader:
    """The stream as UTF-8 without a byte order mark, if its first bytes name an encoding; as it is, if not."""
    start = stream.peek(4)[:4]
    for mark, encoding, title in MARKS:
        if start.startswith(mark):
            on_note(f"read as {title}, as its byte order mark says", Location(name, 1))
            return io.BufferedReader(Transcoded(stream, encoding, title, name), CHUNK)
    head = stream.peek(16)[:16]
    for zeros, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):  # every other byte of ASCII in UTF-16 is 0
        if len(head) >= 4 and not any(head[zeros::2]) and all(head[1 - zeros :: 2]):
            on_note("read as UTF-16, for every other byte is 0", Location(name, 1))
            return io.BufferedReader(Transcoded(stream, encoding, "UTF-16", name), CHUNK)
    if start.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    return stream


class Decoder:
    """Decodes a file piece by piece. It takes the file for Windows-1252 from the first piece on that is no UTF-8, if
    nothing before it was more than ASCII and the piece reads as western text."""

    def __init__(self, name: str, on_note: OnNote) -> None:
        self.name, self.on_note = name, on_note
        self.encoding = "utf-8"
        self.is_ascii = True

    def decode(self, raw: bytes, line: int, ahead: bytes = b"") -> str:
        """The piece as text; `ahead` is what is known of what follows. Raises UnicodeDecodeError for bytes that are no
        text."""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            if self.encoding == WESTERN:
                return raw.decode(WESTERN)
            if not self.is_ascii or has_utf8(ahead) or not is_western(raw):
                raise
            self.encoding = WESTERN
            self.on_note(f"read as {WESTERN_NAME}, for it is no UTF-8; look at its letters", Location(self.name, line))
            return raw.decode(WESTERN)
        self.is_ascii = self.is_ascii and text.isascii()
        return text


def is_western(raw: bytes) -> bool:
    """Do the bytes read as Windows-1252: words with some letters beyond ASCII in them, and the usual signs? A stray
    byte does not, nor does Cyrillic, whose words have no other letters."""
    sample = around(raw)
    try:
        text = sample.decode(WESTERN)
    except UnicodeDecodeError:
        return False
    if has_utf8(raw) or not all(fits(text, match.start()) for match in BEYOND_ASCII.finditer(text)):
        return False
    words = [word for word in WORD.findall(text) if not word.isascii()]
    beyond = sum(not letter.isascii() for word in words for letter in word)
    if beyond > MAX_SHARE * sum(map(len, words)) and any(len(word) > 1 for word in words):
        return False
    if not words and not any(text[max(0, f.start() - 1)].isalnum() for f in BEYOND_ASCII.finditer(text)):
        return False
    if len(sample) - len(sample.decode("ascii", "ignore")) < ENOUGH:
        return True
    guess = from_bytes(sample, cp_isolation=CANDIDATES).best()
    return guess is not None and guess.encoding in WESTERN_LIKE


def fits(text: str, at: int) -> bool:
    """Does a character beyond ASCII stand where such characters do?"""
    before, sign, after = text[at - 1 : at] if at else "", text[at], text[at + 1 : at + 2]
    if not sign.isalpha():
        return sign in WORDLIKE
    if not before.isalpha() and not after.isalpha():
        return sign in ONE_LETTER_WORDS
    return sign != "ÿ" and not (sign.isupper() and before.islower())


def around(raw: bytes) -> bytes:
    """The part of the bytes that is to be looked at, from the first one above ASCII on."""
    match = re.search(rb"[\x80-\xff]", raw)
    start = max(0, (match.start() if match else 0) - 200)
    return raw[start : start + SAMPLE]


def has_utf8(raw: bytes) -> bool:
    """Is there a whole UTF-8 character of several bytes among them? Then the file is UTF-8 with a fault in it."""
    return (
        re.search(rb"[\xc3-\xdf][\x80-\xbf](?![\x80-\xbf])|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}", raw)
        is not None
    )


def lines(stream: io.BufferedReader, name: str, on_note: OnNote) -> Iterator[tuple[int, str | BadRow]]:
    """The lines of a text file with their ends, numbered from 1; those that are too long or no text as bad rows."""
    decoder = Decoder(name, on_note)
    number = 0
    while raw := stream.readline(MAX_RECORD + 1):
        number += 1
        location = Location(name, number)
        if len(raw) > MAX_RECORD:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_RECORD)
            yield (
                number,
                BadRow(f"a line {TOO_LONG}", f"{location}: the line is {TOO_LONG}. Break it up, or leave it out."),
            )
            continue
        try:
            yield number, decoder.decode(raw, number, stream.peek(1) if not raw.isascii() else b"")
        except UnicodeDecodeError as error:
            sentence = f"{location}: not UTF-8 text (byte {error.start}). Save the file as UTF-8."
            yield number, BadRow(NOT_UTF8, sentence)


def chunks(stream: io.BufferedReader, name: str, on_note: OnNote) -> Iterator[str]:
    """A text in pieces that end with a line where they can. Raises BadInput, naming the line, for bytes that are no
    text."""
    decoder = Decoder(name, on_note)
    number, undecoded = 1, b""
    while True:
        data = stream.read(CHUNK)
        whole, ended = undecoded + data, not data
        cut = len(whole) if ended else whole_characters(whole)
        block, undecoded = whole[:cut], whole[cut:]
        if block:
            try:
                text = decoder.decode(block, number)
            except UnicodeDecodeError as error:
                line = number + block[: error.start].count(b"\n")
                raise BadInput(f"{name}:{line}: not UTF-8 text. Save the file as UTF-8.") from error
            number += text.count("\n")
            yield text
        if ended:
            return


def whole_characters(raw: bytes) -> int:
    """Where to cut the bytes so that no UTF-8 character of them is cut: after the last line, or before a lead byte."""
    cut = raw.rfind(b"\n") + 1
    if cut:
        return cut
    for back in range(1, min(4, len(raw)) + 1):
        if raw[-back] >= 0xC0:
            return len(raw) - back
        if raw[-back] < 0x80:
            break
    return len(raw)
