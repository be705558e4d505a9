"""The sample project's people: one to look around with for each role, and the simulated annotators."""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from django.contrib.auth.hashers import make_password
from django.db import transaction

from webapp.accounts.memberships import accept_invitation, invite
from webapp.accounts.models import Project, Role, User
from webapp.demo.annotators import ANNOTATORS
from webapp.errors import Conflict

DOMAIN: Final = "sample.example"
ADMIN, ANNOTATOR, USER = "admin", "annotator", "user"
ROLES: Final = {ADMIN: Role.OWNER, ANNOTATOR: Role.ANNOTATOR, USER: Role.TESTER}


class Login(NamedTuple):
    """How to sign in as one of the sample people."""

    role: str
    email: str
    password: str


def address(name: str) -> str:
    """The sample person's email address."""
    return f"{name.lower()}@{DOMAIN}"


def sample_user(name: str) -> User:
    """The sample person of this name, made when there is none. Without a password nobody can sign in as them."""
    email = address(name)
    display_name = f"Sample {name}" if name in ROLES else name
    # A worker may make the same person at this moment; whoever comes second takes the one that is there.
    user, _ = User.objects.get_or_create(
        email=email, defaults={"name": display_name, "simulated": True, "password": make_password(None)}
    )
    if not user.simulated:
        raise Conflict(f"{email} belongs to somebody who is not one of the sample people, so the sample cannot use it.")
    return user


def join_all(project: Project, admin: User) -> None:
    """Everybody becomes a member, by invitation as real people do."""
    role_of_address = {address(name): role for name, role in ROLES.items() if name != ADMIN}
    role_of_address |= {address(annotator.name): Role.ANNOTATOR for annotator in ANNOTATORS}
    for name in (ANNOTATOR, USER, *(annotator.name for annotator in ANNOTATORS)):
        user = sample_user(name)
        if not project.memberships.filter(user=user).exists():
            invitation, _ = invite(project=project, role=role_of_address[user.email], by=admin, email=user.email)
            accept_invitation(user=user, invitation=invitation)


@transaction.atomic
def new_logins() -> list[Login]:
    """Give the three people to look around with new passwords. They are said here once and kept only as hashes."""
    logins = []
    for name in ROLES:
        user = sample_user(name)
        password = secrets.token_urlsafe(9)
        user.set_password(password)
        user.save(update_fields=["password", "password_changed_at"])
        logins.append(Login(name, user.email, password))
    return logins
