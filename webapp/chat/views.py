"""Pages of conversations: the list, one conversation, what is done to it."""

from __future__ import annotations

import json
import uuid
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts.access import allow, declares, may, project_for, signed_in
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.accounts.selectors import consent_of, projects_of
from webapp.chat import selectors
from webapp.chat.exports import conversation_row, conversation_rows
from webapp.chat.forms import TextForm
from webapp.chat.models import Conversation
from webapp.chat.services import conversations as service
from webapp.chat.services.feedback import BAD_REASONS, GOOD_REASONS, allow_use, forbid_use, wording
from webapp.chat.services.replies import interrupt_stale
from webapp.downloads import download
from webapp.errors import BadInput
from webapp.registry.selectors import open_deployments

PAGE = 40


def filled_in(form: TextForm) -> tuple[str, UUID]:
    if not form.is_valid():
        raise BadInput("The page has sent something incomplete. Reload it and try again.")
    return form.cleaned_data["text"], form.cleaned_data["token"]


def project_in_hand(request: Request) -> Project | None:
    """The project that the address names, else the one visited last, else any of the person's."""
    named = request.GET.get("project") or request.POST.get("project")
    if named:
        project = project_for(request.user, named, "chat")
        request.session["project"] = project.slug
        return project
    mine = list(projects_of(request.user))
    return next((p for p in mine if p.slug == request.session.get("project")), mine[0] if mine else None)


def own(request: Request, conversation_id: UUID, *, deleted: bool = False) -> Conversation:
    conversation = selectors.conversation_of(request.user, conversation_id, deleted=deleted)
    allow(request.user, "chat", conversation.project)
    return conversation


def chat_page(request: Request, project: Project, conversation: Conversation | None = None) -> HttpResponse:
    search = request.GET.get("q", "").strip()
    mine = selectors.conversations_of(request.user, project, search)
    deployed = open_deployments(project).exists()
    deleted = request.GET.get("deleted", "")
    rated = request.GET.get("rated", "")
    context = {
        "project": project,
        "conversation": conversation,
        "thread": selectors.thread(conversation) if conversation else None,
        "page": Paginator(mine, PAGE).get_page(request.GET.get("page")),
        "search": search,
        "deployed": deployed,
        "may_deploy": may(request.user, "models.deploy", project),
        "deleted": deleted if deleted and search == "" else "",
        "rated": int(rated) if rated.isdigit() else 0,
        "token": uuid.uuid4(),
        **about_feedback(request, project),
    }
    return render(request, "chat/chat.html", context)


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
        begun = service.begin(user=request.user, project=project, text=text, token=token)
        return redirect("chat_conversation", begun.pk)
    return chat_page(request, project)


@declares("chat")
@require_GET
def conversation(request: Request, conversation_id: UUID) -> HttpResponse:
    found = own(request, conversation_id)
    interrupt_stale()
    request.session["project"] = found.project.slug
    return chat_page(request, found.project, found)


@declares("chat")
@require_POST
def send(request: Request, conversation_id: UUID) -> HttpResponse:
    found = own(request, conversation_id)
    text, token = filled_in(TextForm(request.POST))
    service.send(conversation=found, text=text, token=token)
    return redirect("chat_conversation", found.pk)


@declares("chat")
@require_POST
def rename(request: Request, conversation_id: UUID) -> HttpResponse:
    found = own(request, conversation_id)
    service.rename(conversation=found, title=request.POST.get("title", ""))
    return redirect("chat_conversation", found.pk)


@declares("chat")
@require_POST
def delete(request: Request, conversation_id: UUID) -> HttpResponse:
    found = own(request, conversation_id)
    service.delete(conversation=found)
    return redirect(f"{reverse('chat')}?project={found.project.slug}&deleted={found.pk}")


@declares("chat")
@require_POST
def restore(request: Request, conversation_id: UUID) -> HttpResponse:
    found = own(request, conversation_id, deleted=True)
    service.restore(conversation=found)
    return redirect("chat_conversation", found.pk)


def attachment(content: str, kind: str, name: str) -> HttpResponse:
    response = HttpResponse(content, content_type=f"{kind}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


@declares("chat")
@require_GET
def export(request: Request, conversation_id: UUID) -> HttpResponse:
    found = own(request, conversation_id)
    if request.GET.get("format") == "json":
        text = json.dumps(conversation_row(found), ensure_ascii=False, indent=1)
        return attachment(text, "application/json", f"conversation-{found.pk}.json")
    return attachment(selectors.as_markdown(found), "text/markdown", f"conversation-{found.pk}.md")


@signed_in
@require_GET
def own_data(request: Request) -> HttpResponse:
    """What is kept of the person's chats, project by project, and what they may do about it."""
    projects = [
        {
            "project": project,
            "count": selectors.conversations_of(request.user, project).count(),
            "consent": consent_of(user=request.user, project=project),
            "wording": wording(project),
        }
        for project in projects_of(request.user)
    ]
    return render(request, "chat/own_data.html", {"projects": projects})


@declares("chat")
@require_GET
def export_all(request: Request, slug: str) -> StreamingHttpResponse:
    project = project_for(request.user, slug, "chat")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in conversation_rows(request.user, project))
    return download(request, lines, f"{slug}-chats.jsonl")


@declares("chat")
@require_POST
def delete_all(request: Request, slug: str) -> HttpResponse:
    project = project_for(request.user, slug, "chat")
    count = service.delete_all(user=request.user, project=project)
    messages.success(request, f"{count} conversation{'' if count == 1 else 's'} deleted for good.")
    return redirect("chat_data")


@declares("chat")
@require_POST
def consent(request: Request, slug: str) -> HttpResponse:
    project = project_for(request.user, slug, "chat")
    if request.POST.get("consent") == "yes":
        allow_use(user=request.user, project=project)
        messages.success(request, f"Thank you. What you say of {project.name}'s replies teaches it from now on.")
    else:
        forbid_use(user=request.user, project=project)
        messages.success(request, f"Taken back. {project.name} does not learn from your feedback any more.")
    return redirect("chat_data")
