"""Reads of corpora and snapshots."""

from __future__ import annotations

from django.db.models import Count, QuerySet

from webapp.accounts.models import Project
from webapp.datasets.models import Corpus, Snapshot


def snapshots_of(project: Project, *, kind: str = "") -> QuerySet[Snapshot]:
    """The project's snapshots, newest first, each with how many runs use it (`uses`)."""
    snapshots = Snapshot.objects.filter(project=project).select_related("created_by").annotate(uses=Count("runs"))
    snapshots = snapshots.order_by("-id")
    return snapshots.filter(kind=kind) if kind else snapshots


def corpora_of(project: Project) -> QuerySet[Corpus]:
    """The project's corpora by name, each with how many documents it has (`size`)."""
    return Corpus.objects.filter(project=project).annotate(size=Count("documents")).order_by("name")
