"""What is done to one message: shown, stopped, edited, asked for again, rated."""

from __future__ import annotations

import uuid

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.access import requires
from webapp.accounts.requests import Request
from webapp.chat.forms import ActionForm, FeedbackForm, PickForm, TextForm, ThumbForm
from webapp.chat.models import Message
from webapp.chat.selectors import line_for, message_of_user
from webapp.chat.services import conversations, feedback, replies
from webapp.chat.views import about_feedback, filled_in
from webapp.errors import BadInput


def back_to(message: Message, *, rated: bool = False) -> HttpResponse:
    address = reverse("chat_conversation", args=[message.conversation_id])
    query = f"?rated={message.pk}" if rated else ""
    return redirect(f"{address}{query}#message-{message.pk}")


@requires("chat", message_of_user)
@require_GET
def message(request: Request, message: Message) -> HttpResponse:
    """One message of the branch shown, as part of a page."""
    return message_response(request, message)


def message_response(request: Request, message: Message, *, rated: bool = False) -> HttpResponse:
    """The message as part of a page: what an action on it alone swaps."""
    line = line_for(message)
    if line is None:
        raise BadInput("This reply is on another branch of the conversation now. Reload the page.")
    project = message.conversation.project
    context = {
        "line": line,
        "conversation": message.conversation,
        "project": project,
        "token": uuid.uuid4(),
        "rated": message.pk if rated else 0,
    }
    return render(request, "chat/message.html", context | about_feedback(request, project))


@requires("chat", message_of_user)
@require_POST
def stop_reply(request: Request, message: Message) -> HttpResponse:
    replies.stop_writing(message_id=message.pk)
    return back_to(message)


@requires("chat", message_of_user)
@require_POST
def edit_message(request: Request, message: Message) -> HttpResponse:
    text, token = filled_in(TextForm(request.POST))
    return back_to(conversations.edit(message=message, text=text, token=token))


@requires("chat", message_of_user)
@require_POST
def regenerate_reply(request: Request, message: Message) -> HttpResponse:
    form = ActionForm(request.POST)
    if not form.is_valid():
        raise BadInput("The page sent an incomplete form. Reload the page and try again.")
    return back_to(conversations.regenerate(message=message, token=form.cleaned_data["token"]))


@requires("chat", message_of_user)
@require_POST
def show_branch(request: Request, message: Message) -> HttpResponse:
    conversations.show(message=message)
    return back_to(message)


@requires("chat", message_of_user)
@require_POST
def thumb(request: Request, message: Message) -> HttpResponse:
    form = ThumbForm(request.POST)
    if not form.is_valid():
        raise BadInput("A thumb is 1, 0 or -1.")
    feedback.set_thumb(reply=message, user=request.user, thumb=form.cleaned_data["thumb"])
    rated = form.cleaned_data["thumb"] != 0
    return message_response(request, message, rated=rated) if request.htmx else back_to(message, rated=rated)


@requires("chat", message_of_user)
@require_POST
def rate_reply(request: Request, message: Message) -> HttpResponse:
    form = FeedbackForm(request.POST)
    if not form.is_valid():
        field, problems = next(iter(form.errors.items()))
        raise BadInput(f"{field.replace('_', ' ').capitalize()}: {problems[0]}")
    feedback.say_more(reply=message, user=request.user, **form.cleaned_data)
    return message_response(request, message) if request.htmx else back_to(message)


@requires("chat", message_of_user)
@require_POST
def pick_reply(request: Request, message: Message) -> HttpResponse:
    """This reply is better than the one in `over`, or `verdict` says that neither is; without both, what was said
    before is taken back."""
    form = PickForm(request.POST)
    if not form.is_valid():
        raise BadInput("The page sent an incomplete form. Reload the page and try again.")
    over, verdict = form.cleaned_data["over"], form.cleaned_data["verdict"]
    if over is None:
        feedback.unpick(reply=message, user=request.user)
        return back_to(message)
    rival = message_of_user(request.user, over)
    if verdict == "none":
        feedback.drop_verdicts(message, rival, request.user)
    elif verdict:
        feedback.compare(reply=message, rival=rival, verdict=verdict, user=request.user)
    else:
        feedback.pick(winner=message, loser=rival, user=request.user)
        conversations.show(message=message)
    return back_to(message)
