"""Judges: models that compare or score replies, what they were asked, and what they said."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotations.models import Prompt
from webapp.accounts.models import Project, User
from webapp.jobs import Job
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run


def new_secret() -> str:
    return secrets.token_urlsafe(32)


class Judge(models.Model):
    """A chat model behind an OpenAI-compatible endpoint, and what it is to judge by."""

    class Mode(models.TextChoices):
        PAIRWISE = "pairwise", "Which of two replies is better"
        POINTWISE = "pointwise", "A score from 1 to 10 for each reply"

    project = models.ForeignKey(Project, models.CASCADE, related_name="judges")
    name = models.CharField(max_length=100)
    own_model = models.ForeignKey(
        ModelVersion, models.PROTECT, null=True, blank=True, related_name="+", help_text="asked on our model server"
    )
    address = models.CharField(max_length=500, blank=True, help_text="of the API, up to /v1; empty for a model of ours")
    model = models.CharField(max_length=200, blank=True, help_text="what the endpoint calls it")
    encrypted_key = models.TextField(blank=True, help_text="see webapp.encryption")
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.PAIRWISE)
    rubric = models.TextField(blank=True, help_text="empty: the project's newest guidelines")
    price_in = models.FloatField(null=True, blank=True, help_text="dollars per million tokens read")
    price_out = models.FloatField(null=True, blank=True, help_text="dollars per million tokens written")
    spending_limit = models.FloatField(null=True, blank=True, help_text="dollars, of all its calls together")
    max_tokens = models.PositiveIntegerField(default=1024, help_text="of one answer")
    parallel = models.PositiveSmallIntegerField(default=4, help_text="requests at once")
    timeout = models.PositiveSmallIntegerField(default=120, help_text="seconds for one answer")
    reads_chats = models.BooleanField(default=False, help_text="whether an outside judge may read prompts from chats")
    reward_secret = models.CharField(max_length=64, unique=True, default=new_secret, editable=False)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    @property
    def is_outside(self) -> bool:
        return self.own_model_id is None

    @property
    def has_prices(self) -> bool:
        return self.price_in is not None and self.price_out is not None

    def price_of(self, tokens_in: int, tokens_out: int) -> float:
        """In dollars; 0 where no prices are given."""
        return ((self.price_in or 0.0) * tokens_in + (self.price_out or 0.0) * tokens_out) / 1e6

    @property
    def reward_address(self) -> str:
        """Where a run that uses it as a reward posts its replies."""
        return f"{settings.SITE_URL.rstrip('/')}/judges/reward/{self.reward_secret}/"


class JudgeJob(Job):
    """Questions for a judge that a worker of the site asks. `setup` is a `protocol.Setup` as it was at the start."""

    class Kind(models.TextChoices):
        TRY = "try", "One try"
        COMPARE = "compare", "Comparison of two models"
        SCORE = "score", "Scores of replies"
        AGREEMENT = "agreement", "Agreement with people"

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        STOPPED = "stopped", "Stopped"
        FAILED = "failed", "Failed"

    ACTIVE = (State.QUEUED, State.RUNNING)

    judge = models.ForeignKey(Judge, models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    run = models.ForeignKey(
        Run, models.SET_NULL, null=True, blank=True, related_name="judge_jobs", help_text="whose replies are judged"
    )
    setup = models.JSONField(help_text="mode, rubric, model and address")
    data = models.JSONField(default=dict, blank=True, help_text="a try's replies, or the comparisons of a sample")
    state = models.CharField(max_length=8, choices=State.choices, default=State.QUEUED)
    total = models.PositiveIntegerField(default=0, help_text="questions")
    answered = models.PositiveIntegerField(default=0)
    note = models.CharField(max_length=500, blank=True, help_text="what it waits for")
    wait_until = models.DateTimeField(null=True, blank=True)
    waits = models.PositiveSmallIntegerField(default=0, help_text="waits in a row without an answer")
    error = models.TextField(blank=True)
    result = models.JSONField(default=dict, blank=True)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["state"])]

    @property
    def project(self) -> Project:
        return self.judge.project

    @property
    def active(self) -> bool:
        return self.state in self.ACTIVE


class JudgeAnswer(models.Model):
    """What a judge said to one question, kept by the question's content, so that nothing is asked twice.

    `verdict` is first, second or tie for a pair; `score` is 1 to 10 for a single reply; neither: no answer could be
    used, and `reason` has the beginning of the last one.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="judge_answers")
    key = models.CharField(max_length=64, help_text="sha256 of endpoint, model, rubric, prompt and replies")
    prompt = models.ForeignKey(Prompt, models.SET_NULL, null=True, blank=True, related_name="judge_answers")
    verdict = models.CharField(max_length=6, blank=True)
    score = models.FloatField(null=True, blank=True)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="one_judge_answer")]

    @property
    def usable(self) -> bool:
        return bool(self.verdict) or self.score is not None


class JudgeCall(models.Model):
    """One request that a judge answered, usable or not: what was paid for."""

    judge = models.ForeignKey(Judge, models.CASCADE, related_name="calls")
    job = models.ForeignKey(JudgeJob, models.SET_NULL, null=True, blank=True, related_name="calls")
    run = models.ForeignKey(
        Run, models.SET_NULL, null=True, blank=True, related_name="judge_calls", help_text="which it was a reward of"
    )
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    cost = models.FloatField(default=0.0, help_text="dollars")
    seconds = models.FloatField(default=0.0)
    usable = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)
