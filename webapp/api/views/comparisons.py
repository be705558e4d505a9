"""Blind comparisons of two models by people."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.api.base import Endpoint, ProjectEndpoint, paged
from webapp.api.serializers import Id
from webapp.api.views.runs import row_of_project
from webapp.comparisons import results, selectors, services
from webapp.comparisons.models import Comparison
from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run

MAX_TEXT: Final = 100_000
COMPARISONS = selectors.COMPARISONS


class ComparisonSerializer(serializers.ModelSerializer[Comparison]):
    """`given` of `wanted` judgments. `result`, once it is done or stopped: shares as {"value", "low", "high", "n"};
    `win_rate` is the model's."""

    model = serializers.IntegerField(source="run.base_id", read_only=True)
    baseline = serializers.IntegerField(source="run.baseline_id", read_only=True)
    state = serializers.SerializerMethodField()
    pairs = serializers.SerializerMethodField()
    wanted = serializers.SerializerMethodField()
    given = serializers.SerializerMethodField()
    result = serializers.SerializerMethodField()

    class Meta:
        model = Comparison
        fields = (
            "id", "run", "model", "baseline", "overlap", "for_training", "state", "pairs", "wanted", "given", "error",
            "result", "created_at", "opened_at", "stopped_at",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: Comparison) -> dict[str, Any]:
        self.progress = selectors.progress_of(instance)
        fields: dict[str, Any] = super().to_representation(instance)
        return fields

    def get_state(self, comparison: Comparison) -> str:
        return selectors.state_of(comparison).value

    def get_pairs(self, _: Comparison) -> int:
        return self.progress.pairs

    def get_wanted(self, _: Comparison) -> int:
        return self.progress.wanted

    def get_given(self, _: Comparison) -> int:
        return self.progress.given

    def get_result(self, comparison: Comparison) -> dict[str, Any]:
        return results.result_of(comparison) if selectors.has_ended(comparison) else {}


class NewComparison(serializers.Serializer[Any]):
    """Either `run`, an evaluate run with a baseline whose replies are judged; or `model` and `baseline`, which then
    reply to `prompts`: `number` held-out ones, `number` of all of the project's, or those in `typed`."""

    run = Id(required=False, allow_null=True, default=None)
    model = Id(required=False, allow_null=True, default=None)
    baseline = Id(required=False, allow_null=True, default=None)
    prompts = serializers.ChoiceField(
        choices=[services.HELDOUT, services.PROJECT, services.TYPED], default=services.HELDOUT
    )
    number = serializers.IntegerField(default=50, min_value=1, max_value=services.MAX_PAIRS)
    typed = serializers.ListField(
        child=serializers.CharField(max_length=MAX_TEXT), default=list, max_length=services.MAX_PAIRS
    )
    overlap = serializers.IntegerField(default=1, min_value=1, max_value=services.MAX_OVERLAP)
    for_training = serializers.BooleanField(default=False)


class Comparisons(ProjectEndpoint):
    needs = {"GET": "models.view", "POST": "runs.manage"}

    @paged(ComparisonSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Blind comparisons, newest first."""
        return self.page(selectors.comparisons_of(self.project), ComparisonSerializer)

    @extend_schema(request=NewComparison, responses={201: ComparisonSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Have people compare two models without knowing whose replies they see."""
        fields = self.body(NewComparison)
        run = row_of_project(Run.objects, self.project, fields.pop("run"), "run")
        if isinstance(run, Run):
            asking = {name: fields[name] for name in ("overlap", "for_training")}
            comparison = services.compare_run(run=run, by=self.person, **asking)
        else:
            for name in ("model", "baseline"):
                fields[name] = row_of_project(ModelVersion.objects, self.project, fields[name], name)
                if fields[name] is None:
                    raise BadInput(f"{name}: name a model of this project.", field=name)
            comparison = services.start_comparison(by=self.person, **fields)
        return Response(ComparisonSerializer(comparison).data, status=201)


class ComparisonDetail(Endpoint):
    needs = {"GET": "models.view"}

    @extend_schema(responses=ComparisonSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """How far it is, and its result."""
        return Response(ComparisonSerializer(self.fetch(COMPARISONS, pk)).data)


class StopComparison(Endpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=None, responses=ComparisonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Ask nobody anymore. What was said is kept."""
        services.stop_comparison(comparison=self.fetch(COMPARISONS, pk), by=self.person)
        return Response(ComparisonSerializer(COMPARISONS.get(pk=pk)).data)


class ContinueComparison(Endpoint):
    needs = {"POST": "runs.manage"}

    @extend_schema(request=None, responses=ComparisonSerializer)
    def post(self, request: Request, pk: int) -> Response:
        """Go on where it stopped."""
        services.continue_comparison(comparison=self.fetch(COMPARISONS, pk), by=self.person)
        return Response(ComparisonSerializer(COMPARISONS.get(pk=pk)).data)
