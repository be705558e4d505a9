"""Conversations with a deployed model, and what people say of its replies."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from annotations.models import Task
from webapp.accounts.models import Project, User
from webapp.registry.models import ModelVersion


class Conversation(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    project = models.ForeignKey(Project, models.CASCADE, related_name="conversations")
    user = models.ForeignKey(User, models.CASCADE, related_name="conversations")
    model = models.ForeignKey(
        ModelVersion, models.PROTECT, related_name="conversations", help_text="decided at the start, by share"
    )
    title = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-updated_at",)
        indexes = [models.Index(fields=["user", "project", "-updated_at"])]


class Message(models.Model):
    """A node of the conversation's tree: an edit or a regeneration is a new child of the same parent."""

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
    error = models.TextField(blank=True, help_text="why it was interrupted or refused, for the person")
    token = models.UUIDField(null=True, blank=True, help_text="sent twice, a user's message counts once")
    tokens = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    heartbeat_at = models.DateTimeField(null=True, blank=True, help_text="while streaming")

    class Meta:
        ordering = ("id",)
        constraints = [models.UniqueConstraint(fields=["conversation", "token"], name="message_token")]


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
    """What a person said of one reply. Changing one's mind changes the row; the task made of it stays linked."""

    message = models.ForeignKey(Message, models.CASCADE, related_name="feedback")
    user = models.ForeignKey(User, models.CASCADE, related_name="feedback")
    thumb = models.SmallIntegerField(choices=[(1, "Good"), (-1, "Bad"), (0, "None")], default=0)
    reasons = models.JSONField(default=list)
    comment = models.TextField(blank=True)
    better_answer = models.TextField(blank=True)
    preferred_over = models.ForeignKey(
        Message, models.SET_NULL, null=True, blank=True, related_name="+", help_text="a pick between two"
    )
    task = models.ForeignKey(
        Task, models.SET_NULL, null=True, blank=True, related_name="feedback", help_text="the work made of it"
    )
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["message", "user"], name="one_feedback")]
