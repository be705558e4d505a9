"""Model versions and deployments: what exists and what is live."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Project, User


class ModelVersion(models.Model):
    """One immutable model: weights and tokenizer in Hugging Face layout. The run that made it has it as its output.

    `artefact` is a name that webapp.registry.addresses resolves: from the data folder, or an fsspec address outside.
    """

    class Kind(models.TextChoices):
        TOKENIZER = "tokenizer", "Tokenizer"
        FULL = "full", "Language model"
        ADAPTER = "adapter", "Adapter"
        REWARD = "reward", "Reward model"

    project = models.ForeignKey(Project, models.CASCADE, related_name="models")
    number = models.PositiveIntegerField(help_text="counts up in the project")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    stage = models.CharField(max_length=12, help_text="the training stage that made it, or import")
    parent = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="children")
    artefact = models.CharField(max_length=500, help_text="fsspec address of the folder")
    sha256 = models.CharField(max_length=64, help_text="of the list of its files' hashes")
    files = models.JSONField(default=dict, blank=True, help_text="sha256 by path")
    parameters = models.BigIntegerField(null=True, blank=True)
    context = models.PositiveIntegerField(null=True, blank=True, help_text="tokens")
    facts = models.JSONField(default=dict, blank=True, help_text="a training.contract.ModelFacts; see registry.facts")
    metrics = models.JSONField(default=dict, blank=True)
    note = models.TextField(blank=True)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-number",)
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="model_number")]

    def __str__(self) -> str:
        return self.name

    @property
    def deployable(self) -> bool:
        return self.kind in (self.Kind.FULL, self.Kind.ADAPTER) and self.archived_at is None

    @property
    def served_name(self) -> str:
        """What the model server calls it."""
        return f"{self.project.slug}-{self.number}"


class Deployment(models.Model):
    """A model that answers a share of a project's chats. A row only ever moves to the next state."""

    class State(models.TextChoices):
        CANARY = "canary", "Canary"
        LIVE = "live", "Live"
        RETIRED = "retired", "Retired"
        ROLLED_BACK = "rolled_back", "Rolled back"

    OPEN = (State.CANARY, State.LIVE)

    project = models.ForeignKey(Project, models.CASCADE, related_name="deployments")
    model = models.ForeignKey(ModelVersion, models.PROTECT, related_name="deployments")
    state = models.CharField(max_length=12, choices=State.choices)
    share = models.FloatField(default=1.0, help_text="of the project's new conversations, 0 to 1")
    since = models.DateTimeField(default=timezone.now)
    until = models.DateTimeField(null=True, blank=True)
    by = models.ForeignKey(User, models.PROTECT, related_name="+")
    why = models.TextField(blank=True)
    problem = models.TextField(blank=True, help_text="why the model server does not serve it, while that is so")
    folds_system = models.BooleanField(
        default=False,
        help_text="whether the chat template takes no system turn: its text goes before the first message",
    )
    ended_by = models.ForeignKey(User, models.PROTECT, null=True, blank=True, related_name="+")
    ended_why = models.TextField(blank=True)
    replaced = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="+", help_text="what was live before; the way back"
    )

    class Meta:
        ordering = ("-since", "-id")
        constraints = [
            models.UniqueConstraint(fields=["project"], condition=models.Q(state="live"), name="one_live_model"),
            models.UniqueConstraint(fields=["project"], condition=models.Q(state="canary"), name="one_canary"),
        ]

    @property
    def is_open(self) -> bool:
        """Whether it answers conversations now."""
        return self.state in self.OPEN
