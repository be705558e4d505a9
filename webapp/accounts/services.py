"""Writes of people and projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone
from django.utils.text import slugify

from webapp.accounts.memberships import accept_invitation
from webapp.accounts.models import Consent, Guidelines, Invitation, Membership, Project, Role, User
from webapp.accounts.selectors import has_superuser
from webapp.accounts.validation import save_valid
from webapp.edits import EditConflict, same_value
from webapp.errors import BadInput, NotAllowed
from webapp.model_names import check_model_name
from webapp.text import clean_text

RESERVED_SLUGS: Final = {"new"}
FIRST_GUIDELINES: Final = """\
## What a good reply does
1. It is **correct**: no made-up facts, and it says so when it does not know.
2. It **follows the instruction**: the format, the length and the language that were asked for.
3. It is **concise**: everything needed, nothing more.
4. It is **polite**, also when it declines.
5. It **declines** what would harm somebody, and says why in a sentence.

## When you rank
Read every reply to its end. Put the one you would rather have received first. Tie replies that are equally good.
"""
SETTINGS: Final = frozenset(
    {"name", "description", "base_model", "system_prompt", "rank_overlap", "write_overlap", "review_overlap",
     "replies_to_rank", "temperature", "top_p", "max_new_tokens", "lease_minutes"}
)  # fmt: skip
FIRST_PERSON_LOCK: Final = 7_113_001  # an arbitrary number that no other lock of the site uses


# ------------------------------------------------------------------------------------------------------------- people


@transaction.atomic
def settle_new_person(*, user: User, invitation: Invitation | None) -> User:
    """Save a person who has just signed up: by invitation, or as the first one, who then runs the installation.

    However many sign up at once in a new installation, one is the first; the others are turned away. Nobody comes to
    run it by an invitation, not even where nobody does yet.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [FIRST_PERSON_LOCK])
    is_first = invitation is None and not has_superuser()
    if not is_first and invitation is None:
        raise NotAllowed("Someone else has just set up this installation. Ask them for an invitation link.")
    user.is_superuser = user.is_staff = is_first
    user.save()
    if invitation is not None:
        accept_invitation(user=user, invitation=invitation)
    return user


@transaction.atomic
def change_profile(*, user: User, name: str, time_zone: str) -> User:
    """`time_zone`: of the tz database; empty: the browser's."""
    user.name = clean_text(name).strip()
    user.time_zone = time_zone
    save_valid(user)
    return user


# ----------------------------------------------------------------------------------------------------------- projects


def free_slug(name: str) -> str:
    """The name as an address, with a number behind it where the plain one is taken."""
    base = slugify(name)[:50] or "project"
    taken_slugs = set(Project.objects.filter(slug__startswith=base).values_list("slug", flat=True)) | RESERVED_SLUGS
    return (
        base
        if base not in taken_slugs
        else next(s for n in range(2, 10_000) if (s := f"{base}-{n}") not in taken_slugs)
    )


@transaction.atomic
def create_project(
    *, user: User, name: str, description: str = "", guidelines: str = FIRST_GUIDELINES, **settings: Any
) -> Project:
    """A project that `user` owns, with the first version of its guidelines."""
    name = clean_text(name).strip()
    project = Project(name=name, slug=free_slug(name), description=clean_text(description), created_by=user, **settings)
    save_valid(project)
    Membership.objects.create(project=project, user=user, role=Role.OWNER)
    Guidelines.objects.create(project=project, version=1, text=clean_text(guidelines), created_by=user)
    return project


@transaction.atomic
def change_settings(
    *, project: Project, changes: Mapping[str, Any], began_from: Mapping[str, Any] | None = None
) -> Project:
    """Save what was changed, nothing else. Where `began_from` has the value that a change began from and another one
    stands now, raises EditConflict and saves nothing."""
    if unknown := set(changes) - SETTINGS:
        raise BadInput(f"There is no project setting called {', '.join(sorted(unknown))}.")
    if "base_model" in changes:
        check_model_name(str(changes["base_model"]).strip(), "base_model")
    current = Project.objects.select_for_update().get(pk=project.pk)
    clashes = {
        field: stands
        for field, before in (began_from or {}).items()
        if field in changes and not same_value(stands := getattr(current, field), before)
        if not same_value(stands, changes[field])
    }
    if clashes:
        raise EditConflict(clashes)
    for field, value in changes.items():
        setattr(current, field, clean_text(value) if isinstance(value, str) else value)
    save_valid(current)
    for field in changes:
        setattr(project, field, getattr(current, field))
    return project


@transaction.atomic
def set_guidelines(*, project: Project, text: str, user: User, began_from: int | None = None) -> Guidelines:
    """A new version; the newest one as it is where nothing has changed. Where the text began from another version than
    the newest, raises EditConflict and saves nothing."""
    Project.objects.select_for_update().get(pk=project.pk)
    text = clean_text(text).strip().replace("\r\n", "\n")
    if not text:
        raise BadInput("Guidelines cannot be empty: annotators would not know what to do.")
    newest = project.guidelines.order_by("-version").first()
    if newest is not None and newest.text.strip() == text:
        return newest
    if newest is not None and began_from not in (None, newest.version):
        raise EditConflict({"guidelines": newest.text})
    version = newest.version + 1 if newest else 1
    return Guidelines.objects.create(project=project, version=version, text=text, created_by=user)


@transaction.atomic
def archive_project(*, project: Project) -> Project:
    """Out of every list; nothing is deleted, and an owner can bring it back."""
    project.archived_at = project.archived_at or timezone.now()
    project.save(update_fields=["archived_at"])
    return project


@transaction.atomic
def restore_project(*, project: Project) -> Project:
    project.archived_at = None
    project.save(update_fields=["archived_at"])
    return project


# ------------------------------------------------------------------------------------------------------------ consent


@transaction.atomic
def grant_consent(*, user: User, project: Project, wording: str) -> Consent:
    """Note that the person agreed to `wording`; once, however often they say it."""
    Project.objects.select_for_update().get(pk=project.pk)
    standing = Consent.objects.filter(user=user, project=project, withdrawn_at=None, wording=wording).first()
    return standing or Consent.objects.create(user=user, project=project, wording=wording)


@transaction.atomic
def withdraw_consent(*, user: User, project: Project) -> None:
    Consent.objects.filter(user=user, project=project, withdrawn_at=None).update(withdrawn_at=timezone.now())
