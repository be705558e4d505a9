"""Blind comparisons: people say which of two models' replies is better, without knowing whose is whose."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from annotations.models import Prompt, Response, Task
from webapp.accounts.models import Project, User
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run


class Comparison(models.Model):
    """Two models and the pairs of their replies that people judge. The replies are those of an evaluate run, which
    has the model as its base and the other one as its baseline."""

    class State(models.TextChoices):
        """Derived from the run and from the tasks; see `state_of` in selectors."""

        SAMPLING = "sampling", "Sampling replies"
        FAILED = "failed", "No replies"
        JUDGING = "judging", "With people"
        STOPPED = "stopped", "Stopped"
        DONE = "done", "Done"

    project = models.ForeignKey(Project, models.CASCADE, related_name="comparisons")
    run = models.OneToOneField(Run, models.PROTECT, related_name="comparison")
    overlap = models.PositiveSmallIntegerField(help_text="how many people judge each pair")
    for_training = models.BooleanField(default=False, help_text="whether training may take what people say")
    opened_at = models.DateTimeField(null=True, blank=True, help_text="when its pairs went to people")
    stopped_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="why its pairs could not go to people")
    measured = models.CharField(
        max_length=100, blank=True, help_text="the judgments that the models' figures follow from: count and newest"
    )
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.model} against {self.baseline}"

    @property
    def model(self) -> ModelVersion:
        assert self.run.base is not None  # noqa: S101 (checked when it began)
        return self.run.base

    @property
    def baseline(self) -> ModelVersion:
        assert self.run.baseline is not None  # noqa: S101 (checked when it began)
        return self.run.baseline


class Pair(models.Model):
    """Both models' replies to one prompt. Equal replies are a tie that nobody is asked about: they have no task."""

    comparison = models.ForeignKey(Comparison, models.CASCADE, related_name="pairs")
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="+")
    reply = models.ForeignKey(Response, models.CASCADE, related_name="+", help_text="by the model")
    other_reply = models.ForeignKey(Response, models.CASCADE, related_name="+", help_text="by the baseline")
    task = models.OneToOneField(Task, models.CASCADE, null=True, blank=True, related_name="compared_pair")

    class Meta:
        ordering = ("id",)
        constraints = [models.UniqueConstraint(fields=["comparison", "prompt"], name="one_pair_a_prompt")]
