"""A person's own page: name, security, API tokens."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.views import EmailView
from allauth.core.exceptions import ReauthenticationRequired
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts import hub, services, tokens
from webapp.accounts.access import signed_in
from webapp.accounts.forms import HubTokenForm, ProfileForm, TokenForm
from webapp.accounts.models import HubToken, User
from webapp.accounts.requests import Request
from webapp.accounts.zones import browser_zone
from webapp.errors import BadInput
from webapp.params import read_text


def profile_form(request: Request, data: QueryDict | None = None) -> ProfileForm:
    initial = {"name": request.user.name, "time_zone": request.user.time_zone}
    return ProfileForm(data, initial=initial, of_browser=str(browser_zone(request) or ""))


def profile_page(
    request: Request,
    form: ProfileForm | None = None,
    token_form: TokenForm | None = None,
    secret: str = "",
    hub_form: HubTokenForm | None = None,
) -> HttpResponse:
    context = {
        "form_token": uuid4(),
        "form": form or profile_form(request),
        "token_form": token_form or TokenForm(),
        "tokens": tokens.tokens_of(request.user),
        "secret": secret,
        "hub_form": hub_form or HubTokenForm(),
        "has_hub_token": HubToken.objects.filter(user=request.user).exists(),
        "has_mfa": is_mfa_enabled(request.user),
        "memberships": request.user.memberships.select_related("project"),
    }
    return render(request, "accounts/profile.html", context)


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: Request) -> HttpResponse:
    form = profile_form(request, request.POST or None)
    if request.method == "POST" and form.is_valid():
        services.change_profile(user=request.user, **form.cleaned_data)
        messages.success(request, "Saved.")
        return redirect("profile")
    return profile_page(request, form)


@signed_in
@require_GET
def signed_in_again(request: Request) -> HttpResponse:
    """Where a sign-in ends that was made in a window of its own, beside one with unsent work."""
    return render(request, "accounts/signed_in_again.html")


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("secret")
def token_new(request: Request) -> HttpResponse:
    """Answers with the page itself, not with a redirect: the token is shown this once and kept nowhere.

    Who signed in longer ago is asked for the password first; what was typed is then taken up again.
    """
    if request.method != "POST":
        return redirect("profile")
    if not signed_in_lately(request):
        raise ReauthenticationRequired
    form = TokenForm(request.POST)
    if not form.is_valid():
        return profile_page(request, token_form=form)
    sent = read_text(request.POST, "form_token")
    if sent and sent == request.session.get("token_form"):  # a reload sends the form again
        messages.warning(request, "This token was made before. If you did not copy it, revoke it and make another.")
        return redirect("profile")
    _, secret = tokens.create_api_token(user=request.user, **form.arguments())
    request.session["token_form"] = sent
    response = profile_page(request, secret=secret)
    response["Cache-Control"] = "no-store"
    return response


def signed_in_lately(request: Request) -> bool:
    """Whether the person gave a password or a second factor in the last minutes."""
    records = get_authentication_records(request, request.user)
    return any(time.time() - record["at"] < settings.ACCOUNT_REAUTHENTICATION_TIMEOUT for record in records)


@signed_in
@require_POST
def token_revoke(request: Request, digest: str) -> HttpResponse:
    tokens.revoke_api_token(user=request.user, digest=digest)
    messages.success(request, "The token does not work anymore.")
    return redirect("profile")


@sensitive_post_parameters("token")
@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def hub_token(request: Request) -> HttpResponse:
    if request.method != "POST":
        return redirect("profile")
    form = HubTokenForm(request.POST)
    if form.is_valid():
        try:
            checked = hub.set_hub_token(user=request.user, token=form.cleaned_data["token"])
        except BadInput as error:
            form.add_error("token", error.message.removeprefix("token: "))
        else:
            message = "Stored; the hub knows it." if checked else "Stored. The hub could not be asked whether it works."
            messages.success(request, message)
            return redirect("profile")
    return profile_page(request, hub_form=form)


@signed_in
@require_POST
def hub_token_remove(request: Request) -> HttpResponse:
    hub.remove_hub_token(user=request.user)
    messages.success(request, "Your token of the hub is removed.")
    return redirect("profile")


class EmailAddresses(EmailView):
    """allauth's page of a person's addresses; an address with which somebody else signs in cannot become one's own."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        chosen = read_text(request.POST, "email").strip()
        if User.objects.filter(email__iexact=chosen).exclude(pk=request.user.pk).exists():
            messages.error(request, f"{chosen} belongs to another account. Choose an address that only you use.")
            return redirect("account_email")
        response: HttpResponseBase = super().post(request, *args, **kwargs)
        return response
