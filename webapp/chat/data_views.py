"""What is kept of a person's chats, and what was removed: their own page, and a project's page of withdrawn data."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from webapp.accounts.access import GONE, declares, requires, role_of, signed_in
from webapp.accounts.models import Project, User
from webapp.accounts.requests import Request
from webapp.accounts.selectors import consent_of
from webapp.chat import selectors
from webapp.chat.exports import conversation_rows
from webapp.chat.models import Conversation, Erasure
from webapp.chat.services import account
from webapp.chat.services import conversations as service
from webapp.chat.services.erasure import erased_rows
from webapp.chat.services.feedback import allow_use, forbid_use, wording
from webapp.chat.services.replies import KEEP_DELETED
from webapp.chat.views import days_left
from webapp.downloads import download
from webapp.errors import NotFound
from webapp.runs.lineage import models_that_learned_from_rows
from webapp.runs.services.redaction import files_left

MAX_ERASURES = 200


def project_with_chats(request: Request, slug: str) -> Project:
    """A project of the person's, or one that they left and that still holds their chats."""
    project = selectors.projects_with_chats_of(request.user).filter(slug=slug).first()
    if project is None:
        raise NotFound(GONE)
    return project


@signed_in
@require_GET
def own_data(request: Request) -> HttpResponse:
    """What is kept of the person's chats, project by project, and what they may do about it."""
    projects = [about_project(request.user, project) for project in selectors.projects_with_chats_of(request.user)]
    return render(request, "chat/own_data.html", {"projects": projects, "days": KEEP_DELETED.days})


def about_project(user: User, project: Project) -> dict[str, Any]:
    conversations = Conversation.objects.filter(user=user, project=project)
    erasures = list(Erasure.objects.filter(user=user, project=project)[:MAX_ERASURES])
    rows = erased_rows(erasures)
    return {
        "project": project,
        "member": role_of(user, project) is not None and project.archived_at is None,
        "count": conversations.filter(deleted_at=None).count(),
        "deleted_count": conversations.exclude(deleted_at=None).count(),
        "total": conversations.count(),
        "consent": consent_of(user=user, project=project),
        "wording": wording(project),
        "erasures": erasures[:10],
        "models": models_that_learned_from_rows(rows),
        "left": files_left(rows),
    }


@declares("chat")
@require_GET
def deleted(request: Request, slug: str) -> HttpResponse:
    """Deleted conversations that can still be restored."""
    project = project_with_chats(request, slug)
    rows = [(row, days_left(row)) for row in selectors.deleted_conversations(request.user, project)[:1000]]
    return render(request, "chat/deleted.html", {"project": project, "rows": rows, "days": KEEP_DELETED.days})


@declares("chat")
@require_GET
def export_all(request: Request, slug: str) -> StreamingHttpResponse:
    project = project_with_chats(request, slug)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in conversation_rows(request.user, project))
    return download(request, lines, f"{slug}-chats.jsonl")


@declares("chat")
@require_POST
def delete_all_view(request: Request, slug: str) -> HttpResponse:
    project = project_with_chats(request, slug)
    count = service.delete_all(user=request.user, project=project)
    messages.success(request, f"{count} conversation{'' if count == 1 else 's'} deleted for good.")
    return redirect("chat_data")


@declares("chat")
@require_POST
def consent(request: Request, slug: str) -> HttpResponse:
    project = project_with_chats(request, slug)
    if request.POST.get("consent") == "yes":
        allow_use(user=request.user, project=project)
        messages.success(request, f"Thank you. From now on {project.name} can learn from your feedback.")
    else:
        forbid_use(user=request.user, project=project)
        messages.success(request, f"Consent withdrawn. {project.name} no longer learns from your feedback.")
    return redirect("chat_data")


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def delete_account_view(request: Request) -> HttpResponse:
    """Typing one's address confirms it."""
    wrong = False
    if request.method == "POST":
        wrong = request.POST.get("email", "").strip().lower() != request.user.email.lower()
        if not wrong:
            account.delete_account(user=request.user)
            logout(request)
            messages.success(request, "Your account and your chats are deleted.")
            return redirect("account_login")
    return render(request, "chat/delete_account.html", {"wrong": wrong}, status=400 if wrong else 200)


@require_safe
@requires("models.view")
def withdrawn_data(request: HttpRequest, project: Project) -> HttpResponse:
    """What people had removed from the project, without its text: which models learned from it, what still holds it."""
    erasures = list(Erasure.objects.filter(project=project)[:MAX_ERASURES])
    rows = erased_rows(erasures)
    context = {
        "project": project,
        "erasures": [erasure for erasure in erasures if erasure.row_count],
        "models": models_that_learned_from_rows(rows),
        "left": files_left(rows),
        "counts": {kind: len(ids) for kind, ids in rows.items()},
    }
    return render(request, "chat/withdrawn_data.html", context)
