"""Pages of members and invitations."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts import selectors, services
from webapp.accounts.access import may, public, requires, role_of, signed_in
from webapp.accounts.forms import InviteForm, RoleForm
from webapp.accounts.models import Project, Role
from webapp.accounts.requests import Request
from webapp.errors import BadInput


def member_page(request: Request, project: Project, form: InviteForm, link: str = "") -> HttpResponse:
    context = {
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
    """Answers with the page itself, not with a redirect: the link is shown this once and kept nowhere."""
    form = InviteForm(request.POST)
    if not form.is_valid():
        return member_page(request, project, form)
    role, email = Role(form.cleaned_data["role"]), form.cleaned_data["email"]
    _, secret = services.invite(project=project, role=role, email=email, by=request.user)
    link = request.build_absolute_uri(reverse("invitation", args=[secret]))
    response = member_page(request, project, InviteForm(), link)
    response["Cache-Control"] = "no-store"
    return response


@requires("project.manage")
@require_POST
def invitation_revoke(request: Request, project: Project, invitation_id: int) -> HttpResponse:
    services.revoke_invitation(project=project, invitation_id=invitation_id)
    messages.success(request, "The link does not work any more.")
    return redirect("member_list", project.slug)


@requires("project.manage")
@require_POST
def member_role(request: Request, project: Project, user_id: int) -> HttpResponse:
    form = RoleForm(request.POST)
    if not form.is_valid():
        raise BadInput("There is no such role. Choose one of the list.")
    role = Role(form.cleaned_data["role"])
    changed = services.change_role(project=project, user_id=user_id, role=role, by=request.user)
    messages.success(request, f"{changed.user} is {role.label.lower()} now.")
    return redirect("member_list" if may(request.user, "project.manage", project) else "project_detail", project.slug)


@requires("project.manage")
@require_POST
def member_remove(request: Request, project: Project, user_id: int) -> HttpResponse:
    gone = services.remove_member(project=project, user_id=user_id, by=request.user)
    messages.success(request, f"{gone} is not a member any more. What they labelled stays.")
    if may(request.user, "project.manage", project):
        return redirect("member_list", project.slug)
    return redirect("project_list")


@requires("project.view")
@require_POST
def member_leave(request: Request, project: Project) -> HttpResponse:
    services.remove_member(project=project, user_id=request.user.pk, by=request.user)
    request.session.pop("project", None)
    messages.success(request, f"You are not a member of {project.name} any more.")
    return redirect("project_list")


@public
@require_GET
def invitation(request: Request, secret: str) -> HttpResponse:
    """What the link opens: sign up, sign in, or join."""
    found = selectors.invitation_by_secret(secret)
    if found.is_open and not request.user.is_authenticated:
        request.session["invitation"] = found.pk
    address = reverse("invitation", args=[secret])
    context = {"invitation": found, "secret": secret, "address": address, "role": Role(found.role)}
    response = render(request, "accounts/invitation.html", context)
    response["Referrer-Policy"] = "no-referrer"
    return response


@signed_in
@require_POST
def invitation_accept(request: Request, secret: str) -> HttpResponse:
    found = selectors.invitation_by_secret(secret)
    membership = services.accept_invitation(user=request.user, invitation=found)
    request.session.pop("invitation", None)
    request.session["project"] = found.project.slug
    messages.success(request, f"Welcome to {found.project.name}. You are {membership.get_role_display().lower()} here.")
    return redirect("home")
