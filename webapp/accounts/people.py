"""Pages of whoever runs the installation: the people with accounts, and links for those who forgot their password."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts import selectors
from webapp.accounts.access import superuser
from webapp.accounts.models import User
from webapp.accounts.passwords import password_link
from webapp.accounts.requests import Request
from webapp.links import absolute
from webapp.params import read_text


def people_page(request: Request, person: User | None = None, link: str = "") -> HttpResponse:
    text = read_text(request.GET, "q")
    people = selectors.find_people(text)
    context = {
        "people": people[: selectors.MAX_PEOPLE],
        "total": people.count(),
        "q": text,
        "person": person,
        "link": link,
    }
    return render(request, "accounts/people.html", context)


@superuser
@require_GET
def list_people(request: Request) -> HttpResponse:
    return people_page(request)


@superuser
@require_POST
@sensitive_variables("link")
def person_password_link(request: Request, user_id: int) -> HttpResponse:
    """Answers with the page itself, not with a redirect: the link is shown here and kept nowhere."""
    person = get_object_or_404(User, pk=user_id)
    link = absolute(password_link(user=person, by=request.user))
    response = people_page(request, person, link)
    response["Cache-Control"] = "no-store"
    return response
