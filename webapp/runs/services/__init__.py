"""Writes of corpora, snapshots and runs."""

from webapp.runs.services.claims import ClaimLost, claim_run, fail_run, hand_back, reconcile_runs
from webapp.runs.services.corpora import Added, NewDocument, add_documents, create_corpus
from webapp.runs.services.events import read_events
from webapp.runs.services.launching import launch_run, request_stop, resume_run, retry
from webapp.runs.services.outcomes import import_samples, succeed
from webapp.runs.services.snapshots import create_snapshot

__all__ = [
    "Added",
    "ClaimLost",
    "NewDocument",
    "add_documents",
    "claim_run",
    "create_corpus",
    "create_snapshot",
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
