"""The sample project's way round the loop, as it goes."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Project, User
from webapp.jobs import Job


class Demo(Job):
    """One sample project being taken round the loop. What is done already is read from the project itself; this row
    holds where it is, how long each step took and, in the end, the report."""

    class State(models.TextChoices):
        RUNNING = "running", "Under way"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    project = models.OneToOneField(Project, models.CASCADE, related_name="demo")
    seed = models.PositiveIntegerField(default=0)
    size = models.CharField(max_length=10, default="full", help_text="a plan's name")
    state = models.CharField(max_length=8, choices=State.choices, default=State.RUNNING)
    step = models.PositiveSmallIntegerField(default=0, help_text="index of the step under way")
    share = models.FloatField(default=0.0, help_text="how much of this step is done, 0 to 1")
    note = models.CharField(max_length=200, blank=True, help_text="what is going on, for a person")
    error = models.TextField(blank=True)
    began = models.JSONField(default=dict, help_text="step → when it began, seconds since the epoch")
    ended = models.JSONField(default=dict, help_text="step → when it ended")
    report = models.JSONField(default=dict)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.project} (seed {self.seed})"
