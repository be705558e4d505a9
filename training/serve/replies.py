"""What the server answers: chat and text completions, whole or as a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from training.engine import Completion
from training.serve.pool import Served


@dataclass
class ReplyShape:
    """How the answer to one request is written. `chat`: chat completion, else text completion. `folded`: the chat
    template takes no system turn, so its text was put in front of a user turn; the answer says so once."""

    chat: bool
    model: str
    served: Served
    logprobs: bool
    folded: bool = False
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def parameter(self) -> str:
        """The parameter that holds what is to be answered."""
        return "messages" if self.chat else "prompt"

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)

    def whole(self, prompts: Sequence[int], completions: Sequence[Completion]) -> dict[str, Any]:
        """The answer to prompts of so many tokens; the completions of each prompt stand together."""
        choices = [
            self._choice(i, reply.text, reply.tokens, reply.logprobs, reply.top, reply.finish)
            for i, reply in enumerate(completions)
        ]
        counts = usage(prompts, [len(reply.tokens) for reply in completions])
        return self._frame("", choices) | {"usage": counts} | self._notes()

    def opening(self, index: int) -> dict[str, Any]:
        return self._frame(
            ".chunk",
            [{"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}],
        ) | (self._notes() if index == 0 else {})

    def _notes(self) -> dict[str, Any]:
        return {"system_folded": True} if self.folded else {}

    def chunk(
        self,
        index: int,
        text: str,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        top: Sequence[dict[int, float]],
        finish: str | None = None,
    ) -> dict[str, Any]:
        return self._frame(".chunk", [self._choice(index, text, tokens, logprobs, top, finish, is_delta=True)])

    def closing(self, prompts: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
        """The chunk with the usage, which has no choices."""
        return self._frame(".chunk", []) | {"usage": usage(prompts, tokens)}

    def _frame(self, suffix: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion" + suffix if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        top: Sequence[dict[int, float]],
        finish: str | None,
        *,
        is_delta: bool = False,
    ) -> dict[str, Any]:
        logprob_fields = self._logprobs(tokens, logprobs, top) if self.logprobs and tokens else None
        choice = {"index": index, "logprobs": logprob_fields, "finish_reason": finish}
        if not self.chat:
            return choice | {"text": text}
        if is_delta:
            return choice | {"delta": {"content": text} if text or not finish else {}}
        return choice | {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _logprobs(
        self, tokens: Sequence[int], logprobs: Sequence[float], top: Sequence[dict[int, float]]
    ) -> dict[str, Any]:
        names = [self._token(token) for token in tokens]
        if not self.chat:
            return {
                "tokens": names,
                "token_logprobs": list(logprobs),
                "top_logprobs": [{self._token(t): value for t, value in best.items()} for best in top] or None,
            }
        best = top or [{} for _ in tokens]
        return {
            "content": [
                self._named(name, logprob)
                | {"top_logprobs": [self._named(self._token(t), value) for t, value in others.items()]}
                for name, logprob, others in zip(names, logprobs, best, strict=True)
            ],
            "refusal": None,
        }

    def _token(self, token: int) -> str:
        return self.served.decode([token]) or str(self.served.tokenizer.convert_ids_to_tokens(token))

    @staticmethod
    def _named(name: str, logprob: float) -> dict[str, Any]:
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


def usage(prompts: Sequence[int], completions: Sequence[int]) -> dict[str, int]:
    read, written = sum(prompts), sum(completions)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def sse_event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"
