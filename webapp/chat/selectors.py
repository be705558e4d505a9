"""Reads of conversations."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from webapp.accounts.models import Project, User
from webapp.accounts.selectors import projects_of
from webapp.chat.models import Conversation, Event, Feedback, Message
from webapp.errors import NotFound

Turn = dict[str, str]
NO_CONVERSATION: Final = "There is no such conversation. It may have been deleted for good."
WINDOW: Final = 40  # messages that a page shows before older ones are asked for


def conversations_of(user: User, project: Project, search: str = "") -> QuerySet[Conversation]:
    """The person's conversations, newest first; with `search`, those that say it somewhere."""
    conversations = Conversation.objects.filter(user=user, project=project, deleted_at=None)
    if search:
        matching = Message.objects.filter(text__icontains=search).values("conversation")
        conversations = conversations.filter(Q(title__icontains=search) | Q(pk__in=matching))
    return conversations


def conversation_of_user(user: User, conversation_id: UUID) -> Conversation:
    """The person's own conversation, unless they deleted it; nobody reads anybody else's."""
    conversation = conversation_or_deleted(user, conversation_id)
    if conversation.deleted_at is not None:
        raise NotFound(NO_CONVERSATION)
    return conversation


def conversation_or_deleted(user: User, conversation_id: UUID) -> Conversation:
    """The person's own conversation, one that can still be restored too."""
    conversation = (
        Conversation.objects.select_related("project", "model__project", "user")
        .filter(pk=conversation_id, user=user)
        .first()
    )
    if conversation is None:
        raise NotFound(NO_CONVERSATION)
    return conversation


def message_of_user(user: User, message_id: int) -> Message:
    """A message of the person's own conversations."""
    message = (
        Message.objects.select_related("conversation__project", "conversation__user", "parent", "model")
        .filter(pk=message_id, conversation__user=user, conversation__deleted_at=None)
        .first()
    )
    if message is None:
        raise NotFound("There is no such message. Its conversation may have been deleted.")
    return message


def path_to(messages: dict[int, Message], end: int | None) -> list[Message]:
    """From the first message to `end`, by parents."""
    path: list[Message] = []
    while end is not None and end in messages:
        path.append(messages[end])
        end = messages[end].parent_id
    return path[::-1]


def turns_before(message: Message, system: str = "") -> list[tuple[int, Turn]]:
    """The conversation that `message` replies to, for the model, each turn with its message's id (0: the system turn).
    An exchange whose reply failed without a word is left out with its question: for the model it never happened."""
    rows = {row.pk: row for row in message.conversation.messages.all()}
    path = path_to(rows, message.parent_id)
    turns: list[tuple[int, Turn]] = [(0, {"role": "system", "content": system})] if system.strip() else []
    for number, row in enumerate(path):
        answer = path[number + 1] if number + 1 < len(path) else None
        unanswered = answer is not None and answer.role == "assistant" and not answer.text.strip()
        if not unanswered and row.text.strip():
            turns.append((row.pk, {"role": row.role, "content": row.text}))
    return turns


def messages_before(message: Message, system: str = "") -> list[Turn]:
    return [turn for _, turn in turns_before(message, system)]


def turns_before_reply(reply: Message) -> list[Turn]:
    """The conversation up to the user's turn that `reply` answers."""
    return messages_before(reply)


def events_after(message_id: int, number: int) -> tuple[list[tuple[int, str]], bool]:
    """The pieces after `number`, and whether the reply is still being written. The state is read first, so that a reply
    that is said to be finished has all of its pieces here."""
    state = Message.objects.filter(pk=message_id).values_list("state", flat=True).first()
    events = Event.objects.filter(message_id=message_id, number__gt=number).values_list("number", "text")
    return list(events), state in {Message.State.PENDING, Message.State.STREAMING}


@dataclass
class ThreadLine:
    """One message of the branch shown, with what a page shows around it."""

    message: Message
    siblings: list[int]
    position: int
    text: str
    last_event: int = 0
    feedback: Feedback | None = None
    rival: Message | None = None
    rival_number: int = 0
    rival_is_better: bool = False
    verdict: str = ""
    is_last: bool = False

    @property
    def before(self) -> int | None:
        return self.siblings[self.position - 2] if self.position > 1 else None

    @property
    def after(self) -> int | None:
        return self.siblings[self.position] if self.position < len(self.siblings) else None


@dataclass
class Thread:
    """A stretch of the branch shown, to its end unless `before` cut it."""

    lines: list[ThreadLine] = field(default_factory=list)
    earlier: int = 0
    """How many messages there are above it."""
    oldest: int | None = None
    """The first of them."""
    version: str = ""
    """Differs when the branch, a message or a state is another."""
    last_token: str = ""
    """The token of the newest message that the person sent."""

    @property
    def under_way(self) -> Message | None:
        return next((line.message for line in self.lines if line.message.under_way), None)

    @property
    def seen_from(self) -> int | None:
        """The message from which on the model saw the conversation when it replied last."""
        replies = [line.message for line in self.lines if line.message.role == "assistant"]
        return replies[-1].seen_from if replies else None


def branch(conversation: Conversation) -> list[int]:
    """The ids of the messages shown, first to last."""
    parents = dict(conversation.messages.values_list("pk", "parent_id"))
    end = conversation.leaf_id or max(parents, default=None)
    path: list[int] = []
    while end is not None and end in parents:
        path.append(end)
        end = parents[end]
    return path[::-1]


def thread(conversation: Conversation, *, first_id: int | None = None, before: int | None = None) -> Thread:
    """The newest messages of the branch shown; more of them if `first_id` names an older one to begin with, or the
    ones `before` a message. Only what is shown is read."""
    path = branch(conversation)
    end = path.index(before) if before in path else len(path)
    start = max(0, end - WINDOW)
    if first_id in path:
        start = min(start, path.index(first_id))
    start -= start % 2 and start > 0  # with the question that a reply answers
    shown_ids = path[start:end]
    lines = thread_lines(conversation, shown_ids)
    if lines and before is None:
        lines[-1].is_last = True
    sent = [line.message for line in lines if line.message.role == "user"]
    return Thread(
        lines, start, path[0] if start else None, version_of(conversation.pk), str(sent[-1].token or "") if sent else ""
    )


def version_of(conversation_id: UUID) -> str:
    """Another one whenever a message or the branch shown is another. What a person said about a reply does not count:
    it would swap messages while they write."""
    rows = Conversation.objects.filter(pk=conversation_id).annotate(size=Count("messages"))
    row = rows.values_list("leaf", "leaf__state", "title", "size").first()
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()[:16]


def thread_lines(conversation: Conversation, shown_ids: list[int]) -> list[ThreadLine]:
    """The messages with their siblings and what the person said about them."""
    rows = {row.pk: row for row in conversation.messages.select_related("model").filter(pk__in=shown_ids)}
    parents = [row.parent_id for row in rows.values()]
    beside = Q(parent__in=[pk for pk in parents if pk is not None])
    if None in parents:
        beside |= Q(parent=None)
    children: dict[int | None, list[Message]] = defaultdict(list)
    for row in conversation.messages.select_related("model").filter(beside).order_by("pk"):
        children[row.parent_id].append(row)
    lines = [line_of(rows[pk], children[rows[pk].parent_id]) for pk in shown_ids]
    judged = [*shown_ids, *(line.rival.pk for line in lines if line.rival)]
    opinions = {f.message_id: f for f in Feedback.objects.filter(message__in=judged, user_id=conversation.user_id)}
    for line in lines:
        line.feedback = opinions.get(line.message.pk)
        opposite = opinions.get(line.rival.pk) if line.rival else None
        line.rival_is_better = opposite is not None and opposite.preferred_over_id == line.message.pk
        line.verdict = verdict_on(line, line.feedback, opposite)
    return lines


def verdict_on(line: ThreadLine, opinion: Feedback | None, opposite: Feedback | None) -> str:
    """Tie or both bad, whichever of the two replies it was said about."""
    if line.rival is None:
        return ""
    if opinion is not None and opinion.compared_with_id == line.rival.pk:
        return opinion.verdict
    return opposite.verdict if opposite is not None and opposite.compared_with_id == line.message.pk else ""


def line_for(message: Message) -> ThreadLine | None:
    """The message with what a page shows around it; none if it is not on the branch shown."""
    path = branch(message.conversation)
    if message.pk not in path:
        return None
    (line,) = thread_lines(message.conversation, [message.pk])
    line.is_last = path[-1] == message.pk
    return line


def line_of(message: Message, around: list[Message]) -> ThreadLine:
    visible = [m for m in around if m.pk == message.pk or not (m.failed and not m.text)]
    position = next(n for n, m in enumerate(visible, 1) if m.pk == message.pk)
    text, last_event = message.text, 0
    if message.under_way:
        events, _ = events_after(message.pk, 0)
        text, last_event = "".join(event_text for _, event_text in events), events[-1][0] if events else 0
    rivals = [
        m
        for m in visible
        if m.pk != message.pk and m.role == "assistant" and can_be_judged(m) and m.text != message.text
    ]
    earlier = [m for m in rivals if m.pk < message.pk]
    rival = (earlier or rivals)[-1] if rivals and can_be_judged(message) else None
    number = visible.index(rival) + 1 if rival else 0
    return ThreadLine(message, [m.pk for m in visible], position, text, last_event, rival=rival, rival_number=number)


def can_be_judged(message: Message) -> bool:
    """Something that can be judged: a reply that came to its end with words in it."""
    return message.state == Message.State.COMPLETE and bool(message.text.strip())


def as_markdown(conversation: Conversation) -> str:
    """The branch shown, as a document."""
    blocks = [f"# {conversation}\n"]
    for line in thread_lines(conversation, branch(conversation)):
        who = "You" if line.message.role == "user" else conversation.project.name
        blocks.append(f"**{who}**\n\n{line.text}\n")
    return "\n".join(blocks)


def deleted_conversations(user: User, project: Project) -> QuerySet[Conversation]:
    """Those that can still be restored, the newest deletion first."""
    return Conversation.objects.filter(user=user, project=project, deleted_at__isnull=False).order_by("-deleted_at")


def projects_with_chats_of(user: User) -> QuerySet[Project]:
    """The person's projects, and those that hold chats, consents or erasures of theirs, left or archived since."""
    has_data = Q(conversations__user=user) | Q(consents__user=user) | Q(erasures__user=user)
    others = Project.objects.filter(has_data).values("pk")
    return Project.objects.filter(Q(pk__in=projects_of(user).values("pk")) | Q(pk__in=others)).order_by("name")
