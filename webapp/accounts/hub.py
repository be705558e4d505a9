"""A person's token of the Hugging Face hub: for models that the hub gives only to some people."""

from __future__ import annotations

import logging
import os
from typing import Final

import httpx
from django.db import transaction
from django.views.decorators.debug import sensitive_variables

from webapp.accounts.models import HubToken, User
from webapp.encryption import decrypt, encrypt
from webapp.errors import BadInput

log = logging.getLogger(__name__)
PURPOSE: Final = "hub"
SECONDS: Final = 5.0  # that the hub has to answer


@sensitive_variables()
def hub_token(person: User) -> str:
    """The person's token; empty if there is none, or if the account is deactivated. It goes to a run in the
    environment of its process, and nowhere else.

    Raises Conflict if SECRET_KEY is not the one that it was stored under.
    """
    stored = HubToken.objects.filter(user=person, user__is_active=True).first()
    return decrypt(stored.encrypted, purpose=PURPOSE) if stored else ""


@sensitive_variables()
def set_hub_token(*, user: User, token: str) -> bool:
    """Store the token, encrypted, in place of an earlier one. False if the hub could not be asked whether it works.

    Raises BadInput if the text is no token, or if the hub does not know it.
    """
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token or not 8 <= len(token) <= 500:
        raise BadInput("token: this is not a token of the hub. They begin with hf_.", field="token")
    recognized = is_known(token)
    if recognized is False:
        raise BadInput("token: the hub does not know this token. Copy it again, or make a new one.", field="token")
    with transaction.atomic():
        HubToken.objects.update_or_create(user=user, defaults={"encrypted": encrypt(token, purpose=PURPOSE)})
    log.info("person %s stored a token of the hub", user.pk)
    return recognized is True


@transaction.atomic
def remove_hub_token(*, user: User) -> None:
    HubToken.objects.filter(user=user).delete()
    log.info("person %s removed the token of the hub", user.pk)


@sensitive_variables()
def is_known(token: str) -> bool | None:
    """Whether the hub knows the token; None if it cannot be asked."""
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        answer = httpx.get(
            f"{hub.rstrip('/')}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS
        )
    except httpx.HTTPError as error:
        log.info("the hub could not be asked about a token: %s", type(error).__name__)
        return None
    if answer.status_code == 401:
        return False
    return True if answer.is_success else None
