"""What a person does in a conversation: send, edit, ask again, choose a branch, name, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotations.models import Prompt, Task
from annotations.services.prompts import withdraw_prompts
from annotations.services.seats import fill_seats, lock_task
from webapp.accounts.models import Project, User
from webapp.chat.generation import start_reply
from webapp.chat.live import announce_conversation
from webapp.chat.models import Conversation, Erasure, Message
from webapp.chat.services.erasure import erase_conversations, prompts_of_only
from webapp.errors import BadInput, Conflict, NotFound, TooMany
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import choose_model, open_deployments
from webapp.text import clean_text

LONGEST: Final = 50_000
AT_ONCE: Final = 3
UNDER_WAY: Final = (Message.State.PENDING, Message.State.STREAMING)


def answering_model(project: Project, key: UUID, before: ModelVersion | None = None) -> ModelVersion:
    """The model that answers: the one that answered `before` while it is deployed, else one chosen by share."""
    if before is not None and open_deployments(project).filter(model=before).exists():
        return before
    model = choose_model(project, str(key))
    if model is None:
        raise Conflict(
            f"No model of {project.name} is deployed, so no one can answer. Your text is kept. A manager of the "
            "project can deploy one.",
            code="nothing_deployed",
        )
    return model


def worded(text: str) -> str:
    text = clean_text(text).strip()
    if not text:
        raise BadInput("Write something first.")
    if len(text) > LONGEST:
        raise BadInput(f"This message has {len(text):,} characters; {LONGEST:,} is the maximum. Send it in parts.")
    return text


def title_of(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:60].rsplit(" ", 1)[0] + "…"


def locked_conversation(conversation: Conversation) -> Conversation:
    row = (
        Conversation.objects.select_for_update(of=("self",))
        .select_related("project", "model__project", "user")
        .filter(pk=conversation.pk, deleted_at=None)
        .first()
    )
    if row is None:
        raise NotFound("This conversation was deleted. Restore it from your deleted conversations first.")
    return row


def check_nothing_under_way(conversation: Conversation) -> None:
    if conversation.messages.filter(state__in=UNDER_WAY).exists():
        raise Conflict("The previous reply is still being written. Wait for it, or stop it.", code="under_way")
    under_way = Message.objects.filter(conversation__user=conversation.user, state__in=UNDER_WAY)
    if under_way.count() >= AT_ONCE:
        raise TooMany(f"{AT_ONCE} replies are already being written for you. Wait for one, or stop it.")


def sent_before(conversation: Conversation, token: UUID) -> Message | None:
    return conversation.messages.filter(token=token).first()


def ask(conversation: Conversation, parent: Message, token: UUID | None = None) -> Message:
    """A reply under the user's message `parent`, which starts to be written once all of this is saved."""
    conversation.model = answering_model(conversation.project, conversation.pk, before=conversation.model)
    now = timezone.now()
    reply = Message.objects.create(
        conversation=conversation,
        parent=parent,
        role="assistant",
        state=Message.State.PENDING,
        model=conversation.model,
        token=token,
    )
    conversation.leaf, conversation.updated_at = reply, now
    conversation.save(update_fields=["model", "leaf", "updated_at"])
    transaction.on_commit(lambda: start_reply(reply.pk))
    tell_viewers(conversation)
    return reply


def tell_viewers(conversation: Conversation) -> None:
    """Have open pages of the conversation look at it again, on every device."""
    transaction.on_commit(lambda: announce_conversation(conversation.pk))


def say(conversation: Conversation, parent: Message | None, text: str, token: UUID) -> Message:
    message = Message.objects.create(
        conversation=conversation, parent=parent, role="user", text=text, token=token, state=Message.State.COMPLETE
    )
    ask(conversation, message)
    return message


@transaction.atomic
def begin_conversation(*, user: User, project: Project, text: str, token: UUID) -> Conversation:
    """A conversation that starts with this message. The token is its id: sent twice, it begins once."""
    text = worded(text)
    begun = Conversation.objects.filter(pk=token).first()
    if begun is None:
        model = answering_model(project, token)
        begun, new = Conversation.objects.get_or_create(
            pk=token, defaults={"user": user, "project": project, "model": model, "title": title_of(text)}
        )
        if new:
            check_nothing_under_way(begun)
            say(begun, None, text, token)
    if begun.user_id != user.pk:
        raise Conflict("Reload the page and send this again.")
    return begun


@transaction.atomic
def send(*, conversation: Conversation, text: str, token: UUID) -> Message:
    """The person's next message, after the branch shown. Sent twice with one token, it counts once."""
    text = worded(text)
    conversation = locked_conversation(conversation)
    if before := sent_before(conversation, token):
        return before
    check_nothing_under_way(conversation)
    return say(conversation, conversation.leaf, text, token)


@transaction.atomic
def edit(*, message: Message, text: str, token: UUID) -> Message:
    """A new branch beside a message of the person's own; the old one stays."""
    text = worded(text)
    conversation = locked_conversation(message.conversation)
    if before := sent_before(conversation, token):
        return before
    if message.role != "user":
        raise BadInput("Only your own messages can be edited. Write a better answer instead.")
    check_nothing_under_way(conversation)
    return say(conversation, message.parent, text, token)


@transaction.atomic
def regenerate(*, message: Message, token: UUID) -> Message:
    """Another reply beside this one, which stays."""
    conversation = locked_conversation(message.conversation)
    if before := sent_before(conversation, token):
        return before
    if message.role != "assistant" or message.parent is None:
        raise BadInput("Only a reply can be asked for again.")
    check_nothing_under_way(conversation)
    return ask(conversation, message.parent, token)


@transaction.atomic
def show(*, message: Message) -> Message:
    """Bring the branch that goes through this message into sight, down to its newest end. Returns that end."""
    conversation = locked_conversation(message.conversation)
    end = message
    while (child := end.children.order_by("-id").first()) is not None:
        end = child
    conversation.leaf = end
    conversation.save(update_fields=["leaf"])
    tell_viewers(conversation)
    return end


@transaction.atomic
def rename(*, conversation: Conversation, title: str) -> Conversation:
    conversation = locked_conversation(conversation)
    title = " ".join(clean_text(title).split())[:120]
    if not title:
        raise BadInput("A conversation needs a name.")
    conversation.title = title
    conversation.save(update_fields=["title"])
    return conversation


@transaction.atomic
def delete(*, conversation: Conversation, now: datetime | None = None) -> None:
    """Out of sight and out of training at once, and gone for good after 30 days; until then it can be restored."""
    now = now or timezone.now()
    if Conversation.objects.filter(pk=conversation.pk, deleted_at=None).update(deleted_at=now):
        withdraw_prompts(prompts=prompts_of_only(conversation), now=now)
        tell_viewers(conversation)


@transaction.atomic
def restore(*, conversation: Conversation) -> None:
    """Bring a deleted conversation back, with the prompts and tasks that its deletion took out of the queue."""
    row = Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
    if row is None:
        raise NotFound("This conversation was deleted for good.")
    if row.deleted_at is None:
        return
    withdrawn = Prompt.objects.filter(feedback__message__conversation=row, withdrawn_at=row.deleted_at, erased_at=None)
    reopen_prompts(prompt_ids=sorted(withdrawn.values_list("pk", flat=True).distinct()))
    row.deleted_at = None
    row.save(update_fields=["deleted_at"])


def reopen_prompts(*, prompt_ids: list[int]) -> None:
    """Make prompts usable again, and ask again for what was being asked."""
    Prompt.objects.filter(pk__in=prompt_ids).update(withdrawn_at=None)
    still_wanted = Q(feedback__isnull=False) | Q(demonstration__retracted_at=None, demonstration__state="pending")
    tasks = Task.objects.filter(still_wanted, prompt__in=prompt_ids, state=Task.State.WITHDRAWN)
    for task in Task.objects.filter(pk__in=tasks.values("pk")).order_by("pk"):
        lock_task(task)
        task.state = Task.State.OPEN
        task.save(update_fields=["state"])
        fill_seats(task)


def delete_for_good(*, conversation: Conversation) -> None:
    """Delete one conversation with every copy of it, at once."""
    erase_conversations(
        conversations=Conversation.objects.filter(pk=conversation.pk), reason=Erasure.Reason.CONVERSATION
    )


def delete_all(*, user: User, project: Project) -> int:
    """Delete every conversation of the person in the project, for good and at once. Returns how many."""
    return erase_conversations(
        conversations=Conversation.objects.filter(user=user, project=project), reason=Erasure.Reason.ALL
    )
