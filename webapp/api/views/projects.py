"""Projects and their prompts and labels."""

from __future__ import annotations

from itertools import zip_longest

from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from annotations.models import Prompt
from annotations.services import prompts as prompt_services
from webapp.accounts.models import Project
from webapp.accounts.selectors import projects_of
from webapp.api.base import Endpoint, ProjectEndpoint, paged
from webapp.api.serializers import (
    CheckedPromptSerializer,
    DemonstrationSerializer,
    JudgmentSerializer,
    NewPrompts,
    ProjectSerializer,
    RankingSerializer,
)
from webapp.data import selectors
from webapp.data.exports.response import exported
from webapp.data.exports.selection import STATES
from webapp.errors import BadInput


class Projects(Endpoint):
    needs = {"GET": "signed_in"}

    @paged(ProjectSerializer)
    def get(self, request: Request) -> Response:
        """The projects you are a member of."""
        rows: QuerySet[Project] = projects_of(self.person)
        return self.page(rows, ProjectSerializer)


class ProjectDetail(ProjectEndpoint):
    needs = {"GET": "project.view"}

    @extend_schema(responses=ProjectSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """One project and its settings."""
        return Response(ProjectSerializer(self.project).data)


class Prompts(ProjectEndpoint):
    needs = {"GET": "data.view", "POST": "data.manage"}

    @paged(CheckedPromptSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Prompts, newest first. Filters: q, split, source, state (live, withdrawn)."""
        return self.page(selectors.prompts(self.project, request.query_params), CheckedPromptSerializer)

    @extend_schema(request=NewPrompts, responses={201: CheckedPromptSerializer(many=True)})
    def post(self, request: Request, slug: str) -> Response:
        """Add prompts, all or none. A conversation that is there already is answered with the prompt there is; one that
        was withdrawn is refused (409) unless `restore` is set. Nobody is asked twice to reply to the same prompt."""
        fields = self.body(NewPrompts)
        for name in ("references", "data"):
            if fields[name] and len(fields[name]) != len(fields["conversations"]):
                raise BadInput(f"{name}: give one for each conversation, null where there is none.", field=name)
        checks = zip_longest(fields["references"], fields["data"])
        conversations = [[dict(turn) for turn in turns] for turns in fields["conversations"]]
        added = prompt_services.add_and_ask(
            project=self.project,
            conversations=conversations,
            source=Prompt.Source.API,
            by=self.person,
            open_tasks=fields["open_tasks"],
            restore=fields["restore"],
            source_ref="api",
            checks=[prompt_services.PromptCheck(*check) for check in checks],
        )
        return Response(CheckedPromptSerializer(added.prompts, many=True).data, status=201)


class Demonstrations(ProjectEndpoint):
    needs = {"GET": "data.view"}

    @paged(DemonstrationSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Demonstrations, newest first. Filters: q, state, author."""
        return self.page(selectors.demonstrations(self.project, request.query_params), DemonstrationSerializer)


class Judgments(ProjectEndpoint):
    needs = {"GET": "data.view"}

    @paged(JudgmentSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Judgments, newest first. Filters: q, state, author, verdict (good, bad)."""
        return self.page(selectors.judgments(self.project, request.query_params), JudgmentSerializer)


class Export(ProjectEndpoint):
    needs = {"GET": "data.view"}

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "as", OpenApiTypes.STR, description="format; tutelage (the default), csv, or one of TRL's"
            ),
            OpenApiParameter("split", OpenApiTypes.STR, enum=Prompt.Split.values),
            OpenApiParameter("state", OpenApiTypes.STR, enum=list(STATES)),
            OpenApiParameter("author", OpenApiTypes.INT, description="the id of whoever labeled"),
            OpenApiParameter("since", OpenApiTypes.DATE),
        ],
        responses={(200, "application/jsonl"): OpenApiTypes.STR},
    )
    def get(self, request: Request, slug: str, kind: str) -> HttpResponseBase:
        """All rows of a kind as a file: prompts, demonstrations, rankings, judgments or text."""
        return exported(request._request, self.project, kind)


class Rankings(ProjectEndpoint):
    needs = {"GET": "data.view"}

    @paged(RankingSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Rankings, newest first. Filters: q, state, author."""
        return self.page(selectors.rankings(self.project, request.query_params), RankingSerializer)
