"""Pages of conversations: the list, one conversation, what is done to it."""

from __future__ import annotations

import json
import math
import uuid
from datetime import timedelta
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.text import slugify
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts.access import last_project, may, project_for, remember_project, requires, signed_in
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.accounts.selectors import consent_of, projects_of
from webapp.chat import selectors
from webapp.chat.exports import conversation_row
from webapp.chat.forms import TextForm
from webapp.chat.models import Conversation
from webapp.chat.selectors import conversation_of_user, conversation_or_deleted
from webapp.chat.services import conversations as service
from webapp.chat.services.feedback import BAD_REASONS, GOOD_REASONS, wording
from webapp.chat.services.replies import KEEP_DELETED, interrupt_stale
from webapp.chat.stream_views import SILENCE_SECONDS
from webapp.errors import BadInput
from webapp.params import parse_int, read_int, read_text, read_uuid
from webapp.registry.selectors import open_deployments

PAGE = 40
MAX_PAGE = 1_000_000


def filled_in(form: TextForm) -> tuple[str, UUID]:
    if not form.is_valid():
        raise BadInput("The page sent an incomplete form. Reload the page and try again. Your text is kept.")
    return form.cleaned_data["text"], form.cleaned_data["token"]


def project_in_hand(request: Request) -> Project | None:
    """The project that the address names, else the one visited last, else any of the person's."""
    named = read_text(request.GET, "project") or read_text(request.POST, "project")
    if named:
        project = project_for(request.user, named, "chat")
        remember_project(request, project)
        return project
    return last_project(request, projects_of(request.user))


def chat_page(request: Request, project: Project, conversation: Conversation | None = None) -> HttpResponse:
    search = read_text(request.GET, "q").strip()
    conversations = selectors.conversations_of(request.user, project, search)
    shown_from = parse_int(request.headers.get("X-First-Message", "")) or read_int(request.GET, "first")
    context = {
        "project": project,
        "conversation": conversation,
        "thread": selectors.thread(conversation, first_id=shown_from) if conversation else None,
        "page": Paginator(conversations, PAGE).get_page(read_int(request.GET, "page", 1, high=MAX_PAGE)),
        "search": search,
        "deployed": open_deployments(project).exists(),
        "may_deploy": may(request.user, "models.deploy", project),
        "deleted": None if search else just_deleted(request),
        "deleted_count": selectors.deleted_conversations(request.user, project).count(),
        "rated": read_int(request.GET, "rated", 0),
        "token": uuid.uuid4(),
        "silence": SILENCE_SECONDS,
        **about_feedback(request, project),
    }
    return render(request, "chat/chat.html", context)


def just_deleted(request: Request) -> Conversation | None:
    """The person's conversation that the address says was just deleted, while it is."""
    named = read_uuid(request.GET, "deleted")
    return Conversation.objects.filter(pk=named, user=request.user).exclude(deleted_at=None).first() if named else None


def about_feedback(request: Request, project: Project) -> dict[str, object]:
    return {
        "good_reasons": GOOD_REASONS.items(),
        "bad_reasons": BAD_REASONS.items(),
        "consent": consent_of(user=request.user, project=project),
        "wording": wording(project),
    }


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def chat(request: Request) -> HttpResponse:
    """The conversations and a place to start one; POST starts it."""
    project = project_in_hand(request)
    if project is None:
        return render(request, "chat/no_project.html")
    if request.method == "POST":
        text, token = filled_in(TextForm(request.POST))
        begun = service.begin_conversation(user=request.user, project=project, text=text, token=token)
        return redirect("chat_conversation", begun.pk)
    return chat_page(request, project)


@requires("chat", conversation_or_deleted)
@require_GET
def conversation(request: Request, chosen: Conversation) -> HttpResponse:
    if chosen.deleted_at is not None:
        context = {"project": chosen.project, "conversation": chosen, "days_left": days_left(chosen)}
        return render(request, "chat/deleted_one.html", context, status=410)
    interrupt_stale(conversation=chosen)
    return chat_page(request, chosen.project, chosen)


@requires("chat", conversation_of_user)
@require_GET
def earlier(request: Request, conversation_row: Conversation) -> HttpResponse:
    """Older messages of the branch shown, before `before`, as part of a page."""
    thread = selectors.thread(conversation_row, before=read_int(request.GET, "before", 0))
    context = {
        "thread": thread,
        "conversation": conversation_row,
        "project": conversation_row.project,
        "token": uuid.uuid4(),
    }
    return render(request, "chat/lines.html", context | about_feedback(request, conversation_row.project))


def days_left(conversation: Conversation) -> int:
    """How many more days the conversation can be restored."""
    if conversation.deleted_at is None:
        return 0
    return max(0, math.ceil((conversation.deleted_at + KEEP_DELETED - timezone.now()) / timedelta(days=1)))


@requires("chat", conversation_of_user)
@require_POST
def send_message(request: Request, chosen: Conversation) -> HttpResponse:
    text, token = filled_in(TextForm(request.POST))
    service.send(conversation=chosen, text=text, token=token)
    return redirect("chat_conversation", chosen.pk)


@requires("chat", conversation_of_user)
@require_POST
def rename_conversation(request: Request, chosen: Conversation) -> HttpResponse:
    service.rename(conversation=chosen, title=request.POST.get("title", ""))
    return redirect("chat_conversation", chosen.pk)


@requires("chat", conversation_of_user)
@require_POST
def delete_conversation(request: Request, chosen: Conversation) -> HttpResponse:
    service.delete(conversation=chosen)
    return redirect(f"{reverse('chat')}?project={chosen.project.slug}&deleted={chosen.pk}")


@requires("chat", conversation_or_deleted)
@require_POST
def erase_conversation(request: Request, chosen: Conversation) -> HttpResponse:
    service.delete_for_good(conversation=chosen)
    messages.success(request, f"“{chosen}” was deleted for good.")
    if selectors.deleted_conversations(request.user, chosen.project).exists():
        return redirect("chat_deleted", chosen.project.slug)
    return redirect("chat_data")


@requires("chat", conversation_or_deleted)
@require_POST
def restore_conversation(request: Request, chosen: Conversation) -> HttpResponse:
    service.restore(conversation=chosen)
    return redirect("chat_conversation", chosen.pk)


def attachment(content: str, kind: str, name: str) -> HttpResponse:
    response = HttpResponse(content, content_type=f"{kind}; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name) or "attachment"
    response["Cache-Control"] = "no-store"
    return response


@requires("chat", conversation_of_user)
@require_GET
def export(request: Request, chosen: Conversation) -> HttpResponse:
    if request.GET.get("format") == "json":
        text = json.dumps(conversation_row(chosen), ensure_ascii=False, indent=1)
        return attachment(text, "application/json", f"{file_name(chosen)}.json")
    return attachment(selectors.as_markdown(chosen), "text/markdown", f"{file_name(chosen)}.md")


def file_name(conversation: Conversation) -> str:
    """Its title and the day it was last written in, e.g. how-do-kites-fly-2026-11-26."""
    title = slugify(conversation.title, allow_unicode=True)[:60].strip("-") or "conversation"
    return f"{title}-{timezone.localtime(conversation.updated_at):%Y-%m-%d}"
