"""The names of a run folder's files, exit statuses, and the errors that carry a sentence for a person."""

from __future__ import annotations

from typing import Final

ABOUT: Final = "about.json"
CONFIG: Final = "config.json"
DATA: Final = "data"
EVENTS: Final = "events.jsonl"
LOG: Final = "log.txt"
MODEL: Final = "model"
OUTPUT: Final = "output"
RESULT: Final = "result.json"
LOCK: Final = "lock"

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_INVALID: Final = 2
EXIT_STOPPED: Final = 143


class TrainingError(Exception):
    """A failure a person can act on: `message` is the whole sentence, `code` is for programs."""

    exit_status = EXIT_FAILED

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class InputError(TrainingError):
    """The config, the data or a model that the config names does not fit; nothing was started."""

    exit_status = EXIT_INVALID
