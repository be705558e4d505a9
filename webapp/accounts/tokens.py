"""API tokens: making, listing and ending them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from webapp.accounts.models import ApiToken, User
from webapp.errors import BadInput, NotFound
from webapp.text import clean_text

log = logging.getLogger(__name__)
MAX_TOKENS: Final = 50
MAX_DAYS: Final = 365
DEFAULT_DAYS: Final = 90


def tokens_of(user: User) -> QuerySet[ApiToken]:
    """The person's tokens that still work, newest first."""
    live: QuerySet[ApiToken] = ApiToken.objects.filter(
        Q(expiry=None) | Q(expiry__gt=timezone.now()),
        Q(user__password_changed_at=None) | Q(created__gte=F("user__password_changed_at")),
        user=user,
    )
    return live.order_by("-created")


@transaction.atomic
def create_api_token(
    *, user: User, name: str, scopes: Collection[str], days: int | None = DEFAULT_DAYS
) -> tuple[ApiToken, str]:
    """A token and its secret, which is shown once. It ends after `days`, or never where the operator allows none.

    Raises BadInput that names the field: no scope or an unknown one, no end or too late an end, too many tokens.
    """
    name = clean_text(name).strip()[:100]
    if not name:
        raise BadInput("name: say what the token is for.", field="name")
    if not scopes or not set(scopes) <= set(ApiToken.Scope.values):
        raise BadInput(f"scopes: choose among {', '.join(ApiToken.Scope.values)}.", field="scopes")
    if days is None and not settings.TOKENS_WITHOUT_END:
        raise BadInput("days: a token must end here. Choose when.", field="days")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise BadInput(f"days: choose from 1 to {MAX_DAYS} days.", field="days")
    if tokens_of(user).count() >= MAX_TOKENS:
        raise BadInput(f"You have {MAX_TOKENS} tokens. Revoke those that you no longer use.", field="name")
    ordered = [scope for scope in ApiToken.Scope.values if scope in scopes]
    end = None if days is None else timedelta(days=days)
    token, secret = ApiToken.objects.create(user=user, expiry=end, name=name, scopes=ordered)
    log.info("person %s made an API token for %s", user.pk, ", ".join(ordered))
    return token, secret


@transaction.atomic
def revoke_api_token(*, user: User, digest: str) -> None:
    if not ApiToken.objects.filter(user=user, digest=digest).delete()[0]:
        raise NotFound("This token is not there anymore.")
    log.info("person %s revoked an API token", user.pk)
