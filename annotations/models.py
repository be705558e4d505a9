"""Prompts, replies, the tasks made of them, and what people said: the labels.

Over 300 lines: an app's tables stand in one module, as Django expects.
"""

from __future__ import annotations

from uuid import uuid4

from django.db import models
from django.utils import timezone

from webapp.accounts.models import Guidelines, Project, User
from webapp.registry.models import ModelVersion


class Prompt(models.Model):
    """A conversation so far, ending with the user's turn: [{"role", "content"}, …]."""

    class Split(models.TextChoices):
        TRAIN = "train", "Training"
        HELDOUT = "heldout", "Held out"

    class Source(models.TextChoices):
        WRITTEN = "written", "Written by hand"
        IMPORT = "import", "Imported"
        CHAT = "chat", "From chat"
        DEMO = "demo", "Sample project"
        API = "api", "API"

    project = models.ForeignKey(Project, models.CASCADE, related_name="prompts")
    messages = models.JSONField()
    digest = models.CharField(max_length=64, help_text="sha256 of the messages; one prompt a conversation")
    reference = models.JSONField(null=True, blank=True, help_text="the right answer, for rewards: text or other JSON")
    data = models.JSONField(null=True, blank=True, help_text="what else rewards need, as unit tests: a JSON object")
    split = models.CharField(max_length=8, choices=Split.choices, help_text="decided once, by a hash")
    source = models.CharField(max_length=10, choices=Source.choices)
    source_ref = models.CharField(max_length=300, blank=True, help_text="file:line, or chat message, that it came from")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="not for training any more")
    erased_at = models.DateTimeField(null=True, blank=True, help_text="its text was removed for good by its author")

    class Meta:
        ordering = ("-id",)
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="one_prompt_a_conversation")]
        indexes = [models.Index(fields=["project", "split", "-id"])]

    @property
    def text(self) -> str:
        """The last user turn, as a title."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


class Response(models.Model):
    """A reply to a prompt, by a model or by a person."""

    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="responses")
    text = models.TextField(blank=True)
    author = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="responses")
    model = models.ForeignKey(ModelVersion, models.PROTECT, null=True, blank=True, related_name="responses")
    sampling = models.JSONField(default=dict, help_text="sampling parameters and finish reason")
    logprob = models.FloatField(null=True, blank=True, help_text="mean a token")
    tokens = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)


class Task(models.Model):
    """Something to ask of people: `overlap` of them."""

    class Kind(models.TextChoices):
        WRITE = "write", "Write a reply"
        RANK = "rank", "Rank replies"
        REVIEW = "review", "Review a demonstration"

    class State(models.TextChoices):
        OPEN = "open", "Open"
        FULL = "full", "Full"
        CLOSED = "closed", "Closed"  # for now: see services.closing
        WITHDRAWN = "withdrawn", "Withdrawn"

    project = models.ForeignKey(Project, models.CASCADE, related_name="tasks")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="tasks")
    responses = models.ManyToManyField(Response, blank=True, related_name="tasks", help_text="what a rank task shows")
    demonstration = models.ForeignKey(
        "Demonstration",
        models.CASCADE,
        null=True,
        blank=True,
        related_name="review_tasks",
        help_text="what a review task shows",
    )
    overlap = models.PositiveSmallIntegerField(default=1)
    priority = models.SmallIntegerField(default=0, help_text="higher goes first")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    source_ref = models.CharField(max_length=300, blank=True)
    for_training = models.BooleanField(default=True, help_text="whether training takes its labels")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["project", "-priority", "id"], condition=models.Q(state="open"), name="open_tasks"),
        ]


class Lease(models.Model):
    """A task in one person's hands, and afterwards what became of it.

    `seat` is its number among the task's `overlap` seats, from 1. The unique constraint on it is what keeps
    overlap exact. A submission without a seat is in reserve: it came after all seats were taken, is kept, and steps in
    when a seat becomes free.
    """

    class Outcome(models.TextChoices):
        HELD = "held", "In hand"
        SUBMITTED = "submitted", "Submitted"
        SKIPPED = "skipped", "Skipped"
        LAPSED = "lapsed", "Lapsed"
        RETURNED = "returned", "Given back"

    task = models.ForeignKey(Task, models.CASCADE, related_name="leases")
    person = models.ForeignKey(User, models.CASCADE, related_name="leases", db_index=False)
    until = models.DateTimeField()
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.HELD)
    seat = models.PositiveSmallIntegerField(null=True, blank=True)
    order_shown = models.JSONField(default=list, help_text="response ids in the order this person sees them")
    guidelines = models.ForeignKey(
        Guidelines,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="the newest version that this person was shown with the task",
    )
    skip_reason = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["task", "person"], condition=models.Q(outcome="held"), name="one_lease_in_hand"
            ),
            models.UniqueConstraint(
                fields=["task", "seat"], condition=models.Q(seat__isnull=False), name="one_lease_a_seat"
            ),
            models.CheckConstraint(
                condition=models.Q(seat=None) | models.Q(outcome__in=["held", "submitted"]),
                name="seats_are_for_the_live",
            ),
        ]
        indexes = [
            models.Index(fields=["person", "ended_at"]),
            models.Index(fields=["person"], condition=models.Q(outcome="held"), name="leases_in_hand"),
            models.Index(fields=["until"], condition=models.Q(outcome="held"), name="leases_by_end"),
            models.Index(fields=["guidelines", "person"], name="leases_by_guidelines"),
        ]

    @property
    def project(self) -> Project:
        return self.task.project


class Draft(models.Model):
    """A label half made, saved as it is typed.

    A page that saves names the revision it began from. Where the draft has another one since, and another page wrote
    it, nothing is overwritten: the person is shown both.
    """

    task = models.ForeignKey(Task, models.CASCADE, related_name="drafts")
    person = models.ForeignKey(User, models.CASCADE, related_name="drafts")
    content = models.JSONField(default=dict, help_text="the form's fields by name")
    revision = models.UUIDField(default=uuid4, help_text="a new one with every save")
    writer = models.UUIDField(null=True, blank=True, help_text="the page that saved it last")
    typed_at = models.BigIntegerField(
        default=0, help_text="ms by the clock of the writer; orders the saves of one page"
    )
    active_seconds = models.FloatField(default=0, help_text="time spent on it so far")
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "person"], name="one_draft")]


class Label(models.Model):
    """What every label carries. A person who sends a token twice has sent one label."""

    task = models.ForeignKey(
        Task, models.PROTECT, null=True, blank=True, related_name="%(class)ss", help_text="none: imported, or from chat"
    )
    lease = models.OneToOneField(
        Lease, models.PROTECT, null=True, blank=True, related_name="%(class)s", help_text="none: without a task"
    )
    prompt = models.ForeignKey(Prompt, models.CASCADE, related_name="%(class)ss")
    author = models.ForeignKey(User, models.PROTECT, related_name="%(class)ss", db_index=False)
    token = models.UUIDField(help_text="the submission's idempotency token")
    guidelines = models.ForeignKey(Guidelines, models.PROTECT, null=True, blank=True, related_name="+")
    source_ref = models.CharField(max_length=300, blank=True, help_text="file:line, or chat message, that it came from")
    annotator = models.CharField(
        max_length=200, blank=True, help_text="who gave an imported label, as its file names them; empty: the author"
    )
    weight = models.FloatField(default=1.0, help_text="how much training counts this label; 0 and above")
    active_seconds = models.FloatField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    retracted_at = models.DateTimeField(null=True, blank=True, help_text="undone by its author, or withdrawn")
    erased_at = models.DateTimeField(null=True, blank=True, help_text="its text was removed for good")

    class Meta:
        abstract = True

    @property
    def project(self) -> Project:
        return self.prompt.project


def label_constraints(name: str) -> list[models.BaseConstraint]:
    """A token counts once; a person has one live label on a task."""
    return [
        models.UniqueConstraint(fields=["author", "token"], name=f"{name}_token"),
        models.UniqueConstraint(
            fields=["task", "author"], condition=models.Q(retracted_at=None), name=f"one_{name}_a_person"
        ),
    ]


class Demonstration(Label):
    """A person's own reply to a prompt."""

    class State(models.TextChoices):
        PENDING = "pending", "To be reviewed"
        ACCEPTED = "accepted", "Accepted"
        REJECTED = "rejected", "Rejected"
        REPLACED = "replaced", "Replaced by a corrected version"

    response = models.OneToOneField(Response, models.PROTECT, related_name="demonstration")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    masked_turns = models.JSONField(
        default=list,
        blank=True,
        help_text="indices of the prompt's assistant turns that are context only, never learned",
    )

    class Meta:
        constraints = label_constraints("demonstration")
        indexes = [models.Index(fields=["author", "-created_at"])]


class Flag(models.TextChoices):
    """What can be wrong with a reply."""

    WRONG = "wrong", "Wrong facts"
    IGNORES = "ignores", "Ignores the instruction"
    OFF_TOPIC = "off_topic", "Off topic"
    UNSAFE = "unsafe", "Unsafe"
    RUDE = "rude", "Rude"
    LONG = "long", "Too long"
    GARBLED = "garbled", "Garbled"
    PRIVATE = "private", "Personal data"


class Ranking(Label):
    """A person's ordering of replies: groups of response ids, best first; replies in one group are tied."""

    groups = models.JSONField()
    order_shown = models.JSONField(default=list, help_text="response ids as they were laid out")
    strength = models.FloatField(null=True, blank=True, help_text="how much better the best is, 0 to 3")
    ratings = models.JSONField(default=dict, help_text="by response id, 1 to 7")
    flags = models.JSONField(default=dict, help_text="by response id, a list of Flag values")
    reason = models.TextField(blank=True)

    class Meta:
        constraints = label_constraints("ranking")
        indexes = [models.Index(fields=["author", "-created_at"])]


class Judgment(Label):
    """A person's verdict on a single reply, good or bad, without another reply to compare it with."""

    response = models.ForeignKey(Response, models.PROTECT, related_name="judgments")
    good = models.BooleanField()

    class Meta:
        constraints = label_constraints("judgment")
        indexes = [models.Index(fields=["author", "-created_at"])]


class Review(Label):
    """A second person's word on a demonstration."""

    class Verdict(models.TextChoices):
        ACCEPT = "accept", "Accept"
        EDIT = "edit", "Accept with changes"
        REJECT = "reject", "Reject"

    demonstration = models.ForeignKey(Demonstration, models.CASCADE, related_name="reviews")
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    comment = models.TextField(blank=True)
    corrected = models.OneToOneField(Demonstration, models.PROTECT, null=True, blank=True, related_name="correction_of")

    class Meta:
        constraints = label_constraints("review")
        indexes = [models.Index(fields=["author", "-created_at"])]


class Gold(models.Model):
    """A task whose right answer is known, shown among the others to see how well a person labels."""

    task = models.OneToOneField(Task, models.CASCADE, related_name="gold")
    groups = models.JSONField(help_text="the right ranking")
    created_by = models.ForeignKey(User, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
