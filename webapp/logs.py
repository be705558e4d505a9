"""Lines of the log: one record a line that nobody outside can forge, and without the secrets of links."""

from __future__ import annotations

import logging
import re
from typing import Final

CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The parts of addresses that let whoever knows them in: invitations, password resets, confirmations, tokens.
SECRETS: Final = re.compile(
    r"(/invitations/|/accounts/password/reset/key/|/accounts/confirm-email/|/profile/tokens/|[?&]code=)[^/\s\"'?&]+"
)


def one_line(text: str) -> str:
    """The text with line breaks and other control characters as escapes, and secrets of addresses left out."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], SECRETS.sub(r"\1…", text))


class LineFormatter(logging.Formatter):
    """A record on one line. A trace follows indented, so that no line of it can pass for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the library's name)
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 (the library's name)
        return indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 (the library's name)
        return indented(super().formatStack(stack_info))


def indented(trace: str) -> str:
    return "\n".join(f"    {one_line(line)}" for line in trace.splitlines())
