"""Training runs and what they report."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.jobs import Job
from webapp.registry.models import ModelVersion

UPLOADED: Final = "upload:"  # begins no hub name and no folder


class ModelUpload(models.Model):
    """A file with a model, on its way here in pieces or whole, until a run has taken it in."""

    FOLDER = "models"

    project = models.ForeignKey(Project, models.CASCADE, related_name="model_uploads")
    by = models.ForeignKey(User, models.PROTECT, related_name="+")
    name = models.CharField(max_length=200, help_text="as its sender calls it")
    token = models.CharField(max_length=32, unique=True, help_text="the folder that its bytes lie in")
    size = models.BigIntegerField(help_text="bytes")
    received = models.BigIntegerField(default=0, help_text="bytes that are here")
    created_at = models.DateTimeField(default=timezone.now)
    touched_at = models.DateTimeField(default=timezone.now, help_text="when its last piece came")

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    @property
    def complete(self) -> bool:
        return self.received == self.size


class Run(Job):
    """One start of one training stage, from queued to its end."""

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        CLAIMED = "claimed", "Starting"
        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Stopped"

    ACTIVE = (State.QUEUED, State.CLAIMED, State.RUNNING)

    project = models.ForeignKey(Project, models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField(help_text="counts up in the project")
    name = models.CharField(max_length=100)
    stage = models.CharField(max_length=12, help_text="a name of training.contract.SPECS")
    config = models.JSONField(help_text="the stage's settings, without the sources")
    proposed = models.JSONField(
        default=dict, blank=True, help_text="settings that nobody chose, by dotted name: why each has its value"
    )
    snapshots = models.ManyToManyField(Snapshot, blank=True, related_name="runs")
    corpus_run = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="+", help_text="whose cleaned text this reads"
    )
    tokenizer = models.ForeignKey(ModelVersion, models.PROTECT, null=True, blank=True, related_name="+")
    base = models.ForeignKey(
        ModelVersion, models.PROTECT, null=True, blank=True, related_name="runs_from", help_text="base or policy"
    )
    base_name = models.CharField(
        max_length=300, blank=True, help_text="hub name or folder, where base is not one of ours"
    )
    upload = models.ForeignKey(
        ModelUpload, models.SET_NULL, null=True, blank=True, related_name="runs", help_text="the file to add"
    )
    reward = models.ForeignKey(ModelVersion, models.PROTECT, null=True, blank=True, related_name="runs_rewarded")
    baseline = models.ForeignKey(ModelVersion, models.PROTECT, null=True, blank=True, related_name="+")
    output = models.OneToOneField(ModelVersion, models.PROTECT, null=True, blank=True, related_name="run")

    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    child = models.CharField(max_length=200, blank=True, help_text="the training process: host/boot/pid/start")
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    stop_requested_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    step = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    phase = models.CharField(max_length=100, blank=True)
    eta = models.FloatField(null=True, blank=True, help_text="seconds left")
    events_read = models.BigIntegerField(default=0, help_text="bytes of events.jsonl already in the database")
    error = models.TextField(blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    result = models.JSONField(default=dict, blank=True)
    outputs = models.JSONField(default=dict, blank=True, help_text="file of output/ → fsspec address")
    outputs_removed_at = models.DateTimeField(
        null=True, blank=True, help_text="when the files of an export were deleted"
    )
    rank_replies = models.BooleanField(default=False, help_text="a sample run: make rank tasks of its replies")
    imported_at = models.DateTimeField(null=True, blank=True, help_text="when its replies became rank tasks")
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    redacted_at = models.DateTimeField(
        null=True, blank=True, help_text="when erased rows were last removed from its folder and its samples"
    )

    class Meta:
        ordering = ("-id",)
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="run_number")]
        indexes = [models.Index(fields=["state"]), models.Index(fields=["project", "stage", "-id"])]

    def __str__(self) -> str:
        return self.name

    @property
    def active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def from_file(self) -> bool:
        """Whether it adds a file that somebody sent; its name is then base_name, after UPLOADED."""
        return self.base_name.startswith(UPLOADED)

    @property
    def source_name(self) -> str:
        return self.base_name.removeprefix(UPLOADED)

    @property
    def stopping(self) -> bool:
        return self.active and self.stop_requested_at is not None


class Machine(models.Model):
    """A machine whose training worker has reported what it computes on; see webapp.runs.machines."""

    host = models.CharField(max_length=200, unique=True)
    report = models.JSONField(help_text="a training.contract.DeviceReport")
    small_model = models.CharField(
        max_length=500, blank=True, help_text="a listed folder with the small chat model that beginners try"
    )
    seen_at = models.DateTimeField(help_text="when its worker last said that it is there")
    models = models.JSONField(
        default=list, blank=True, help_text="path and bytes of the models in its listed folders; see runs.reporting"
    )

    class Meta:
        ordering = ("-seen_at",)

    def __str__(self) -> str:
        return self.host


class Metric(models.Model):
    run = models.ForeignKey(Run, models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    name = models.CharField(max_length=80)
    value = models.FloatField(null=True, help_text="none: not a number")
    time = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "name", "step"], name="one_value_a_step")]


class RunEvent(models.Model):
    """Samples, warnings, checkpoints and the end of a run, in the order they were written."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="events")
    position = models.BigIntegerField(help_text="byte offset of the line in events.jsonl")
    type = models.CharField(max_length=12)
    step = models.PositiveIntegerField(default=0)
    time = models.DateTimeField()
    data = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("position",)
        constraints = [models.UniqueConstraint(fields=["run", "position"], name="one_event")]


class Evaluation(models.Model):
    """Figures of a model on held-out data, measured by a run or by people."""

    model = models.ForeignKey(ModelVersion, models.CASCADE, related_name="evaluations")
    run = models.ForeignKey(Run, models.SET_NULL, null=True, blank=True, related_name="evaluations")
    name = models.CharField(max_length=80)
    value = models.FloatField()
    low = models.FloatField(null=True, blank=True)
    high = models.FloatField(null=True, blank=True)
    n = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)
        constraints = [models.UniqueConstraint(fields=["run", "model", "name"], name="one_figure_a_run")]
