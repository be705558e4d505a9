"""Writes of runs."""

from webapp.runs.services.claims import ClaimLost, claim_run, fail_run, hand_back, reconcile_runs
from webapp.runs.services.events import read_events
from webapp.runs.services.launching import launch_run, request_stop, resume_run, retry
from webapp.runs.services.outcomes import import_samples, succeed

__all__ = [
    "ClaimLost",
    "claim_run",
    "fail_run",
    "hand_back",
    "import_samples",
    "launch_run",
    "read_events",
    "reconcile_runs",
    "request_stop",
    "resume_run",
    "retry",
    "succeed",
]
