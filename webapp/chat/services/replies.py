"""A reply's way from pending to its end. A web process claims it and writes it; whoever ends it stops the writer."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import transaction
from django.utils import timezone

from webapp.chat.live import announce, announce_conversation
from webapp.chat.models import Conversation, Erasure, Event, Message
from webapp.chat.selectors import turns_before
from webapp.chat.services.erasure import erase_conversations, erase_leftovers
from webapp.errors import TutelageError
from webapp.jobs import ClaimLost, Claims
from webapp.model_server.completions import chat_body, person_key
from webapp.model_server.refusals import CUT_OFF
from webapp.registry.models import Deployment, ModelVersion
from webapp.text import clean_text

log = logging.getLogger(__name__)

REPLIES: Final = Claims(Message, (Message.State.PENDING, Message.State.STREAMING))
STALE: Final = timedelta(seconds=20)  # without a heartbeat, or before anybody claimed it
KEEP_EVENTS: Final = timedelta(days=1)
KEEP_DELETED: Final = timedelta(days=30)
SAID_NOTHING: Final = "The model gave an empty reply. Try again, or rephrase your message."
STOPPED_EARLY: Final = "You stopped this reply before it began."


class ReplyJob(NamedTuple):
    message: Message
    """As it was claimed."""
    model: ModelVersion
    body: dict[str, Any]
    """For /v1/chat/completions, without the model's served name."""
    turn_ids: list[int]
    """The message that each turn of the body is; 0 for the system turn."""


def locked_reply(message_id: int, *states: Message.State) -> Message | None:
    """The message, ours to change while the transaction lasts; none if it is in another state."""
    return (
        Message.objects.select_for_update(of=("self",))
        .select_related("conversation__project", "model__project")
        .filter(pk=message_id, state__in=states)
        .first()
    )


def whole_text(message: Message) -> str:
    return "".join(message.events.order_by("number").values_list("text", flat=True))


@transaction.atomic
def claim(*, message_id: int) -> ReplyJob | None:
    """Take a pending reply to write it; none where somebody else has, or it was stopped."""
    if REPLIES.claim(message_id, state=Message.State.STREAMING) is None:
        return None
    message = Message.objects.select_related("conversation__project", "model__project").get(pk=message_id)
    if message.model is None:
        raise ValueError(f"reply {message_id} has no model")
    transaction.on_commit(lambda: announce(message_id))
    project = message.conversation.project
    turns = turns_before(message, system=project.system_prompt)
    body = chat_body(
        model="",
        messages=[turn for _, turn in turns],
        temperature=project.temperature,
        top_p=project.top_p,
        max_tokens=project.max_new_tokens,
        user=person_key(message.conversation.user_id),
    )
    body["stream_options"] = {"include_usage": True}
    return ReplyJob(message, message.model, body, [number for number, _ in turns])


def note_seen_from(*, message_id: int, first_id: int | None) -> None:
    """Keep which message the model was shown first, where it was not shown them all."""
    Message.objects.filter(pk=message_id).exclude(seen_from=first_id).update(seen_from=first_id)


def note_problem(*, model: ModelVersion, error: TutelageError) -> None:
    """Show on the Deployments page why the model does not answer; the reconciler removes it when it does."""
    if error.status in (409, 503) and error.error_code not in ("cut_off", "busy"):
        Deployment.objects.filter(model=model, state__in=Deployment.OPEN).update(problem=error.message)


@transaction.atomic
def append(*, message_id: int, text: str) -> bool:
    """Keep the next piece. False if the reply is not being written anymore."""
    message = locked_reply(message_id, Message.State.STREAMING)
    if message is None:
        return False
    last_number = message.events.order_by("-number").values_list("number", flat=True).first()
    Event.objects.create(message=message, number=(last_number or 0) + 1, text=clean_text(text))
    Message.objects.filter(pk=message_id).update(heartbeat_at=timezone.now())
    transaction.on_commit(lambda: announce(message_id))
    return True


def beat(job: ReplyJob) -> bool:
    """Say that the writer lives. False if the reply is not its to write anymore."""
    try:
        REPLIES.beat(job.message)
    except ClaimLost:
        return False
    return True


def settle_reply(message: Message, *, finish: str = "", error: str = "", refused: bool = False) -> None:
    """Settle a reply from the pieces there are: complete, or with an error interrupted (refused: not even begun)."""
    text = whole_text(message)
    if not error and not text.strip():
        error, refused = (STOPPED_EARLY if finish == "stopped" else SAID_NOTHING), True
    message.text, message.finish, message.error = text, finish, error
    message.state = Message.State.COMPLETE
    if error:
        message.state = Message.State.REFUSED if refused and not text.strip() else Message.State.INTERRUPTED
    message.claim, message.heartbeat_at, message.finished_at = None, None, timezone.now()
    message.save(update_fields=["text", "finish", "error", "state", "claim", "heartbeat_at", "finished_at"])
    transaction.on_commit(lambda: announce(message.pk))
    transaction.on_commit(lambda: announce_conversation(message.conversation_id))


@transaction.atomic
def finish_reply(*, message_id: int, reason: str) -> None:
    message = locked_reply(message_id, Message.State.STREAMING)
    if message is not None:
        settle_reply(message, finish=reason)


@transaction.atomic
def fail_reply(*, message_id: int, error: str, refused: bool = False) -> None:
    """The reply ends here, with the sentence for the person."""
    message = locked_reply(message_id, Message.State.PENDING, Message.State.STREAMING)
    if message is not None:
        settle_reply(message, error=error, refused=refused)


@transaction.atomic
def stop_writing(*, message_id: int) -> None:
    """The person wants no more of it. What has come is the reply."""
    message = locked_reply(message_id, Message.State.PENDING, Message.State.STREAMING)
    if message is not None:
        settle_reply(message, finish="stopped")


def interrupt_stale(*, now: datetime | None = None, **among: Any) -> int:
    """Mark replies whose writer is gone, of all of them or of those that `among` filters; returns how many. Their text
    is kept."""
    now = now or timezone.now()
    lost = REPLIES.take_back(interrupt, now=now, silence=STALE, **among)
    with transaction.atomic():
        never_begun = REPLIES.rows.filter(claim=None, created_at__lt=now - STALE, **among)
        for message in never_begun.select_for_update(of=("self",), skip_locked=True):
            interrupt(message)
            lost += 1
    return lost


def interrupt(message: Message) -> None:
    log.warning("reply %s: its writer has not been heard of since %s", message.pk, message.heartbeat_at)
    settle_reply(message, error=CUT_OFF)


@transaction.atomic
def drop_old_pieces(*, now: datetime | None = None) -> None:
    """Drop what nobody needs: pieces of replies whose text is whole, and conversations deleted a month ago."""
    now = now or timezone.now()
    Event.objects.filter(message__finished_at__lt=now - KEEP_EVENTS).delete()
    expired = Conversation.objects.filter(deleted_at__lt=now - KEEP_DELETED)
    erase_conversations(conversations=expired, reason=Erasure.Reason.EXPIRED)
    erase_leftovers()
