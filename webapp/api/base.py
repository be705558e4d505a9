"""What every endpoint shares: the permission each method names, keyset pages, and validated bodies.

class RunList(ProjectEndpoint):
    needs = {"GET": "runs.view", "POST": "runs.manage"}

A URL with a slug has `self.project`, checked. An endpoint of an object fetches it with `self.fetch(rows, pk)`, which
checks the permission in the object's project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.views import APIView

from webapp.accounts.access import SCOPES, allow, declare, project_for, role_of
from webapp.accounts.authentication import check_scope
from webapp.accounts.models import Project, User
from webapp.api.wording import plain_errors
from webapp.data.selectors import page
from webapp.errors import BadInput, NotFound
from webapp.params import read_int

BEFORE = OpenApiParameter("before", OpenApiTypes.INT, description="`older` of the page before: ids below it")


class Endpoint(APIView):
    """One URL. `needs` names a permission for each method."""

    needs: ClassVar[dict[str, str]] = {}

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        for permission in cls.needs.values():
            assert permission in SCOPES, permission  # noqa: S101 (a misspelling)
        cls.http_method_names = [method.lower() for method in cls.needs] + ["options"]
        view = super().as_view(**initkwargs)
        return declare(view, next(iter(cls.needs.values())))

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        check_scope(request.auth, SCOPES[self.permission_needed()])

    def permission_needed(self) -> str:
        return self.needs.get(self.request.method or "GET", next(iter(self.needs.values())))

    @property
    def person(self) -> User:
        assert isinstance(self.request.user, User)  # noqa: S101 (the permission classes let nobody else in)
        return self.request.user

    def body(self, serializer: type[Serializer[Any]]) -> dict[str, Any]:
        """The request's body, validated."""
        if not isinstance(self.request.data, dict):
            raise BadInput("The body must be a JSON object.")
        request_body = serializer(data=self.request.data)
        if not request_body.is_valid():
            raise ValidationError(plain_errors(request_body.errors, request_body, self.request.data))
        return dict(request_body.validated_data)

    def fetch(
        self, rows: QuerySet[Any], pk: object, project: Callable[[Any], Project] = lambda row: row.project
    ) -> Any:
        """The row, for a person who has this method's permission in its project."""
        row = rows.filter(pk=pk).first()
        if row is None or role_of(self.person, project(row)) is None:
            raise NotFound("It does not exist, or you don't have access to it.")
        allow(self.person, self.needs[self.request.method or "GET"], project(row))
        return row

    def page(self, rows: QuerySet[Any], serializer: type[BaseSerializer[Any]]) -> Response:
        """{"results": […], "older": id or null}: newest first, fifty a page."""
        rows_page = page(rows, read_int(self.request.query_params, "before"))
        return Response({"results": serializer(rows_page.rows, many=True).data, "older": rows_page.older})


class ProjectEndpoint(Endpoint):
    """A URL whose slug names a project."""

    project: Project

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.project = project_for(request.user, kwargs["slug"], self.permission_needed())


def paged(serializer: type[Serializer[Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The schema of a method that answers with `Endpoint.page`."""
    name = serializer.__name__.removesuffix("Serializer") + "Page"
    fields = {"results": serializer(many=True), "older": serializers.IntegerField(allow_null=True)}
    operation = name[0].lower() + name[1:]
    return extend_schema(operation_id=operation, parameters=[BEFORE], responses=inline_serializer(name, fields))
