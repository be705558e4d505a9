"""Snapshots, runs, models and deployments."""

from __future__ import annotations

from io import BytesIO
from typing import Any, get_args

from django.db.models import Model, QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from training.contract import ChatTemplate
from webapp.accounts.access import allow
from webapp.accounts.models import Project
from webapp.api.base import Endpoint, ProjectEndpoint, paged
from webapp.api.parsers import BytesParser
from webapp.api.serializers import (
    DeploymentSerializer,
    ModelNeedsSerializer,
    ModelSerializer,
    ModelUploadSerializer,
    NewDeployment,
    NewModelUpload,
    NewRun,
    NewSnapshot,
    RunEventSerializer,
    RunSerializer,
    SnapshotSerializer,
    Why,
)
from webapp.datasets import services as dataset_services
from webapp.datasets.models import Snapshot
from webapp.errors import BadInput, NotFound
from webapp.params import read_choice, read_int, read_text
from webapp.registry import services as registry_services
from webapp.registry.models import Deployment, ModelVersion
from webapp.registry.selectors import default_share, models_of
from webapp.runs import selectors as run_selectors
from webapp.runs import services as run_services
from webapp.runs import uploads
from webapp.runs.additions import addition_of, file_in
from webapp.runs.models import ModelUpload, Run
from webapp.runs.outputs import output_download
from webapp.runs.stages import LAUNCHED


class Snapshots(ProjectEndpoint):
    needs = {"GET": "data.view", "POST": "data.manage"}

    @paged(SnapshotSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Snapshots, newest first."""
        return self.page(Snapshot.objects.filter(project=self.project), SnapshotSerializer)

    @extend_schema(request=NewSnapshot, responses={201: SnapshotSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Freeze the rows there are into a snapshot."""
        snapshot = dataset_services.create_snapshot(project=self.project, by=self.person, **self.body(NewSnapshot))
        return Response(SnapshotSerializer(snapshot).data, status=201)


class Runs(ProjectEndpoint):
    needs = {"GET": "runs.view", "POST": "runs.manage"}

    @paged(RunSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Runs, newest first. Filters: stage, state."""
        stage = read_choice(request.query_params, "stage", LAUNCHED)
        state = read_choice(request.query_params, "state", ["active", *Run.State.values])
        rows = run_selectors.runs_of(self.project, stage=stage, state=state)
        return self.page(rows, RunSerializer)

    @extend_schema(request=NewRun, responses={201: RunSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Launch a stage. It starts as soon as a training worker is free."""
        fields = self.body(NewRun)
        for name in ("base", "tokenizer", "reward", "baseline"):
            fields[name] = row_of_project(ModelVersion.objects, self.project, fields[name], name)
        fields["corpus_run"] = row_of_project(Run.objects, self.project, fields["corpus_run"], "corpus_run")
        fields["upload"] = row_of_project(ModelUpload.objects, self.project, fields["upload"], "upload")
        fields["snapshots"] = [
            row_of_project(Snapshot.objects, self.project, pk, "snapshots") for pk in fields["snapshots"]
        ]
        run = run_services.launch_run(project=self.project, by=self.person, **fields)
        return Response(RunSerializer(run).data, status=201)


def row_of_project(rows: Any, project: Project, pk: int | None, field: str) -> Model | None:
    """The project's own row of this id; none for none."""
    if pk is None:
        return None
    row: Model | None = rows.filter(project=project, pk=pk).first()
    if row is None:
        raise BadInput(f"{field}: there is no {pk} in this project.", field=field)
    return row


class RunEndpoint(Endpoint):
    def run_of(self, pk: int) -> Run:
        run: Run = self.fetch(Run.objects.select_related("project"), pk)
        return run


class RunDetail(RunEndpoint):
    needs = {"GET": "runs.view"}

    @extend_schema(responses=RunSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """A run: how far it is, and how it ended."""
        return Response(RunSerializer(self.run_of(pk)).data)


class RunMetrics(RunEndpoint):
    needs = {"GET": "runs.view"}

    @extend_schema(
        parameters=[OpenApiParameter("name", OpenApiTypes.STR, description="one metric; without it, the last of each")],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, pk: int) -> Response:
        """{"values": [[step, value], …]} of one metric, or {"last": {name: value}}."""
        run = self.run_of(pk)
        name = read_text(request.query_params, "name")
        if name:
            return Response({"name": name, "values": run_selectors.metric_series(run, name)})
        return Response({"last": run_selectors.last_metrics(run)})


class RunEvents(RunEndpoint):
    needs = {"GET": "runs.view"}

    @paged(RunEventSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Samples, warnings, checkpoints and the end, newest first."""
        rows: QuerySet[Any] = self.run_of(pk).events.all()
        return self.page(rows, RunEventSerializer)


class RunOutput(RunEndpoint):
    needs = {"GET": "runs.view"}

    @extend_schema(responses={(200, "application/jsonl"): OpenApiTypes.STR})
    def get(self, request: Request, pk: int, name: str) -> HttpResponseBase:
        """A file that the run left, such as samples.jsonl; `outputs` of the run names them."""
        return output_download(request._request, self.run_of(pk), name)


class StopRun(RunEndpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=None, responses=RunSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Ask it to write a checkpoint and stop."""
        run = self.run_of(pk)
        run_services.request_stop(run=run, by=self.person)
        return Response(RunSerializer(Run.objects.get(pk=pk)).data)


class ResumeRun(RunEndpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=None, responses=RunSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Go on from the last checkpoint."""
        run = self.run_of(pk)
        run_services.resume_run(run=run, by=self.person)
        return Response(RunSerializer(Run.objects.get(pk=pk)).data)


class ModelUploads(ProjectEndpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=NewModelUpload, responses={201: ModelUploadSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Announce a file with a model. Send its bytes in pieces, then launch `add` with `upload`."""
        upload = uploads.start_upload(project=self.project, by=self.person, **self.body(NewModelUpload))
        return Response(ModelUploadSerializer(upload).data, status=201)


class ModelUploadDetail(Endpoint):
    needs = {"GET": "runs.manage", "PUT": "runs.manage", "DELETE": "runs.manage"}
    parser_classes = (BytesParser,)

    def upload_of(self, pk: int) -> ModelUpload:
        upload: ModelUpload = self.fetch(ModelUpload.objects.select_related("project"), pk)
        return upload

    @extend_schema(responses=ModelUploadSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """How much of it is here, to go on after a lost connection."""
        return Response(ModelUploadSerializer(self.upload_of(pk)).data)

    @extend_schema(
        request={"application/octet-stream": OpenApiTypes.BINARY},
        parameters=[
            OpenApiParameter("offset", OpenApiTypes.INT64, required=True, description="the place of the first byte")
        ],
        responses=ModelUploadSerializer,
    )
    def put(self, request: Request, pk: int) -> Response:
        """Send the bytes from `offset` on. 409 says how many are here."""
        upload, offset = self.upload_of(pk), read_int(request.query_params, "offset", 0)
        content: Any = request.data if hasattr(request.data, "read") else BytesIO()
        return Response(ModelUploadSerializer(uploads.append_piece(upload=upload, offset=offset, content=content)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Delete it. Files that no run takes in are deleted after a week."""
        uploads.delete_upload(self.upload_of(pk))
        return Response(status=204)


class ModelNeeds(ProjectEndpoint):
    needs = {"GET": "runs.manage"}

    @extend_schema(
        parameters=[
            OpenApiParameter("base_name", OpenApiTypes.STR, description="a hub name, or a folder that is listed"),
            OpenApiParameter("revision", OpenApiTypes.STR),
            OpenApiParameter("chat_template", OpenApiTypes.STR, enum=get_args(ChatTemplate)),
            OpenApiParameter("upload", OpenApiTypes.INT64, description="a file that was sent"),
            OpenApiParameter("file_name", OpenApiTypes.STR, description="a file that is to be sent"),
            OpenApiParameter("file_bytes", OpenApiTypes.INT64),
        ],
        responses=ModelNeedsSerializer,
    )
    def get(self, request: Request, slug: str) -> Response:
        """What adding a model takes, before it starts: disk, memory and time."""
        query = request.query_params
        file = file_in(query)
        if (pk := read_int(query, "upload")) is not None:
            upload = self.fetch(ModelUpload.objects.filter(project=self.project), pk)
            file = (upload.name, upload.size)
        addition = addition_of(
            self.person,
            base_name=read_text(query, "base_name").strip(),
            revision=read_text(query, "revision").strip(),
            template=read_choice(query, "chat_template", get_args(ChatTemplate)) or "keep",
            file=file,
        )
        if addition is None:
            raise NotFound("How large this folder is, only the training worker finds out, when it starts.")
        return Response(ModelNeedsSerializer(addition).data)


class Models(ProjectEndpoint):
    needs = {"GET": "models.view"}

    @paged(ModelSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Models, newest first. Filters: kind; q, words of name, note, license, languages, tags, base, precision."""
        kind = read_choice(request.query_params, "kind", ModelVersion.Kind.values)
        search = read_text(request.query_params, "q")
        return self.page(models_of(self.project, kind=kind, search=search), ModelSerializer)


class ModelDetail(Endpoint):
    needs = {"GET": "models.view"}

    @extend_schema(responses=ModelSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """A model and its metrics."""
        return Response(ModelSerializer(self.fetch(ModelVersion.objects.select_related("project"), pk)).data)


class DeployModel(Endpoint):
    needs = {"POST": "models.deploy"}

    @extend_schema(request=NewDeployment, responses={201: DeploymentSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Make it answer a share of the project's chats."""
        model = self.fetch(ModelVersion.objects.select_related("project"), pk)
        fields = self.body(NewDeployment)
        fields["share"] = fields["share"] or default_share(model.project)
        if fields["sampling"]:
            allow(self.person, "project.manage", model.project)
        deployment = registry_services.deploy(project=model.project, model=model, by=self.person, **fields)
        return Response(DeploymentSerializer(deployment).data, status=201)


class Deployments(ProjectEndpoint):
    needs = {"GET": "models.view"}

    @paged(DeploymentSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Deployments, newest first."""
        return self.page(Deployment.objects.filter(project=self.project), DeploymentSerializer)


class RollBack(Endpoint):
    needs = {"POST": "models.deploy"}

    @extend_schema(request=Why, responses={200: DeploymentSerializer, 204: None})
    def post(self, request: Request, pk: int) -> Response:
        """End this deployment; the model before it is live again (204 if a canary ended)."""
        deployment = self.fetch(Deployment.objects.select_related("project"), pk)
        back = registry_services.roll_back(deployment=deployment, by=self.person, **self.body(Why))
        return Response(DeploymentSerializer(back).data) if back else Response(status=204)
