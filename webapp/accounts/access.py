"""Permissions: one table of who may do what, and the decorators by which every view names what it needs.

    @requires("runs.view")                # the view's URL has <slug:slug>: the project is fetched and passed on
    def run_list(request, project): ...

    @requires("runs.view", Run.objects)   # the URL has <int:pk>: the run is fetched, its project checked
    def run_detail(request, run): ...

    @signed_in                            # any person with an account
    @public                               # anybody
    @superuser                            # whoever runs the installation

A stranger to a project gets 404, a member whose role does not suffice gets 403, and nobody gets the login page. Each
decorator leaves its word in the view's `permission` attribute, from which the test that walks every URL as every role
knows what to expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, wraps
from inspect import signature
from typing import Any, Final, TypeVar

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponseBase

from webapp.accounts.models import Membership, Project, Role, User
from webapp.errors import NotAllowed, NotFound

OWNER, MANAGER, ANNOTATOR, TESTER = Role.OWNER, Role.MANAGER, Role.ANNOTATOR, Role.TESTER
GONE: Final = "There is no such page, or it belongs to a project you are not a member of."
EVERY: Final = frozenset({OWNER, MANAGER, ANNOTATOR, TESTER})
MANAGERS: Final = frozenset({OWNER, MANAGER})

ROLES: Final[dict[str, frozenset[Role]]] = {
    "project.view": EVERY,
    "project.manage": MANAGERS,  # settings, guidelines, members, invitations
    "project.own": frozenset({OWNER}),  # archive, make owners
    "label": frozenset({OWNER, MANAGER, ANNOTATOR}),
    "data.view": MANAGERS,
    "data.manage": MANAGERS,  # import, snapshots, withdraw
    "runs.view": MANAGERS,
    "runs.manage": MANAGERS,
    "models.view": MANAGERS,
    "models.deploy": MANAGERS,
    "chat": EVERY,
}

# What a token must be for, where one is used: the scope of each permission.
SCOPES: Final[dict[str, str]] = {
    "signed_in": "read",
    "project.view": "read",
    "project.manage": "manage",
    "project.own": "manage",
    "label": "label",
    "data.view": "read",
    "data.manage": "manage",
    "runs.view": "read",
    "runs.manage": "manage",
    "models.view": "read",
    "models.deploy": "manage",
    "chat": "chat",
}

View = Callable[..., HttpResponseBase]
AnyView = TypeVar("AnyView", bound=Callable[..., Any])  # async ones too


def role_of(user: User | AnonymousUser, project: Project) -> Role | None:
    """The person's role in the project; whoever runs the installation counts as an owner everywhere."""
    if not isinstance(user, User) or not user.is_active:
        return None
    if user.is_superuser:
        return Role.OWNER
    role = Membership.objects.filter(project=project, user=user).values_list("role", flat=True).first()
    return Role(role) if role else None


def may(user: User | AnonymousUser, permission: str, project: Project) -> bool:
    return role_of(user, project) in ROLES[permission]


def allow(user: User | AnonymousUser, permission: str, project: Project) -> None:
    """Raise NotFound for a stranger to the project, NotAllowed for a member whose role does not suffice."""
    role = role_of(user, project)
    if role is None:
        raise NotFound(GONE)
    if role not in ROLES[permission]:
        raise NotAllowed(
            f"Your role here is {role.label.lower()}, which does not include this. Ask a manager of {project.name}."
        )


def project_for(user: User | AnonymousUser, slug: str, permission: str) -> Project:
    """The project of this slug, for a person who has the permission in it."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise NotFound(GONE)
    allow(user, permission, project)
    return project


def requires(permission: str, find: Any = None) -> Callable[[View], View]:
    """Sign-in, and `permission` in a project; the view gets what was found in place of what the URL named.

    find: nothing, for the project that the URL's slug names; a manager or query set, for the row that its pk names; or
    a function of the person and of names in the URL. It returns an object with a `project`, or raises NotFound.
    """
    assert permission in ROLES, permission  # noqa: S101 (a misspelled permission must not pass silently)
    finder: Callable[..., Any] = find if callable(find) else partial(row_by_pk, find)
    names = list(signature(finder).parameters)[1:]

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if find is None:
                project = project_for(request.user, kwargs.pop("slug"), permission)
                visit(request, project)
                return view(request, *args, project=project, **kwargs)
            found = finder(request.user, **{name: kwargs.pop(name) for name in names})
            allow(request.user, permission, found.project)
            visit(request, found.project)
            return view(request, found, *args, **kwargs)

        return declare(login_required(checked), permission)

    return decorate


def row_by_pk(rows: Any, user: User, pk: int) -> Any:  # noqa: ARG001 (a finder gets the person)
    row = rows.filter(pk=pk).first()
    if row is None:
        raise NotFound(GONE)
    return row


def visit(request: HttpRequest, project: Project) -> None:
    if request.method == "GET":
        remember_project(request, project)


def remember_project(request: HttpRequest, project: Project) -> None:
    """For the pages that are of no project in particular. A session that says so already is not written again."""
    if request.session.get("project") != project.slug:
        request.session["project"] = project.slug


def last_project(request: HttpRequest, projects: Iterable[Project]) -> Project | None:
    """Of the person's projects the one that they visited last, else the first."""
    listed = list(projects)
    slug = request.session.get("project")
    return next((project for project in listed if project.slug == slug), listed[0] if listed else None)


def declares(permission: str) -> Callable[[AnyView], AnyView]:
    """Sign-in; for views that cannot fetch before they run, as those that stream. They call `allow` themselves."""
    assert permission in ROLES, permission  # noqa: S101

    def decorate(view: AnyView) -> AnyView:
        return declare(login_required(view), permission)

    return decorate


def signed_in(view: View) -> View:
    return declare(login_required(view), "signed_in")


def public(view: View) -> View:
    return declare(view, "public")


def superuser(view: View) -> View:
    """Only whoever runs the installation."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_superuser:
            raise NotAllowed("Only the person who runs this installation can do that.")
        return view(request, *args, **kwargs)

    return declare(login_required(checked), "superuser")


def declare(view: AnyView, permission: str) -> AnyView:
    view.permission = permission  # type: ignore[attr-defined]
    return view
