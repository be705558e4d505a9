"""events.jsonl: one line an event, one write a line, so that a reader who follows the file never sees half of one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from training.contract import (
    EVENT,
    TRACKERS,
    Checkpoint,
    Done,
    Event,
    Failed,
    MetricEvent,
    ProgressEvent,
    Tracked,
    Warn,
)


class EventLog:
    """An append-only file of events. A last line torn by SIGKILL or a full disk is cut off at the next opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._cut_torn_line()

    def append(self, event: Event) -> None:
        """Write one line. Raises OSError if the disk does not take all of it, and leaves no half line."""
        line = event.model_dump_json().encode() + b"\n"
        size = os.fstat(self._file).st_size
        if os.write(self._file, line) < len(line):
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def ends_with(self, kind: str) -> bool:
        """Whether the last event is of this type."""
        lines = self.path.read_bytes().rsplit(b"\n", 2)
        return len(lines) > 1 and EVENT.validate_json(lines[-2]).type == kind

    def close(self) -> None:
        os.close(self._file)

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        end = size
        while end > 0:
            start = max(0, end - 65536)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)


def sentence(event: Event) -> str:
    """The event as a line on a person's terminal; empty for those that would only be noise there."""
    match event:
        case ProgressEvent():
            time_left = "" if event.eta is None else f", {event.eta:.0f} s left"
            return f"{event.phase or 'step'} {event.step}/{event.total}{time_left}"
        case MetricEvent():
            values = "  ".join(f"{name} {value:.4g}" for name, value in event.values.items())
            return f"step {event.step}  {values}"
        case Warn():
            return f"warning: {event.message}"
        case Tracked():
            return f"{TRACKERS.get(event.tracker, event.tracker)}: {event.url or event.note}"
        case Checkpoint():
            return f"step {event.step}  wrote {event.folder}"
        case Done():
            return "done  " + "  ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
        case Failed():
            return ""
    return f"> {event.prompt[-200:]!r}\n< {event.reply[:400]!r}"
