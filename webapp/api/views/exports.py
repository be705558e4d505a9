"""Exports: models as files that people take away."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from training.contract import SPECS
from webapp.api.base import Endpoint, paged
from webapp.registry.models import ModelVersion
from webapp.runs import services as run_services
from webapp.runs.exports import EXPORTS, expires_at, export_bytes, exports_of, remove_export
from webapp.runs.models import Run
from webapp.runs.outputs import archive_download, output_download

SETTINGS = SPECS["export"].settings.model_fields
ARCHIVE = {(status, "application/x-tar"): OpenApiTypes.BINARY for status in (200, 206)}
FILE_TYPES = ("application/octet-stream", "application/json", "text/markdown")
FILE = {(status, kind): OpenApiTypes.BINARY for status in (200, 206) for kind in FILE_TYPES}


class ModelExportSerializer(serializers.ModelSerializer[Run]):
    """`id` is that of its run, which has progress and can be stopped and resumed. `bytes` is what its files take, and
    `expires_at` when they go."""

    model = serializers.IntegerField(source="base_id", allow_null=True)
    format = serializers.CharField(source="config.format", read_only=True)
    checks = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    bytes = serializers.SerializerMethodField()
    expires_at = serializers.SerializerMethodField()
    hub = serializers.SerializerMethodField(help_text="the commit on the hub, if it was pushed")

    class Meta:
        model = Run
        fields = (
            "id", "model", "name", "format", "state", "step", "total", "phase", "error", "checks", "files", "bytes",
            "hub", "created_at", "finished_at", "expires_at", "outputs_removed_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_checks(self, run: Run) -> list[str]:
        return list(run.result.get("model", {}).get("checks", []))

    def get_files(self, run: Run) -> list[str]:
        return sorted(run.outputs)

    def get_bytes(self, run: Run) -> int:
        return export_bytes(run)

    def get_expires_at(self, run: Run) -> str | None:
        until = expires_at(run)
        return until.isoformat() if until else None

    def get_hub(self, run: Run) -> str:
        return str(run.result.get("model", {}).get("hub", ""))


class NewModelExport(serializers.Serializer[Any]):
    """As the settings of the stage `export` say."""

    format = serializers.CharField(default=SETTINGS["format"].default)
    name = serializers.CharField(default="", allow_blank=True)
    push_to = serializers.CharField(default="", allow_blank=True)
    public = serializers.BooleanField(default=False)


class ModelExports(Endpoint):
    needs = {"GET": "models.view", "POST": "runs.manage"}

    def model_of(self, pk: int) -> ModelVersion:
        model: ModelVersion = self.fetch(ModelVersion.objects.select_related("project"), pk)
        return model

    @paged(ModelExportSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Exports of a model, newest first."""
        model = self.model_of(pk)
        return self.page(exports_of(model.project, model), ModelExportSerializer)

    @extend_schema(request=NewModelExport, responses={201: ModelExportSerializer})
    def post(self, request: Request, pk: int) -> Response:
        """Export a model. A training worker writes the files and checks them."""
        model = self.model_of(pk)
        run = run_services.launch_run(
            project=model.project, stage="export", by=self.person, base=model, config=self.body(NewModelExport)
        )
        return Response(ModelExportSerializer(run).data, status=201)


class ModelExportDetail(Endpoint):
    needs = {"GET": "models.view", "DELETE": "runs.manage"}

    @extend_schema(responses=ModelExportSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """An export: how far it is, what was checked, its files."""
        return Response(ModelExportSerializer(self.fetch(EXPORTS, pk)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Delete its files."""
        remove_export(run=self.fetch(EXPORTS, pk), by=self.person)
        return Response(status=204)


class ModelExportArchive(Endpoint):
    needs = {"GET": "models.view"}

    @extend_schema(responses=ARCHIVE)
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        """All its files as one tar archive. Takes Range and If-Range."""
        return archive_download(request._request, self.fetch(EXPORTS, pk))


class ModelExportFile(Endpoint):
    needs = {"GET": "models.view"}

    @extend_schema(responses=FILE)
    def get(self, request: Request, pk: int, name: str) -> HttpResponseBase:
        """One of its files. Takes Range and If-Range."""
        return output_download(request._request, self.fetch(EXPORTS, pk), name)
