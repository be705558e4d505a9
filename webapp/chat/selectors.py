"""Reads of conversations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Q, QuerySet

from webapp.accounts.models import Project, User
from webapp.chat.models import Conversation, Event, Feedback, Message
from webapp.errors import NotFound

Turn = dict[str, str]


def conversations_of(user: User, project: Project, search: str = "") -> QuerySet[Conversation]:
    """The person's conversations, newest first; with `search`, those that say it somewhere."""
    mine = Conversation.objects.filter(user=user, project=project, deleted_at=None)
    if search:
        said = Message.objects.filter(text__icontains=search).values("conversation")
        mine = mine.filter(Q(title__icontains=search) | Q(pk__in=said))
    return mine


def conversation_of(user: User, conversation_id: UUID, *, deleted: bool = False) -> Conversation:
    """The person's own conversation; nobody reads anybody else's."""
    found = (
        Conversation.objects.select_related("project", "model__project", "user")
        .filter(pk=conversation_id, user=user)
        .first()
    )
    if found is None or (found.deleted_at is not None and not deleted):
        raise NotFound("This conversation is not there. It may have been deleted.")
    return found


def message_of(user: User, message_id: int) -> Message:
    """A message of the person's own conversations."""
    found = (
        Message.objects.select_related("conversation__project", "conversation__user", "parent", "model")
        .filter(pk=message_id, conversation__user=user, conversation__deleted_at=None)
        .first()
    )
    if found is None:
        raise NotFound("This message is not there. Its conversation may have been deleted.")
    return found


def path_to(messages: dict[int, Message], end: int | None) -> list[Message]:
    """From the first message to `end`, by parents."""
    path: list[Message] = []
    while end is not None and end in messages:
        path.append(messages[end])
        end = messages[end].parent_id
    return path[::-1]


def messages_before(message: Message, system: str = "") -> list[Turn]:
    """The conversation that `message` replies to, for the model. An exchange whose reply failed without a word is left
    out with its question: for the model it never happened."""
    rows = {row.pk: row for row in message.conversation.messages.all()}
    path = path_to(rows, message.parent_id)
    turns: list[Turn] = [{"role": "system", "content": system}] if system.strip() else []
    for number, row in enumerate(path):
        answer = path[number + 1] if number + 1 < len(path) else None
        unanswered = answer is not None and answer.role == "assistant" and not answer.text.strip()
        if not unanswered and row.text.strip():
            turns.append({"role": row.role, "content": row.text})
    return turns


def prompt_of(reply: Message) -> list[Turn]:
    """The conversation up to the user's turn that `reply` answers."""
    return messages_before(reply)


def events_after(message_id: int, number: int) -> tuple[list[tuple[int, str]], bool]:
    """The pieces after `number`, and whether the reply is still being written. The state is read first, so that a reply
    that is said to be finished has all of its pieces here."""
    state = Message.objects.filter(pk=message_id).values_list("state", flat=True).first()
    pieces = Event.objects.filter(message_id=message_id, number__gt=number).values_list("number", "text")
    return list(pieces), state in {Message.State.PENDING, Message.State.STREAMING}


@dataclass
class Line:
    """One message of the branch in sight, with what a page shows around it."""

    message: Message
    siblings: list[int]
    position: int
    text: str
    last_event: int = 0
    feedback: Feedback | None = None
    rival: Message | None = None
    rival_number: int = 0
    rival_is_better: bool = False
    is_last: bool = False

    @property
    def before(self) -> int | None:
        return self.siblings[self.position - 2] if self.position > 1 else None

    @property
    def after(self) -> int | None:
        return self.siblings[self.position] if self.position < len(self.siblings) else None


@dataclass
class Thread:
    lines: list[Line] = field(default_factory=list)

    @property
    def under_way(self) -> Message | None:
        return next((line.message for line in self.lines if line.message.under_way), None)


def thread(conversation: Conversation) -> Thread:
    """The branch in sight."""
    rows = {row.pk: row for row in conversation.messages.select_related("model")}
    children: dict[int | None, list[Message]] = defaultdict(list)
    for row in rows.values():
        children[row.parent_id].append(row)
    path = path_to(rows, conversation.leaf_id or max(rows, default=None))
    lines = [line_of(row, children[row.parent_id]) for row in path]
    judged = [*path, *(line.rival for line in lines if line.rival)]
    said = {f.message_id: f for f in Feedback.objects.filter(message__in=judged, user_id=conversation.user_id)}
    for line in lines:
        line.feedback = said.get(line.message.pk)
        opposite = said.get(line.rival.pk) if line.rival else None
        line.rival_is_better = opposite is not None and opposite.preferred_over_id == line.message.pk
    if lines:
        lines[-1].is_last = True
    return Thread(lines)


def line_of(message: Message, around: list[Message]) -> Line:
    shown = [m for m in around if m.pk == message.pk or not (m.failed and not m.text)]
    position = next(n for n, m in enumerate(shown, 1) if m.pk == message.pk)
    text, last = message.text, 0
    if message.under_way:
        pieces, _ = events_after(message.pk, 0)
        text, last = "".join(piece for _, piece in pieces), pieces[-1][0] if pieces else 0
    rivals = [m for m in shown if m.pk != message.pk and m.role == "assistant" and usable(m) and m.text != message.text]
    earlier = [m for m in rivals if m.pk < message.pk]
    rival = (earlier or rivals)[-1] if rivals and usable(message) else None
    number = shown.index(rival) + 1 if rival else 0
    return Line(message, [m.pk for m in shown], position, text, last, rival=rival, rival_number=number)


def usable(message: Message) -> bool:
    """Something that can be judged: a reply that came to its end with words in it."""
    return message.state == Message.State.COMPLETE and bool(message.text.strip())


def as_markdown(conversation: Conversation) -> str:
    """The branch in sight, as a document."""
    parts = [f"# {conversation}\n"]
    for line in thread(conversation).lines:
        who = "You" if line.message.role == "user" else conversation.project.name
        parts.append(f"**{who}**\n\n{line.text}\n")
    return "\n".join(parts)
