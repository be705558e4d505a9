"""Writes of corpora and snapshots."""

from webapp.datasets.services.corpora import Added, NewDocument, add_documents, create_corpus
from webapp.datasets.services.snapshots import count_rows, create_snapshot

__all__ = ["Added", "NewDocument", "add_documents", "count_rows", "create_corpus", "create_snapshot"]
