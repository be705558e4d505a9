"""A person's own page: name, security, API tokens."""

from __future__ import annotations

from typing import Any

from allauth.account.views import EmailView
from allauth.mfa.utils import is_mfa_enabled
from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts import selectors, services
from webapp.accounts.access import signed_in
from webapp.accounts.forms import ProfileForm, TokenForm
from webapp.accounts.models import User
from webapp.accounts.requests import Request
from webapp.accounts.zones import browser_zone


def profile_form(request: Request, data: QueryDict | None = None) -> ProfileForm:
    known = {"name": request.user.name, "time_zone": request.user.time_zone}
    return ProfileForm(data, initial=known, of_browser=str(browser_zone(request) or ""))


def profile_page(request: Request, form: ProfileForm | None = None, secret: str = "") -> HttpResponse:
    context = {
        "form": form or profile_form(request),
        "token_form": TokenForm(),
        "tokens": selectors.tokens_of(request.user),
        "secret": secret,
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
@require_POST
@sensitive_variables("secret")
def token_new(request: Request) -> HttpResponse:
    """Answers with the page itself, not with a redirect: the token is shown this once and kept nowhere."""
    form = TokenForm(request.POST)
    days = form.cleaned_data["days"] if form.is_valid() else 30
    _, secret = services.create_api_token(user=request.user, days=days)
    response = profile_page(request, secret=secret)
    response["Cache-Control"] = "no-store"
    return response


@signed_in
@require_POST
def token_revoke(request: Request, digest: str) -> HttpResponse:
    services.revoke_api_token(user=request.user, digest=digest)
    messages.success(request, "The token does not work any more.")
    return redirect("profile")


class EmailAddresses(EmailView):
    """allauth's page of a person's addresses; an address with which somebody else signs in cannot become one's own."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        chosen = request.POST.get("email", "").strip()
        if User.objects.filter(email__iexact=chosen).exclude(pk=request.user.pk).exists():
            messages.error(request, f"{chosen} belongs to another account. Choose an address that only you use.")
            return redirect("account_email")
        return super().post(request, *args, **kwargs)
