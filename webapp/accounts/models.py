"""People, projects and who may do what in them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from knox.models import AbstractAuthToken


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save()
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):  # type: ignore[django-manager-missing]  # knox has no types
    """A person. `is_superuser` runs the installation: sees every project and makes new ones."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    time_zone = models.CharField(max_length=64, blank=True, help_text="of the tz database; empty: the browser's")
    simulated = models.BooleanField(default=False, help_text="one of the sample project's people")
    date_joined = models.DateTimeField(default=timezone.now)
    password_changed_at = models.DateTimeField(null=True, blank=True, help_text="API tokens made before have ended")

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()

    def __str__(self) -> str:
        return self.name or self.email.partition("@")[0]

    def set_password(self, raw_password: str | None) -> None:
        """A new hash of the same password, as Django makes one when it hashes better, is no change."""
        same = raw_password is not None and bool(self.password) and check_password(raw_password, self.password)
        if self.pk is not None and not same:
            self.password_changed_at = timezone.now()
        super().set_password(raw_password)


def between(low: float, high: float) -> list[MinValueValidator | MaxValueValidator]:
    return [MinValueValidator(low), MaxValueValidator(high)]


class Project(models.Model):
    """One assistant that a team teaches, and everything that belongs to it."""

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=60, unique=True)
    description = models.TextField(blank=True)
    sample = models.BooleanField(default=False, help_text="made by the demonstration, with simulated people")
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    archived_at = models.DateTimeField(null=True, blank=True)

    base_model = models.CharField(
        max_length=300, blank=True, help_text="Hub name or folder of the model to start from; empty: from scratch."
    )
    system_prompt = models.TextField(blank=True, help_text="Put before every conversation; empty: nothing.")
    rank_overlap = models.PositiveSmallIntegerField(
        default=3, validators=between(1, 20), help_text="Rankings wanted for each set of replies, by as many people."
    )
    write_overlap = models.PositiveSmallIntegerField(
        default=1, validators=between(1, 20), help_text="Demonstrations wanted for each prompt."
    )
    review_overlap = models.PositiveSmallIntegerField(
        default=1, validators=between(0, 20), help_text="Reviews wanted for each demonstration; 0: none is reviewed."
    )
    replies_to_rank = models.PositiveSmallIntegerField(
        default=4, validators=between(2, 9), help_text="Replies sampled for each prompt, to be ranked."
    )
    temperature = models.FloatField(
        default=1.0, validators=between(0, 2), help_text="0 always takes the likeliest word; 1 samples as learned."
    )
    top_p = models.FloatField(
        default=1.0, validators=between(0.05, 1), help_text="Sample from the likeliest words of this total probability."
    )
    max_new_tokens = models.PositiveIntegerField(
        default=256, validators=between(1, 32_768), help_text="Longest reply, in tokens."
    )
    lease_minutes = models.PositiveSmallIntegerField(
        default=15, validators=between(1, 480), help_text="An idle task goes to someone else after this many minutes."
    )
    name_annotators = models.BooleanField(
        default=False,
        help_text="Exports name who labeled. Otherwise people are numbers that stay the same, such as person:3.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Guidelines(models.Model):
    """What annotators are asked to do. Versions are never changed; a label names the version it was made under."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="guidelines")
    version = models.PositiveIntegerField()
    text = models.TextField()
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-version",)
        verbose_name_plural = "guidelines"
        constraints = [models.UniqueConstraint(fields=["project", "version"], name="guidelines_version")]


class Role(models.TextChoices):
    OWNER = "owner", "Owner"
    MANAGER = "manager", "Manager"
    ANNOTATOR = "annotator", "Annotator"
    TESTER = "tester", "Tester"


class Membership(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_membership")]


class Invitation(models.Model):
    """A link that makes whoever opens it, signed in, a member. Only the hash of its secret is kept."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=10, choices=Role.choices)
    email = models.EmailField(blank=True, help_text="when given, only this person may take it up")
    secret_hash = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)


class Consent(models.Model):
    """A person's word on whether what they write in a project's chat may become training material."""

    user = models.ForeignKey(User, models.CASCADE, related_name="consents")
    project = models.ForeignKey(Project, models.CASCADE, related_name="consents")
    wording = models.TextField(help_text="the sentence the person agreed to")
    granted_at = models.DateTimeField(default=timezone.now)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["project", "user", "-granted_at"])]


class ApiToken(AbstractAuthToken):
    """What a program shows in a person's place. Only its hash is kept (`digest`); `token_key` is how it begins."""

    class Scope(models.TextChoices):
        READ = "read", "Read projects, data, runs and models"
        LABEL = "label", "Take tasks and hand in labels"
        CHAT = "chat", "Chat with deployed models (the OpenAI API)"
        MANAGE = "manage", "Add data, launch runs, deploy models"

    name = models.CharField(max_length=100, blank=True)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope.choices), default=list)
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="to the minute")


class HubToken(models.Model):
    """A person's token of the Hugging Face hub, which webapp.accounts.hub reads and writes."""

    user = models.OneToOneField(User, models.CASCADE, related_name="hub_token")
    encrypted = models.TextField()
    stored_at = models.DateTimeField(auto_now=True)
