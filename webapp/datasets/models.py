"""Collected text, and snapshots: the rows that runs learn from, frozen."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Project, User


class Corpus(models.Model):
    """Collected text to pretrain on, as it came."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="corpora")
    name = models.CharField(max_length=100)
    licence = models.CharField(max_length=200, blank=True)
    origin = models.CharField(max_length=300, blank=True)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="corpus_name")]

    def __str__(self) -> str:
        return self.name


class Document(models.Model):
    corpus = models.ForeignKey(Corpus, models.CASCADE, related_name="documents")
    text = models.TextField()
    format = models.CharField(max_length=4, choices=[("text", "Text"), ("html", "HTML")], default="text")
    sha256 = models.CharField(max_length=64)
    source_ref = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)
        constraints = [models.UniqueConstraint(fields=["corpus", "sha256"], name="one_document")]


class Snapshot(models.Model):
    """Exactly the rows that runs may see, frozen: its items name them, its file holds them as they were."""

    class Kind(models.TextChoices):
        DOCUMENTS = "documents", "Text"
        DEMONSTRATIONS = "demonstrations", "Demonstrations"
        RANKINGS = "rankings", "Rankings"
        JUDGMENTS = "judgments", "Judgments"
        PROMPTS = "prompts", "Prompts"

    project = models.ForeignKey(Project, models.CASCADE, related_name="snapshots")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=100)
    filters = models.JSONField(default=dict, blank=True, help_text="how the rows were chosen")
    content_hash = models.CharField(max_length=64, help_text="sha256 of its files")
    files = models.JSONField(default=dict, blank=True, help_text="data file (train, heldout) → fsspec address")
    counts = models.JSONField(default=dict, blank=True)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    redacted_at = models.DateTimeField(
        null=True, blank=True, help_text="when erased rows were last removed from its files"
    )

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name


class SnapshotItem(models.Model):
    """One row of a snapshot; what table it is in follows from the snapshot's kind."""

    snapshot = models.ForeignKey(Snapshot, models.CASCADE, related_name="items")
    row = models.BigIntegerField(help_text="id of the document, demonstration, ranking, judgment or prompt")
    heldout = models.BooleanField(default=False)
    erased_at = models.DateTimeField(null=True, blank=True, help_text="when its author had the row's text removed")

    class Meta:
        indexes = [
            models.Index(fields=["row", "snapshot"], name="snapshot_items_by_row"),
            models.Index(fields=["snapshot"], condition=models.Q(erased_at__isnull=False), name="erased_items"),
        ]
        constraints = [models.UniqueConstraint(fields=["snapshot", "row"], name="one_snapshot_item")]
