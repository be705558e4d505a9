"""What a model's authors say of it in the files beside its weights: its card, and how to sample from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

MAX_CARD: Final = 20_000  # characters of a card that are read
MAX_VALUES: Final = 30
MAX_LENGTH: Final = 100
FRONT: Final = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---", re.DOTALL)
KEY: Final = re.compile(r"([A-Za-z_]+):\s*(.*)")
LIMITS: Final = {"temperature": (0.0, 2.0), "top_p": (0.01, 1.0), "top_k": (1, 10_000), "repetition_penalty": (0.1, 10)}


def card_values(card: str) -> dict[str, list[str]]:
    """The texts of a card's front matter by key: `key: value`, `key: [a, b]`, or a list below `key:`. What is nested
    deeper is passed over."""
    front = FRONT.match(card[:MAX_CARD])
    values: dict[str, list[str]] = {}
    key = ""
    for line in front[1].splitlines() if front else []:
        if found := KEY.fullmatch(line.rstrip()):
            key, text = found[1], found[2].strip()
            values[key] = [part for item in text.strip("[]").split(",") if (part := plain(item))] if text else []
        elif key and re.match(r"\s*- ", line) and ":" not in line:
            values[key].append(plain(line.strip()[2:]))
        elif not line.startswith((" ", "-")):
            key = ""
    return {name: [text for text in texts if text][:MAX_VALUES] for name, texts in values.items()}


def plain(text: str) -> str:
    return "".join(letter for letter in text.strip().strip("\"'") if letter.isprintable())[:MAX_LENGTH]


def sampling_of(generation: Mapping[str, Any]) -> dict[str, float]:
    """How the authors sample: those of generation_config.json's values that lie within their limits."""
    found = {}
    for name, (low, high) in LIMITS.items():
        value = generation.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            found[name] = float(value)
    return found
