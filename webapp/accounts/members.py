"""Pages of members and invitations."""

from __future__ import annotations

import json
from uuid import uuid4

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.crypto import salted_hmac
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts import memberships, selectors
from webapp.accounts.access import may, public, remember_project, requires, role_of, signed_in
from webapp.accounts.forms import InviteForm, RoleForm
from webapp.accounts.models import Project, Role
from webapp.accounts.requests import Request
from webapp.errors import BadInput
from webapp.links import absolute
from webapp.params import read_text


def member_page(request: Request, project: Project, form: InviteForm, link: str = "") -> HttpResponse:
    context = {
        "form_token": uuid4(),
        "project": project,
        "memberships": selectors.memberships(project),
        "invitations": selectors.open_invitations(project),
        "form": form,
        "link": link,
        "roles": Role.choices,
        "is_owner": role_of(request.user, project) == Role.OWNER,
        "tab": "members",
    }
    return render(request, "accounts/member_list.html", context)


@requires("project.manage")
@require_GET
def member_list(request: Request, project: Project) -> HttpResponse:
    return member_page(request, project, InviteForm())


@requires("project.manage")
@require_POST
@sensitive_variables("secret", "link")
def invitation_new(request: Request, project: Project) -> HttpResponse:
    """Answers with the page itself, not with a redirect: the link is shown this once and kept nowhere.

    The secret is made from the form's token and the installation's key, so that a reload, which sends the form again,
    shows the same link and makes no second invitation.
    """
    form = InviteForm(request.POST)
    if not form.is_valid():
        return member_page(request, project, form)
    role, email = Role(form.cleaned_data["role"]), form.cleaned_data["email"]
    secret = ""
    if token := read_text(request.POST, "form_token"):
        about = json.dumps([token, request.user.pk, project.pk, role, email])
        secret = salted_hmac("webapp.accounts.invitation", about, algorithm="sha256").hexdigest()
    _, secret = memberships.invite(project=project, role=role, email=email, by=request.user, secret=secret)
    link = absolute(reverse("invitation", args=[secret]))
    response = member_page(request, project, InviteForm(), link)
    response["Cache-Control"] = "no-store"
    return response


@requires("project.manage")
@require_POST
def invitation_revoke(request: Request, project: Project, invitation_id: int) -> HttpResponse:
    memberships.revoke_invitation(project=project, invitation_id=invitation_id)
    messages.success(request, "The link no longer works.")
    return redirect("member_list", project.slug)


@requires("project.manage")
@require_POST
def member_role(request: Request, project: Project, user_id: int) -> HttpResponse:
    form = RoleForm(request.POST)
    if not form.is_valid():
        raise BadInput("There is no such role. Choose one of the list.")
    role = Role(form.cleaned_data["role"])
    changed = memberships.change_role(project=project, user_id=user_id, role=role, by=request.user)
    messages.success(request, f"{changed.user} is {role.label.lower()} now.")
    return redirect("member_list" if may(request.user, "project.manage", project) else "project_detail", project.slug)


@requires("project.manage")
@require_POST
def member_remove(request: Request, project: Project, user_id: int) -> HttpResponse:
    gone = memberships.remove_member(project=project, user_id=user_id, by=request.user)
    messages.success(request, f"{gone} is no longer a member. What they labeled stays.")
    if may(request.user, "project.manage", project):
        return redirect("member_list", project.slug)
    return redirect("project_list")


@requires("project.view")
@require_POST
def member_leave(request: Request, project: Project) -> HttpResponse:
    memberships.remove_member(project=project, user_id=request.user.pk, by=request.user)
    request.session.pop("project", None)
    messages.success(request, f"You are not a member of {project.name} anymore.")
    return redirect("project_list")


@public
@require_GET
def invitation(request: Request, secret: str) -> HttpResponse:
    """What the link opens: sign up, sign in, or join. A link is secret, so the page is not stored."""
    offer = selectors.invitation_by_secret(secret)
    role = role_of(request.user, offer.project)
    if role and offer.accepted_by_id == request.user.pk:  # they have just signed up, or open the link again
        remember_project(request, offer.project)
        return redirect("home")
    closed = selectors.why_closed(offer)
    if not closed and not request.user.is_authenticated:
        request.session["invitation"] = offer.pk
    context = {
        "invitation": offer,
        "secret": secret,
        "address": reverse("invitation", args=[secret]),
        "role": Role(offer.role),
        "held": role,
        "closed": closed,
        "other_address": bool(offer.email) and request.user.is_authenticated and offer.email != request.user.email,
    }
    response = render(request, "accounts/invitation.html", context)
    # Not no-referrer: with that, browsers send the form with `Origin: null`, which the CSRF check has to refuse.
    response["Referrer-Policy"] = "same-origin"
    response["Cache-Control"] = "no-store"
    return response


@signed_in
@require_POST
def invitation_accept(request: Request, secret: str) -> HttpResponse:
    offer = selectors.invitation_by_secret(secret)
    membership = memberships.accept_invitation(user=request.user, invitation=offer)
    request.session.pop("invitation", None)
    remember_project(request, offer.project)
    role = membership.get_role_display().lower()
    messages.success(request, f"Welcome to {offer.project.name}. Your role here is {role}.")
    return redirect("home")
