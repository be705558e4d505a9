"""Links with which a person sets a new password, made for them by whoever runs the installation."""

from __future__ import annotations

import logging

from allauth.account.forms import default_token_generator
from allauth.account.utils import user_pk_to_url_str
from django.urls import reverse

from webapp.accounts.models import User
from webapp.errors import Conflict, NotAllowed

log = logging.getLogger(__name__)


def password_link(*, user: User, by: User | None) -> str:
    """The path of a page on which the person sets a new password, once.

    The link works for PASSWORD_RESET_TIMEOUT and ends when the password changes or the person signs in. `by` is the
    superuser who asks, none for the command line. A project's owner cannot make one: whoever holds the link can become
    that person, in every project and in their chats (docs/decisions/password-links.md).
    """
    if by is not None and not by.is_superuser:
        raise NotAllowed("Only the person who runs this installation can reset a password.")
    if not user.is_active:
        raise Conflict(f"The account of {user} is deactivated, so nobody can sign in with it.")
    log.info("password link made for person %s by %s", user.pk, by.pk if by else "the command line")
    key = f"{user_pk_to_url_str(user)}-{default_token_generator.make_token(user)}"
    uid, _, token = key.partition("-")
    return reverse("account_reset_password_from_key", kwargs={"uidb36": uid, "key": token})
