"""What is done to one message: shown, streamed, stopped, edited, asked for again, judged."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.access import allow, declares
from webapp.accounts.requests import Request
from webapp.chat import selectors
from webapp.chat.forms import FeedbackForm, PickForm, TextForm, ThumbForm, TokenForm
from webapp.chat.live import Wait, listening
from webapp.chat.models import Message
from webapp.chat.services import conversations, feedback, replies
from webapp.chat.views import about_feedback, filled_in
from webapp.errors import BadInput

POLL_SECONDS = 1.0
PING_EVERY = 15  # polls without news, after which a comment keeps proxies from closing the stream


def own(request: Request, message_id: int) -> Message:
    message = selectors.message_of(request.user, message_id)
    allow(request.user, "chat", message.conversation.project)
    return message


def back_to(message: Message, *, rated: bool = False) -> HttpResponse:
    address = reverse("chat_conversation", args=[message.conversation_id])
    query = f"?rated={message.pk}" if rated else ""
    return redirect(f"{address}{query}#message-{message.pk}")


@declares("chat")
@require_GET
def message(request: Request, message_id: int) -> HttpResponse:
    """One message of the branch in sight, as part of a page."""
    found = own(request, message_id)
    lines = selectors.thread(found.conversation).lines
    line = next((line for line in lines if line.message.pk == message_id), None)
    if line is None:
        raise BadInput("This reply is on another branch of the conversation by now. Reload the page.")
    project = found.conversation.project
    context = {"line": line, "conversation": found.conversation, "project": project, "token": uuid.uuid4()}
    return render(request, "chat/message.html", context | about_feedback(request, project))


@declares("chat")
@require_POST
def stop(request: Request, message_id: int) -> HttpResponse:
    found = own(request, message_id)
    replies.stop(message_id=message_id)
    return back_to(found)


@declares("chat")
@require_POST
def edit(request: Request, message_id: int) -> HttpResponse:
    found = own(request, message_id)
    text, token = filled_in(TextForm(request.POST))
    return back_to(conversations.edit(message=found, text=text, token=token))


@declares("chat")
@require_POST
def regenerate(request: Request, message_id: int) -> HttpResponse:
    found = own(request, message_id)
    form = TokenForm(request.POST)
    if not form.is_valid():
        raise BadInput("The page has sent something incomplete. Reload it and try again.")
    return back_to(conversations.regenerate(message=found, token=form.cleaned_data["token"]))


@declares("chat")
@require_POST
def show(request: Request, message_id: int) -> HttpResponse:
    found = own(request, message_id)
    conversations.show(message=found)
    return back_to(found)


@declares("chat")
@require_POST
def thumb(request: Request, message_id: int) -> HttpResponse:
    found = own(request, message_id)
    form = ThumbForm(request.POST)
    if not form.is_valid():
        raise BadInput("A thumb points up, down or nowhere.")
    feedback.set_thumb(reply=found, user=request.user, thumb=form.cleaned_data["thumb"])
    return back_to(found, rated=form.cleaned_data["thumb"] != 0)


@declares("chat")
@require_POST
def say_more(request: Request, message_id: int) -> HttpResponse:
    found = own(request, message_id)
    form = FeedbackForm(request.POST)
    if not form.is_valid():
        field, problems = next(iter(form.errors.items()))
        raise BadInput(f"{field.replace('_', ' ').capitalize()}: {problems[0]}")
    feedback.say_more(reply=found, user=request.user, **form.cleaned_data)
    return back_to(found)


@declares("chat")
@require_POST
def pick(request: Request, message_id: int) -> HttpResponse:
    """This reply is better than the one in `over`; without it, the pick is taken back."""
    found = own(request, message_id)
    form = PickForm(request.POST)
    over = form.cleaned_data["over"] if form.is_valid() else None
    if over is None:
        feedback.unpick(reply=found, user=request.user)
        return back_to(found)
    loser = own(request, over)
    feedback.pick(winner=found, loser=loser, user=request.user)
    conversations.show(message=found)
    return back_to(found)


# --------------------------------------------------------------------------------------------------------- the stream


@declares("chat")
async def events(request: Request, message_id: int) -> StreamingHttpResponse:
    """The reply as server-sent events: `piece`s numbered from 1, then `done`. A reader that was cut off goes on behind
    the number it has, in Last-Event-ID or `?after=`."""
    await sync_to_async(own)(request, message_id)
    last = request.headers.get("Last-Event-ID") or request.GET.get("after", "0")
    stream = pieces(message_id, int(last) if last.isdigit() else 0)
    response = StreamingHttpResponse(stream, content_type="text/event-stream")
    response["Cache-Control"] = "no-cache, no-transform"
    response["X-Accel-Buffering"] = "no"
    return response


async def pieces(message_id: int, last: int) -> AsyncIterator[str]:
    async with listening(message_id) as wait:
        async for text in followed(message_id, last, wait):
            yield text


async def followed(message_id: int, last: int, wait: Wait) -> AsyncIterator[str]:
    silent = 0
    while True:
        new, going_on = await sync_to_async(look)(message_id, last)
        for number, text in new:
            yield f"id: {number}\nevent: piece\ndata: {json.dumps(text)}\n\n"
            last = number
        if not going_on:
            yield "event: done\ndata: {}\n\n"
            return
        silent = 0 if new else silent + 1
        if silent % PING_EVERY == 1:
            yield ": waiting\n\n"
        await wait(POLL_SECONDS)


def look(message_id: int, last: int) -> tuple[list[tuple[int, str]], bool]:
    """What is new. A writer that is gone is noticed here too, and the connection goes back to the pool, because a
    stream may stay open for minutes."""
    try:
        new, going_on = selectors.events_after(message_id, last)
        if going_on and not new and replies.interrupt_stale(message_id=message_id):
            return selectors.events_after(message_id, last)
        return new, going_on
    finally:
        close_old_connections()
