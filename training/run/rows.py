"""Reads data/*.jsonl, and says file, line and field of whatever is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from training.contract import InputError, Row, describe

R = TypeVar("R", bound=Row)


def read_rows(path: Path, kind: type[R]) -> tuple[list[R], list[int]]:
    """The rows of a JSON Lines file, and the numbers of the lines that had NUL characters in them.

    Raises InputError that names every wrong line up to five, so that a person mends them in one go.
    """
    rows: list[R] = []
    wrong: list[str] = []
    nul_lines: list[int] = []
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if b"\\u0000" in line or b"\0" in line:
                line = line_without_nul(line)
                nul_lines.append(number)
            if not line.strip():
                continue
            try:
                rows.append(kind.model_validate_json(line))
            except ValidationError as error:
                wrong.append(f"{path}:{number}: {describe(error.errors(), kind)}")
                if len(wrong) == 5:
                    break
    if wrong:
        raise InputError("\n".join(wrong), code="data_invalid")
    return rows, nul_lines


def line_without_nul(line: bytes) -> bytes:
    """The JSON line without NUL characters, raw or escaped; `\\\\u0000`, an escaped backslash and text, is kept."""
    sections = line.replace(b"\0", b"").split(b"\\\\")
    return b"\\\\".join(section.replace(b"\\u0000", b"") for section in sections)
