"""Writes of runs."""

from webapp.runs.services.claims import RUNS, claim_run, fail_run, reconcile_runs, requeue_run
from webapp.runs.services.events import read_events
from webapp.runs.services.launching import launch_run, request_stop, resume_run, retry
from webapp.runs.services.outcomes import import_samples, succeed

__all__ = [
    "RUNS",
    "claim_run",
    "fail_run",
    "import_samples",
    "launch_run",
    "read_events",
    "reconcile_runs",
    "request_stop",
    "requeue_run",
    "resume_run",
    "retry",
    "succeed",
]
