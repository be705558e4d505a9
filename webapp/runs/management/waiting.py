"""Commands that launch a run and see it through."""

from __future__ import annotations

import time
from typing import Any, Final

from django.core.management.base import CommandError

from webapp.runs.models import Run
from webapp.runs.services import request_stop

LOOK_EVERY: Final = 1.0  # seconds


def wait_for(run: Run, stderr: Any) -> None:
    """Until the run has ended; Ctrl-C stops it. Shows how far it is, where a person looks."""
    try:
        while run.state in Run.ACTIVE:
            if stderr.isatty():
                far = f" {run.phase} {run.step} of {run.total}" if run.total else ""
                stderr.write(f"\r{run.get_state_display()}{far}  ", ending="")
            pause()
            run.refresh_from_db()
    except KeyboardInterrupt:
        request_stop(run=run, by=run.created_by)
        raise CommandError(f"Asked run {run.number} to stop.") from None


def pause() -> None:
    time.sleep(LOOK_EVERY)
