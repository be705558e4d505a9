"""The whole answer out of the chunks of a streamed one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Choice:
    """One reply: its text, its log-probabilities where they came, and why it ended."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.logprobs: dict[str, Any] | None = None
        self.finish: str | None = None

    def add(self, delta: Mapping[str, Any]) -> None:
        self.text.append((delta.get("delta") or {}).get("content") or delta.get("text") or "")
        self.finish = delta.get("finish_reason") or self.finish
        for name, values in (delta.get("logprobs") or {}).items():
            self.logprobs = self.logprobs or {}
            if isinstance(values, list):
                self.logprobs[name] = [*(self.logprobs.get(name) or []), *values]
            else:
                self.logprobs.setdefault(name, values)

    def whole(self, index: int, *, chat: bool) -> dict[str, Any]:
        text = "".join(self.text)
        shape = {"message": {"role": "assistant", "content": text, "refusal": None}} if chat else {"text": text}
        return {"index": index, **shape, "logprobs": self.logprobs, "finish_reason": self.finish}


class Collected:
    """Chunks of one answer, in their order. What they say beside choices and usage (id, model, notes) is kept."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._frame: dict[str, Any] = {}
        self._choices: dict[int, Choice] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        for name, value in chunk.items():
            if name != "choices" and value is not None:
                self._frame[name] = value
        for choice in chunk.get("choices") or ():
            self._choices.setdefault(choice["index"], Choice()).add(choice)

    def answer(self) -> dict[str, Any]:
        """A `chat.completion`, or a `text_completion`."""
        kind = "chat.completion" if self._chat else "text_completion"
        choices = [choice.whole(index, chat=self._chat) for index, choice in sorted(self._choices.items())]
        return {**self._frame, "object": kind, "choices": choices}
