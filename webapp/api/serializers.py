"""What the API takes and gives. Reading is by model; every body that writes is written out.

Over 300 lines: every body of the API is found in one place.
"""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers

from annotations.models import Demonstration, Flag, Judgment, Prompt, Ranking, Response, Review, Task
from annotations.selectors import replies_shown
from training.contract import read_recipes
from webapp.accounts.models import ApiToken, Project
from webapp.api.wording import OURS
from webapp.datasets.models import Snapshot
from webapp.datasets.services.snapshots import MAX_CORPORA, MAX_IDS
from webapp.params import MAX_BIGINT, parse_int
from webapp.registry.models import Deployment, ModelVersion
from webapp.runs.additions import Addition
from webapp.runs.models import ModelUpload, Run, RunEvent
from webapp.runs.stages import LAUNCHED
from webapp.runs.uploads import PIECE_BYTES

MAX_TEXT: Final = 100_000  # characters
MAX_TURNS: Final = 1000
MAX_PROMPTS: Final = 10_000
MAX_RESPONSES: Final = 100
MAX_ACTIVE_SECONDS: Final = 86_400

# ------------------------------------------------------------------------------------------------------------- giving


class ProjectSerializer(serializers.ModelSerializer[Project]):
    class Meta:
        model = Project
        fields = (
            "slug", "name", "description", "base_model", "system_prompt", "rank_overlap", "write_overlap",
            "review_overlap", "replies_to_rank", "temperature", "top_p", "max_new_tokens", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class PromptSerializer(serializers.ModelSerializer[Prompt]):
    class Meta:
        model = Prompt
        fields = ("id", "messages", "split", "source", "source_ref", "created_at", "withdrawn_at")
        read_only_fields = fields


class CheckedPromptSerializer(serializers.ModelSerializer[Prompt]):
    """A prompt with what rewards hold replies against, which annotators do not see."""

    class Meta:
        model = Prompt
        fields = (*PromptSerializer.Meta.fields, "reference", "data")
        read_only_fields = fields


class ResponseSerializer(serializers.ModelSerializer[Response]):
    class Meta:
        model = Response
        fields = ("id", "text")
        read_only_fields = fields


class DemonstrationSerializer(serializers.ModelSerializer[Demonstration]):
    text = serializers.CharField(source="response.text", read_only=True)

    class Meta:
        model = Demonstration
        fields = ("id", "task", "prompt", "author", "text", "state", "active_seconds", "created_at", "retracted_at")
        read_only_fields = fields


class RankingSerializer(serializers.ModelSerializer[Ranking]):
    class Meta:
        model = Ranking
        fields = (
            "id", "task", "prompt", "author", "groups", "order_shown", "strength", "ratings", "flags", "reason",
            "active_seconds", "created_at", "retracted_at",
        )  # fmt: skip
        read_only_fields = fields


class JudgmentSerializer(serializers.ModelSerializer[Judgment]):
    text = serializers.CharField(source="response.text", read_only=True)

    class Meta:
        model = Judgment
        fields = (
            "id", "task", "prompt", "author", "annotator", "text", "good", "weight", "active_seconds", "created_at",
            "retracted_at",
        )  # fmt: skip
        read_only_fields = fields


class ReviewSerializer(serializers.ModelSerializer[Review]):
    class Meta:
        model = Review
        fields = ("id", "task", "demonstration", "author", "verdict", "comment", "corrected", "created_at")
        read_only_fields = fields


class LeaseSerializer(serializers.Serializer[Any]):
    """A task in hand. `responses` stand in the order to show them in; who wrote them is left out. `guidelines` is the
    version that applies to it, which its label will name."""

    id = serializers.IntegerField()
    until = serializers.DateTimeField()
    outcome = serializers.CharField()
    task = serializers.IntegerField(source="task_id")
    kind = serializers.ChoiceField(choices=Task.Kind.choices, source="task.kind")
    prompt = PromptSerializer(source="task.prompt")
    guidelines = serializers.IntegerField(source="guidelines.version", allow_null=True, default=None)
    responses = serializers.SerializerMethodField()

    def get_responses(self, lease: Any) -> list[dict[str, Any]]:
        return [{"id": reply.pk, "text": reply.text} for reply in replies_shown(lease)]


class SnapshotSerializer(serializers.ModelSerializer[Snapshot]):
    class Meta:
        model = Snapshot
        fields = ("id", "kind", "name", "filters", "content_hash", "counts", "created_at")
        read_only_fields = fields


class RunSerializer(serializers.ModelSerializer[Run]):
    outputs = serializers.SerializerMethodField(help_text="names of the files it left, to be fetched by name")

    class Meta:
        model = Run
        fields = (
            "id", "number", "name", "stage", "state", "config", "proposed", "snapshots", "base", "base_name", "reward",
            "tokenizer", "baseline", "corpus_run", "output", "outputs", "step", "total", "phase", "eta", "attempts",
            "error", "result", "created_at", "started_at", "finished_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_outputs(self, run: Run) -> list[str]:
        return sorted(run.outputs)


class ModelUploadSerializer(serializers.ModelSerializer[ModelUpload]):
    """`received` bytes of `size` are here. Send the next ones, at most `piece_bytes` of them."""

    piece_bytes = serializers.SerializerMethodField()

    class Meta:
        model = ModelUpload
        fields = ("id", "name", "size", "received", "complete", "piece_bytes", "created_at")
        read_only_fields = fields

    def get_piece_bytes(self, _: ModelUpload) -> int:
        return PIECE_BYTES


class ModelNeedsSerializer(serializers.Serializer[Addition]):
    """Bytes, and seconds where models were added in this way before. `fits` is false if the disk or the memory that the
    training machine reported is too small."""

    fits = serializers.BooleanField()
    sentences = serializers.ListField(child=serializers.CharField())
    disk = serializers.IntegerField(help_text="that it takes on the training machine")
    disk_free = serializers.IntegerField(help_text="0: not known")
    memory = serializers.IntegerField(help_text="to load and check it")
    memory_there = serializers.IntegerField(help_text="0: not known")
    parameters = serializers.IntegerField(source="source.parameters", help_text="0: not known")
    seconds = serializers.FloatField(allow_null=True)


class RunEventSerializer(serializers.ModelSerializer[RunEvent]):
    class Meta:
        model = RunEvent
        fields = ("id", "type", "step", "time", "data")
        read_only_fields = fields


class ModelSerializer(serializers.ModelSerializer[ModelVersion]):
    served_name = serializers.CharField(read_only=True)

    class Meta:
        model = ModelVersion
        fields = (
            "id", "number", "name", "kind", "stage", "parent", "sha256", "parameters", "context", "facts", "metrics",
            "note", "served_name", "created_at", "archived_at",
        )  # fmt: skip
        read_only_fields = fields


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    class Meta:
        model = Deployment
        fields = ("id", "model", "state", "share", "since", "until", "why", "ended_why")
        read_only_fields = fields


class NewHubToken(serializers.Serializer[Any]):
    token = serializers.CharField(max_length=500, write_only=True)


class HubTokenState(serializers.Serializer[Any]):
    stored = serializers.BooleanField()
    known = serializers.BooleanField(allow_null=True, help_text="whether the hub knows it; null: it was not asked")


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """`id` names the token and opens nothing; `begins` is how the secret begins; `current` is the one in use."""

    id = serializers.CharField(source="digest", read_only=True)
    begins = serializers.SerializerMethodField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=ApiToken.Scope.choices), read_only=True)
    current = serializers.SerializerMethodField()

    class Meta:
        model = ApiToken
        fields = ("id", "begins", "name", "scopes", "created", "expiry", "last_used_at", "current")
        read_only_fields = fields

    def get_begins(self, token: ApiToken) -> str:
        return str(token.token_key[:8])

    def get_current(self, token: ApiToken) -> bool:
        used = self.context["request"].auth
        return isinstance(used, ApiToken) and used.digest == token.digest


# ------------------------------------------------------------------------------------------------------------- taking


class Id(serializers.IntegerField):
    """The key of a row."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_BIGINT, **options)


class ByResponse(serializers.DictField):
    """A value for each response, by its id."""

    def to_internal_value(self, data: Any) -> Any:
        values: dict[str, Any] = super().to_internal_value(data)
        ids = {key: parse_int(key, low=1) for key in values}
        if wrong := [key for key, pk in ids.items() if pk is None]:
            raise serializers.ValidationError(
                f"the keys are ids of responses, and “{wrong[0][:20]}” is not.", code=OURS
            )
        return {pk: values[key] for key, pk in ids.items() if pk is not None}


class TurnSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField(trim_whitespace=False, max_length=MAX_TEXT)


class NewPrompts(serializers.Serializer[Any]):
    """Conversations that end with the user's turn. `references` are right answers (text or other JSON) and `data`
    objects for rewards that check replies; one for each conversation. `open_tasks` asks annotators to reply to them;
    `restore` brings back those that were withdrawn."""

    conversations = serializers.ListField(
        child=serializers.ListField(child=TurnSerializer(), min_length=1, max_length=MAX_TURNS),
        min_length=1,
        max_length=MAX_PROMPTS,
    )
    references = serializers.ListField(
        child=serializers.JSONField(allow_null=True), required=False, default=list, max_length=MAX_PROMPTS
    )
    data = serializers.ListField(  # type: ignore[assignment]  # the metaclass takes fields out of the class
        child=serializers.DictField(allow_null=True), required=False, default=list, max_length=MAX_PROMPTS
    )
    open_tasks = serializers.BooleanField(default=False)
    restore = serializers.BooleanField(default=False)


class NextTask(serializers.Serializer[Any]):
    kinds = serializers.ListField(
        child=serializers.ChoiceField(choices=Task.Kind.choices), required=False, max_length=len(Task.Kind)
    )


class SkipTask(serializers.Serializer[Any]):
    reason = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)


class SubmissionSerializer(serializers.Serializer[Any]):
    """`token` is made by the caller: the same submission sent twice counts once."""

    token = serializers.UUIDField()
    active_seconds = serializers.FloatField(default=0.0, min_value=0, max_value=MAX_ACTIVE_SECONDS)


class NewDemonstration(SubmissionSerializer):
    text = serializers.CharField(trim_whitespace=False, max_length=MAX_TEXT)


class NewRanking(SubmissionSerializer):
    """`groups`: response ids, best group first; replies in one group are tied."""

    groups = serializers.ListField(
        child=serializers.ListField(child=Id(), min_length=1, max_length=MAX_RESPONSES),
        min_length=1,
        max_length=MAX_RESPONSES,
    )
    strength = serializers.FloatField(required=False, allow_null=True, default=None, min_value=0, max_value=3)
    ratings = ByResponse(child=serializers.IntegerField(min_value=1, max_value=7), default=dict)
    flags = ByResponse(child=serializers.ListField(child=serializers.ChoiceField(choices=Flag.choices)), default=dict)
    reason = serializers.CharField(allow_blank=True, default="", max_length=10_000)


class NewReview(SubmissionSerializer):
    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    text = serializers.CharField(allow_blank=True, default="", trim_whitespace=False, max_length=MAX_TEXT)
    comment = serializers.CharField(allow_blank=True, default="", max_length=10_000)


class SnapshotFilters(serializers.Serializer[Any]):
    """Which rows: `limit` and `heldout_limit` are the most of each split, `corpora` are for documents only."""

    split = serializers.ChoiceField(choices=["train", "heldout"], required=False)
    limit = serializers.IntegerField(min_value=0, max_value=MAX_BIGINT, required=False, allow_null=True)
    heldout_limit = serializers.IntegerField(min_value=0, max_value=MAX_BIGINT, required=False, allow_null=True)
    ids = serializers.ListField(child=Id(), required=False, max_length=MAX_IDS)
    corpora = serializers.ListField(child=Id(), required=False, max_length=MAX_CORPORA)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(data.keys() - self.fields.keys())):
            known_filters = ", ".join(self.fields)
            known_filters = serializers.ErrorDetail(f"there is no such filter; there are {known_filters}.", code=OURS)
            raise serializers.ValidationError({unknown[0][:100]: [known_filters]})
        return super().to_internal_value(data)


class NewSnapshot(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=Snapshot.Kind.choices)
    name = serializers.CharField(default="", allow_blank=True, max_length=100)
    filters = SnapshotFilters(default=dict)


class NewRun(serializers.Serializer[Any]):
    """`config` holds what differs from the recipe, from what is proposed for the model or from the stage's defaults;
    `proposed` of the run says which settings were proposed, and why. Inputs are ids of the project's own rows."""

    stage = serializers.ChoiceField(choices=LAUNCHED)
    name = serializers.CharField(default="", allow_blank=True, max_length=100)
    config = serializers.DictField(default=dict)
    recipe = serializers.ChoiceField(choices=["", *read_recipes()], default="", help_text="A file of training/recipes.")
    snapshots = serializers.ListField(child=Id(), default=list, max_length=20)
    base = Id(required=False, allow_null=True, default=None)
    base_name = serializers.CharField(default="", allow_blank=True, max_length=300)
    upload = Id(required=False, allow_null=True, default=None, help_text="A file with a model; see model-uploads.")
    tokenizer = Id(required=False, allow_null=True, default=None)
    reward = Id(required=False, allow_null=True, default=None)
    baseline = Id(required=False, allow_null=True, default=None)
    corpus_run = Id(required=False, allow_null=True, default=None)
    rank_replies = serializers.BooleanField(default=False)


class NewModelUpload(serializers.Serializer[Any]):
    """A file with a model: .zip, .tar, .tar.gz, .tgz or .gguf."""

    name = serializers.CharField(max_length=200)
    size = serializers.IntegerField(min_value=0, max_value=2**62, help_text="Bytes.")


class NewDeployment(serializers.Serializer[Any]):
    share = serializers.FloatField(
        default=None,
        allow_null=True,
        min_value=0.01,
        max_value=1,
        help_text="Of new conversations. Left out: 0.1 beside a live model, as on the page; 1 where nothing is live.",
    )
    why = serializers.CharField(default="", allow_blank=True, max_length=2000)
    sampling = serializers.BooleanField(
        default=False, help_text="Set the project's temperature and top_p to what the model's authors advise."
    )


class Why(serializers.Serializer[Any]):
    why = serializers.CharField(default="", allow_blank=True, max_length=2000)
