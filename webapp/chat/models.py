"""Conversations with a deployed model, what people say of its replies, and what they had removed."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Task
from webapp.accounts.models import Project, User
from webapp.jobs import Claimable
from webapp.registry.models import ModelVersion


class Conversation(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    project = models.ForeignKey(Project, models.CASCADE, related_name="conversations")
    user = models.ForeignKey(User, models.CASCADE, related_name="conversations")
    model = models.ForeignKey(
        ModelVersion, models.PROTECT, related_name="conversations", help_text="decided at the start, by share"
    )
    title = models.CharField(max_length=120, blank=True)
    leaf = models.ForeignKey(
        "Message", models.SET_NULL, null=True, blank=True, related_name="+", help_text="the end of the branch in sight"
    )
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-updated_at",)
        indexes = [models.Index(fields=["user", "project", "-updated_at"])]

    def __str__(self) -> str:
        return self.title or "New conversation"


class Message(Claimable):
    """A node of the conversation's tree: an edit or a regeneration is a new child of the same parent. A reply is
    claimed by the web process that writes it."""

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        STREAMING = "streaming", "Streaming"
        COMPLETE = "complete", "Complete"
        INTERRUPTED = "interrupted", "Interrupted"
        REFUSED = "refused", "Refused"

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    parent = models.ForeignKey("self", models.CASCADE, null=True, blank=True, related_name="children")
    role = models.CharField(max_length=9, choices=[("user", "User"), ("assistant", "Assistant")])
    text = models.TextField(blank=True)
    state = models.CharField(max_length=11, choices=State.choices, default=State.COMPLETE)
    model = models.ForeignKey(ModelVersion, models.PROTECT, null=True, blank=True, related_name="messages")
    finish = models.CharField(
        max_length=20, blank=True, help_text="stop, length (the project's limit), context (the model's), or stopped"
    )
    seen_from = models.BigIntegerField(
        null=True, blank=True, help_text="the first message that the model was shown; none: all of them"
    )
    error = models.TextField(blank=True, help_text="why it was interrupted or refused, for the person")
    token = models.UUIDField(null=True, blank=True, help_text="an action of the person that is sent twice counts once")
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = [models.UniqueConstraint(fields=["conversation", "token"], name="message_token")]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=models.Q(state__in=["pending", "streaming"]),
                name="replies_under_way",
            )
        ]

    @property
    def under_way(self) -> bool:
        return self.state in {self.State.PENDING, self.State.STREAMING}

    @property
    def failed(self) -> bool:
        return self.state in {self.State.INTERRUPTED, self.State.REFUSED}

    @property
    def project(self) -> Project:
        return self.conversation.project


class Event(models.Model):
    """A piece of a reply as it was streamed; the reply is their concatenation, so none of it is lost with a process."""

    message = models.ForeignKey(Message, models.CASCADE, related_name="events")
    number = models.PositiveIntegerField()
    text = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("number",)
        constraints = [models.UniqueConstraint(fields=["message", "number"], name="one_piece")]


class Feedback(models.Model):
    """What a person said about one reply. A change of mind changes the row, and the work that was made of it."""

    class Thumb(models.IntegerChoices):
        UP = 1, "Good"
        NONE = 0, "None"
        DOWN = -1, "Bad"

    class Verdict(models.TextChoices):
        TIE = "tie", "Equally good"
        BOTH_BAD = "bad", "Both bad"

    message = models.ForeignKey(Message, models.CASCADE, related_name="feedback")
    user = models.ForeignKey(User, models.CASCADE, related_name="feedback")
    thumb = models.SmallIntegerField(choices=Thumb.choices, default=Thumb.NONE)
    reasons = models.JSONField(default=list, blank=True)
    comment = models.TextField(blank=True)
    better_answer = models.TextField(blank=True)
    preferred_over = models.ForeignKey(
        Message, models.SET_NULL, null=True, blank=True, related_name="+", help_text="a pick between two"
    )
    prompt = models.ForeignKey(
        Prompt, models.SET_NULL, null=True, blank=True, related_name="feedback", help_text="the conversation up to here"
    )
    task = models.ForeignKey(
        Task, models.SET_NULL, null=True, blank=True, related_name="feedback", help_text="opened for a thumb down"
    )
    demonstration = models.ForeignKey(
        Demonstration, models.SET_NULL, null=True, blank=True, related_name="feedback", help_text="the better answer"
    )
    ranking = models.ForeignKey(
        Ranking, models.SET_NULL, null=True, blank=True, related_name="feedback", help_text="the pick"
    )
    verdict = models.CharField(
        max_length=5, choices=Verdict.choices, blank=True, help_text="on this reply beside compared_with"
    )
    compared_with = models.ForeignKey(Message, models.SET_NULL, null=True, blank=True, related_name="+")
    judgments = models.ManyToManyField(
        Judgment, blank=True, related_name="feedback", help_text="both replies, where both are bad"
    )
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["message", "user"], name="one_feedback")]


class Erasure(models.Model):
    """What a person had removed for good, without its text: which rows it was, so that the models that learned from
    them can be named."""

    class Reason(models.TextChoices):
        CONVERSATION = "conversation", "A conversation deleted"
        ALL = "all", "All conversations deleted"
        EXPIRED = "expired", "Deleted conversations removed after 30 days"
        CONSENT = "consent", "Consent withdrawn"
        ACCOUNT = "account", "Account deleted"

    user = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="erasures")
    project = models.ForeignKey(Project, models.CASCADE, related_name="erasures")
    reason = models.CharField(max_length=12, choices=Reason.choices)
    conversations = models.PositiveIntegerField(default=0, help_text="how many were removed")
    rows = models.JSONField(default=dict, help_text="ids of training rows by kind of snapshot")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["project", "-id"])]

    @property
    def row_count(self) -> int:
        return sum(len(ids) for ids in self.rows.values())
