"""What management commands that work on a project share."""

from __future__ import annotations

from django.core.management.base import CommandError, CommandParser
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from webapp.accounts.access import MANAGERS
from webapp.accounts.models import Project, User


def add_project_argument(parser: CommandParser) -> None:
    parser.add_argument("project", help="the project's short name, as in its address")


def add_person_argument(parser: CommandParser) -> None:
    parser.add_argument("--by", default="", metavar="EMAIL", help="on whose behalf; default: the project's first owner")


def refuse_old_database() -> None:
    """The site brings its database up to date as it starts; a command alone does not."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CommandError("The database is of another version of Tutelage. Start the site once: manage.py up.")


def project_named(slug: str) -> Project:
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        slugs = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)[:20]) or "there is none yet"
        raise CommandError(f"There is no project {slug}. Projects: {slugs}.")
    return project


def manager_of(project: Project, email: str) -> User:
    """The manager of the project with this address, on whose behalf a command works; without one, its first owner."""
    members = User.objects.filter(memberships__project=project, memberships__role__in=MANAGERS)
    if not email:
        owner = members.order_by("-memberships__role", "memberships__id").first()
        return owner or project.created_by
    person = (
        members.filter(email=email.lower()).first()
        or User.objects.filter(email=email.lower(), is_superuser=True).first()
    )
    if person is None:
        raise CommandError(f"{email} is not an owner or manager of {project.name}.")
    return person
