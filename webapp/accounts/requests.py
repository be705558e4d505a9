"""What a view that needs a sign-in gets: a request whose user is a person. For type checkers; nothing makes one."""

from __future__ import annotations

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails

from webapp.accounts.models import User


class Request(HttpRequest):
    user: User
    htmx: HtmxDetails
