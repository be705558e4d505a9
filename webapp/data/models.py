"""Imports: a file that someone handed in, what became of it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Project, User
from webapp.jobs import Job


def upload_path(_: Import, name: str) -> str:
    """A folder of its own for each file, so that two of one name both keep it."""
    return f"imports/{uuid4().hex}/{Path(name).name}"


class Import(Job):
    """A file uploaded on the site: first checked, then, when somebody has seen what is in it, imported, both by a
    worker. What it brought in is in the tables of its kind."""

    class State(models.TextChoices):
        CHECKING = "checking", "Being checked"
        READY = "ready", "Ready to import"
        WAITING = "waiting", "Being imported"
        DONE = "done", "Imported"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    ACTIVE = (State.CHECKING, State.WAITING)

    project = models.ForeignKey(Project, models.CASCADE, related_name="imports")
    by = models.ForeignKey(User, models.PROTECT, related_name="+")
    file = models.FileField(upload_to=upload_path, max_length=300, blank=True, help_text="empty: deleted after use")
    size = models.PositiveBigIntegerField(default=0, help_text="bytes")
    name = models.CharField(max_length=200, help_text="the file's own name")
    kind = models.CharField(max_length=16, blank=True, help_text="take only this kind; empty takes what is there")
    corpus = models.CharField(max_length=100, blank=True)
    licence = models.CharField(max_length=200, blank=True)
    open_tasks = models.BooleanField(default=False, help_text="ask people to reply to the prompts")
    skip_bad = models.BooleanField(default=False, help_text="leave out rows that cannot be read")
    state = models.CharField(max_length=9, choices=State.choices, default=State.CHECKING)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    report = models.JSONField(default=dict, help_text="what was found, or, once imported, what came in")
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    @property
    def active(self) -> bool:
        """A worker has it, or will."""
        return self.state in self.ACTIVE

    @property
    def blocked(self) -> bool:
        """It has rows that cannot be read, and nobody has said to skip them."""
        return bool(self.report.get("errors")) and not self.skip_bad

    @property
    def file_name(self) -> str:
        """The name in front of the line in the rows' source."""
        return str(self.report.get("file") or Path(self.file.name or self.name).name)
