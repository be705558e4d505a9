"""Tokens to text while they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from typing import Any

REPLACEMENT = "\ufffd"


class Detokenizer:
    """Text of a growing list of tokens. `push` gives what a token adds; bytes of an unfinished character wait for the
    rest.

    Only the tokens since the last whole piece are decoded again, with the piece before them for tokenizers that treat
    the first token differently, so a token costs the same wherever it stands.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._decode = token_decoder(tokenizer)
        self._tokens: list[int] = []
        self._start = 0
        self._told = 0

    def push(self, token: int) -> str:
        self._tokens.append(token)
        before, now = self._texts()
        if now.endswith(REPLACEMENT) or len(now) <= len(before):
            return ""
        self._start, self._told = self._told, len(self._tokens)
        return now[len(before) :]

    def flush(self) -> str:
        """What is left at the end, half characters as U+FFFD."""
        before, now = self._texts()
        self._start = self._told = len(self._tokens)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        return self._decode(self._tokens[self._start : self._told]), self._decode(self._tokens[self._start :])


class StopStrings:
    """Cuts a stream of text before the first of some strings. Text that could be the beginning of one is held back."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that may be shown now; `found` is set when a stop string was met."""
        text = self._held + text
        places = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = max((size for stop in self._stops for size in _overlaps(text, stop)), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


def _overlaps(text: str, stop: str) -> list[int]:
    """Lengths of the beginnings of `stop` that `text` ends with."""
    return [size for size in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:size])]


def token_decoder(tokenizer: Any) -> Any:
    """tokens -> text without special tokens, by the quickest way there is."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return lambda tokens: backend.decode(tokens, skip_special_tokens=True)
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
