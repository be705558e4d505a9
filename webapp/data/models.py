"""Imports: a file that someone handed in, what became of it."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Project, User


class Import(models.Model):
    """A file uploaded on the site, read by a worker. What it brought in is in the tables of its kind."""

    class State(models.TextChoices):
        WAITING = "waiting", "Being read"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    project = models.ForeignKey(Project, models.CASCADE, related_name="imports")
    by = models.ForeignKey(User, models.PROTECT, related_name="+")
    file = models.FileField(upload_to="imports/%Y/%m/", max_length=300)
    name = models.CharField(max_length=200, help_text="the file's own name")
    kind = models.CharField(max_length=16, blank=True, help_text="take only this kind; empty takes what is there")
    corpus = models.CharField(max_length=100, blank=True)
    licence = models.CharField(max_length=200, blank=True)
    open_tasks = models.BooleanField(default=False, help_text="ask people to reply to the prompts")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    report = models.JSONField(default=dict)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name
