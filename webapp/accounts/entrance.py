"""The forms by which people come in."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import SignupForm
from allauth.core import context
from django import forms
from django.utils.crypto import constant_time_compare

from webapp.accounts.adapter import pending_invitation
from webapp.setup_code import is_reachable, setup_code

FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED", "HTTP_VIA")


def needs_setup_code() -> bool:
    """Whether the first account needs the code: unless the request comes from this very machine, without a proxy."""
    return is_reachable() or any(name in context.request.META for name in FORWARDED)


class SignUpForm(SignupForm):
    """With the address that the invitation names; the first account of an installation with the setup code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        invitation = pending_invitation(context.request)
        if invitation is not None and invitation.email:
            self.initial["email"] = invitation.email
            self.fields["email"].widget.attrs["readonly"] = True
        if invitation is None and needs_setup_code():
            self.fields["setup_code"] = forms.CharField(
                label="Setup code",
                max_length=50,
                initial=context.request.GET.get("code", "")[:50],
                help_text="The site printed a link with this code when it started. "
                "Run `manage.py setup_code` to see it again.",
                widget=forms.TextInput(attrs={"autocomplete": "off"}),
            )

    def clean_setup_code(self) -> str:
        code = str(self.cleaned_data["setup_code"]).strip().lower()
        if not constant_time_compare(code, setup_code()):
            raise forms.ValidationError(
                "This is not the setup code. Copy the whole link that `manage.py setup_code` prints."
            )
        return code
