"""Judges, and what they are asked."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts.models import Project
from webapp.api.base import Endpoint, ProjectEndpoint, paged
from webapp.api.serializers import Id
from webapp.api.views.runs import row_of_project
from webapp.errors import BadInput
from webapp.judges import jobs, services
from webapp.judges.items import MAX_SAMPLE
from webapp.judges.models import Judge, JudgeJob
from webapp.judges.selectors import usage
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run

MAX_TEXT: Final = 100_000
JUDGES = Judge.objects.select_related("project", "own_model__project")
JOBS = JudgeJob.objects.select_related("judge__project", "run")


class JudgeSerializer(serializers.ModelSerializer[Judge]):
    """`has_key`: the key itself is never given out. `cost`: dollars, of all its calls."""

    has_key = serializers.SerializerMethodField()
    cost = serializers.SerializerMethodField()

    class Meta:
        model = Judge
        fields = ("id", *services.SETTINGS, "has_key", "cost", "created_at", "archived_at")
        read_only_fields = fields

    def get_has_key(self, judge: Judge) -> bool:
        return bool(judge.encrypted_key)

    def get_cost(self, judge: Judge) -> float:
        return usage(judge.calls.all()).cost


class JudgeJobSerializer(serializers.ModelSerializer[JudgeJob]):
    """`answered` of `total` questions. `result`: shares and means as {"value", "low", "high", "n"}."""

    cost = serializers.SerializerMethodField()
    result = serializers.DictField(read_only=True)

    class Meta:
        model = JudgeJob
        fields = (
            "id", "judge", "kind", "run", "state", "total", "answered", "note", "wait_until", "error", "result", "cost",
            "created_at", "finished_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_cost(self, job: JudgeJob) -> float:
        return usage(job.calls.all()).cost


class NewJudge(serializers.Serializer[Any]):
    """Either `own_model`, or `address` and `model`. A `key` is stored encrypted."""

    name = serializers.CharField(max_length=100)
    mode = serializers.ChoiceField(choices=Judge.Mode.choices, default=Judge.Mode.PAIRWISE)
    own_model = Id(required=False, allow_null=True, default=None)
    address = serializers.CharField(default="", allow_blank=True, max_length=500)
    model = serializers.CharField(default="", allow_blank=True, max_length=200)
    key = serializers.CharField(default="", allow_blank=True, max_length=1000)
    reads_chats = serializers.BooleanField(default=False)
    rubric = serializers.CharField(default="", allow_blank=True, max_length=MAX_TEXT)
    price_in = serializers.FloatField(default=None, allow_null=True, min_value=0, max_value=1e6)
    price_out = serializers.FloatField(default=None, allow_null=True, min_value=0, max_value=1e6)
    spending_limit = serializers.FloatField(default=None, allow_null=True, min_value=0, max_value=1e9)
    parallel = serializers.IntegerField(default=4, min_value=1, max_value=services.MAX_PARALLEL)
    timeout = serializers.IntegerField(default=120, min_value=1, max_value=3600)
    max_tokens = serializers.IntegerField(default=1024, min_value=16, max_value=65_536)


class NewJudgeJob(serializers.Serializer[Any]):
    """try: `prompt` and `replies`. compare: `run`, an evaluate run that kept its replies. agreement: `size`."""

    kind = serializers.ChoiceField(choices=["try", "compare", "agreement"])
    prompt = serializers.CharField(default="", allow_blank=True, max_length=MAX_TEXT)
    replies = serializers.ListField(child=serializers.CharField(max_length=MAX_TEXT), default=list, max_length=2)
    run = Id(required=False, allow_null=True, default=None)
    size = serializers.IntegerField(default=100, min_value=1, max_value=MAX_SAMPLE)


class Judges(ProjectEndpoint):
    needs = {"GET": "models.view", "POST": "runs.manage"}

    @paged(JudgeSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Judges, newest first, archived ones too."""
        return self.page(JUDGES.filter(project=self.project), JudgeSerializer)

    @extend_schema(request=NewJudge, responses={201: JudgeSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Add a judge."""
        fields = with_own_model(self.project, self.body(NewJudge))
        judge = services.add_judge(project=self.project, by=self.person, **fields)
        return Response(JudgeSerializer(judge).data, status=201)


def with_own_model(project: Project, fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"own_model": row_of_project(ModelVersion.objects, project, fields["own_model"], "own_model")}


class JudgeDetail(Endpoint):
    needs = {"GET": "models.view", "PUT": "runs.manage", "DELETE": "runs.manage"}

    @extend_schema(responses=JudgeSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """A judge and what it has cost."""
        return Response(JudgeSerializer(self.fetch(JUDGES, pk)).data)

    @extend_schema(request=NewJudge, responses=JudgeSerializer)
    def put(self, request: Request, pk: int) -> Response:
        """Change all settings. An empty key keeps the one that is stored, unless the address changes."""
        judge = self.fetch(JUDGES, pk)
        fields = with_own_model(judge.project, self.body(NewJudge))
        fields["key"] = fields["key"] or None
        return Response(JudgeSerializer(services.change_judge(judge=judge, **fields)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Archive it. Its answers and figures are kept."""
        services.archive_judge(judge=self.fetch(JUDGES, pk))
        return Response(status=204)


class JudgeJobs(Endpoint):
    needs = {"GET": "models.view", "POST": "runs.manage"}

    @paged(JudgeJobSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """What the judge was asked, newest first."""
        return self.page(JOBS.filter(judge=self.fetch(JUDGES, pk)), JudgeJobSerializer)

    @extend_schema(request=NewJudgeJob, responses={201: JudgeJobSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Have a pair judged, two models compared, or the agreement with people measured."""
        judge, fields = self.fetch(JUDGES, pk), self.body(NewJudgeJob)
        if fields["kind"] == "try":
            job = services.start_try(judge=judge, by=self.person, prompt=fields["prompt"], replies=fields["replies"])
        elif fields["kind"] == "agreement":
            job = services.start_agreement(judge=judge, by=self.person, size=fields["size"])
        else:
            run = row_of_project(Run.objects, judge.project, fields["run"], "run")
            if not isinstance(run, Run):
                raise BadInput("run: name the evaluate run whose replies to judge.", field="run")
            job = services.start_comparison(judge=judge, by=self.person, run=run)
        return Response(JudgeJobSerializer(job).data, status=201)


class JudgeJobDetail(Endpoint):
    needs = {"GET": "models.view"}

    @extend_schema(responses=JudgeJobSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """How far it is, and its result."""
        return Response(JudgeJobSerializer(self.fetch(JOBS, pk)).data)


class StopJudgeJob(Endpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=None, responses=JudgeJobSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Stop when the answers under way are there."""
        jobs.request_stop(self.fetch(JOBS, pk))
        return Response(JudgeJobSerializer(JOBS.get(pk=pk)).data)


class ContinueJudgeJob(Endpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=None, responses=JudgeJobSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Go on with what was stopped or failed; nothing that is answered is asked again."""
        jobs.go_on_with(self.fetch(JOBS, pk), by=self.person)
        return Response(JudgeJobSerializer(JOBS.get(pk=pk)).data)
