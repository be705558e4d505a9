"""The launch form, made from the contract's settings models, so that the two cannot part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from django import forms
from django.db.models import F, QuerySet
from django.forms.models import ModelChoiceIterator
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from training.contract import SPECS, TRACKERS, Need, Proposal, Recipe, has_effect, problems, read_recipes
from webapp.accounts.models import Project
from webapp.datasets.models import Snapshot
from webapp.datasets.selectors import snapshots_of
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import models_of
from webapp.runs.machines import device_count
from webapp.runs.models import ModelUpload, Run
from webapp.runs.reward_fields import (
    PREFIX,
    RewardChoice,
    RewardSlot,
    add_reward_fields,
    chosen_terms,
    place_in_form,
    reward_choices,
    reward_slots,
    suggest_as_typed,
    suggest_rewards,
)
from webapp.runs.selectors import succeeded_corpus_runs
from webapp.runs.stages import extra

WORDS = {
    "kl": "KL",
    "lora": "LoRA",
    "gae": "GAE",
    "ptx": "PTX",
    "lr": "learning rate",
    "kv": "key-value",
    "beta2": "β₂",
    "orpo": "ORPO",
    "simpo": "SimPO",
}
DEVICES = ("processes", "shard")  # settings for machines with several
NEW_SNAPSHOT = "A new snapshot of all there is now"
LEAVE_OUT = "none"  # what a person chooses to learn from one kind of labels and not from the other


def label_of(name: str) -> str:
    words = [WORDS.get(word, word) for word in re.split(r"[_.]", name)]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def settings_leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo, dict[str, Any]]]:
    """(dotted name, field, what the contract says of it) of every setting that a person may change."""
    for name, field in model.model_fields.items():
        notes = extra(model, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_leaves(field.annotation, f"{prefix}{name}.")
        elif "advanced" in notes:
            yield f"{prefix}{name}", field, notes


def form_field(name: str, field: FieldInfo, notes: dict[str, Any]) -> forms.Field:
    said_unit = notes.get("unit", "")
    unit = f" ({said_unit})" if said_unit and said_unit not in name else ""
    common = {
        "label": label_of(name.removeprefix("sampling.")) + unit,
        "help_text": field.description or "",
        "initial": field.default,
        "required": field.annotation not in (bool, str),
    }
    limits = {type(limit).__name__: limit for limit in field.metadata}
    low = getattr(limits.get("Ge"), "ge", None)
    high = getattr(limits.get("Le"), "le", None)
    if get_origin(field.annotation) is Literal:
        return forms.ChoiceField(choices=[(value, value) for value in get_args(field.annotation)], **common)
    if get_origin(field.annotation) is list and get_origin(get_args(field.annotation)[0]) is Literal:
        choices = [(value, TRACKERS.get(value, value)) for value in get_args(get_args(field.annotation)[0])]
        return forms.MultipleChoiceField(
            choices=choices, widget=forms.CheckboxSelectMultiple, **common | {"required": False, "initial": []}
        )
    if field.annotation is bool:
        return forms.BooleanField(**common)
    if field.annotation is int:
        return forms.IntegerField(min_value=low, max_value=high, **common)
    if field.annotation is float:
        widget = forms.NumberInput(attrs={"step": "any"})
        return forms.FloatField(min_value=low, max_value=high, widget=widget, **common)
    return forms.CharField(**common)


def control_text(value: Any) -> str:
    """As a control of the form holds it: 1e-05, true."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class LaunchForm(forms.Form):
    """Inputs and settings of a run. `cleaned_data["config"]` holds the settings, nested as in the contract."""

    def __init__(self, *args: Any, project: Project, stage: str, like: Run | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        self.project, self.stage, self.spec = project, stage, SPECS[stage]
        self.fields["name"] = forms.CharField(
            required=False,
            max_length=100,
            help_text="Empty: the last part of the model's."
            if SPECS[stage].names_base
            else "Empty: its stage and number.",
        )
        self.input_names: list[str] = []
        for kind, need in self.spec.snapshots.items():
            self.add_snapshot(kind, need)
        self.add_inputs()
        if recipes := recipes_for(stage):
            self.fields["recipe"] = RecipeField(recipes)
        devices = device_count()
        self.leaves = [leaf for leaf in settings_leaves(self.spec.settings) if devices > 1 or leaf[0] not in DEVICES]
        for name, field, notes in self.leaves:
            self.fields[name] = form_field(name, field, notes)
            if only_with := notes.get("only_with"):  # templates/runs/setting.html and static/js/launch.js read it
                self.fields[name].only_with = json.dumps(only_with)  # type: ignore[attr-defined]
            if self.spec.learns:  # whose settings follow the model until a person sets them
                self.fields[name].widget.attrs["data-default"] = control_text(field.default)
        if "processes" in self.fields:
            self.fields["processes"].help_text = f"The training machine has {devices} devices. Each process takes one."
        self.reward_slots: list[RewardSlot] = []
        if self.takes_rewards:
            terms = (like.config.get("rewards") or []) if like else []
            self.reward_slots = reward_slots(project, self.data, terms)
            add_reward_fields(self, self.reward_slots, form_field, settings_leaves)
        self.fields["touched"] = TouchedField()
        self.suggest(like)

    def add_input(self, name: str, field: forms.Field) -> None:
        self.fields[name] = field
        self.input_names.append(name)

    def add_snapshot(self, kind: str, need: Need) -> None:
        snapshots = snapshots_of(self.project, kind=kind)
        learned = self.spec.learns_from(kind)
        field_type = OptionalSnapshotField if learned and need is Need.OPTIONAL else SnapshotField
        field = field_type(snapshots, required=False, label=Snapshot.Kind(kind).label)
        field.empty_label = NEW_SNAPSHOT if learned else "None"
        field.help_text = "" if learned else "Measured on the rows that were held out."
        if not learned:
            field.initial = snapshots.first()
        self.add_input(kind, field)

    def add_inputs(self) -> None:
        spec, models = self.spec, models_of(self.project)
        policies = models.filter(kind__in=(ModelVersion.Kind.FULL, ModelVersion.Kind.ADAPTER))
        if spec.corpus_run is not Need.NO:
            self.add_input(
                "corpus_run",
                RunField(succeeded_corpus_runs(self.project), spec.corpus_run is Need.REQUIRED, CORPUS_HELP),
            )
        if spec.tokenizer is not Need.NO:
            tokenizers = models.filter(kind=ModelVersion.Kind.TOKENIZER)
            self.add_input(
                "tokenizer", ModelField(tokenizers, spec.tokenizer is Need.REQUIRED, "Cuts text into tokens.")
            )
        if spec.names_base:
            self.add_input(
                "base_name", forms.CharField(required=False, max_length=300, label="Model", help_text=HUB_OR_FOLDER)
            )
            self.fields["found"] = forms.CharField(required=False, max_length=500)  # a button of those on the page
            self.fields["upload"] = UploadField(ModelUpload.objects.filter(project=self.project, size=F("received")))
        elif spec.base is not Need.NO:
            exported = models.exclude(kind=ModelVersion.Kind.TOKENIZER)
            base = ModelField(exported if spec.exports else policies, False, "What this starts from.")
            base.label = "Start from" if spec.learns else "Model"
            self.add_input("base", base)
            self.add_input(
                "base_name", forms.CharField(required=False, max_length=300, label="Or name one", help_text=HUB)
            )
        if spec.reward is not Need.NO:
            rewards = models.filter(kind=ModelVersion.Kind.REWARD)
            self.add_input("reward", ModelField(rewards, spec.reward is Need.REQUIRED, "Scores the replies."))
        if spec.baseline is not Need.NO:
            self.add_input("baseline", ModelField(policies, False, "Its replies are compared with the model's."))
        if self.stage == "sample":
            self.add_input(
                "rank_replies", forms.BooleanField(required=False, initial=True, label="Ask people to rank the replies")
            )

    def suggest(self, like: Run | None) -> None:
        """Preselect what comes next in the loop, or what another run had."""
        if like is not None:
            self.suggest_like(like)
            return
        for name in ("corpus_run", "tokenizer", "reward"):
            # a corpus mixed into PPO is a choice, not a habit
            if name in self.fields and (self.fields[name].required or self.stage not in ("ppo", "sample")):
                self.fields[name].initial = self.fields[name].queryset.first()  # type: ignore[attr-defined]
        if "base" in self.fields and self.stage != "pretrain":
            self.fields["base"].initial = self.usual_base()
            if self.fields["base"].initial is None:
                self.fields["base_name"].initial = self.project.base_model
        usual = {
            "sampling.temperature": self.project.temperature,
            "sampling.top_p": self.project.top_p,
            "sampling.max_new_tokens": self.project.max_new_tokens,
            "replies": self.project.replies_to_rank,
        }
        for name, value in usual.items():
            if name in self.fields and self.stage == "sample":
                self.fields[name].initial = value

    def usual_base(self) -> ModelVersion | None:
        models: QuerySet[ModelVersion] = self.fields["base"].queryset  # type: ignore[attr-defined]
        for stage in self.spec.usual_bases:
            if model := models.filter(stage=stage).first():
                return model
        return models.first()

    def start_from(self, model_id: int) -> None:
        field = self.fields["base"]
        field.initial = field.queryset.filter(pk=model_id).first() or field.initial  # type: ignore[attr-defined]

    def suggest_like(self, like: Run) -> None:
        if self.spec.any_snapshot:
            for kind in self.spec.snapshots:
                self.fields[kind].initial = LEAVE_OUT
        for snapshot in like.snapshots.all():
            if snapshot.kind in self.fields:
                self.fields[snapshot.kind].initial = snapshot
        for name in ("corpus_run", "tokenizer", "base", "base_name", "reward", "baseline", "rank_replies"):
            if name in self.fields:
                self.fields[name].initial = "" if name == "base_name" and like.from_file else getattr(like, name)
        if self.takes_rewards:
            suggest_rewards(self, self.reward_slots, like.config.get("rewards") or [])
        for name, _, _ in self.leaves:
            value: Any = like.config
            for key in name.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                self.fields[name].initial = value
        self.fields["touched"].initial = [name for name, _, _ in self.leaves if name not in like.proposed]

    def values(self) -> dict[str, Any]:
        """What the form holds: as it was sent and fits, or as it is first shown."""
        if self.is_bound:
            return self.cleaned_data
        return {name: self.get_initial_for_field(field, name) for name, field in self.fields.items()}

    def chosen(self) -> dict[str, Any]:
        """The settings that a person set, by dotted name."""
        values = self.values()
        touched = values.get("touched") or []
        return {name: values[name] for name, _, _ in self.leaves if name in touched and values.get(name) is not None}

    def show(self, proposals: Mapping[str, Proposal]) -> None:
        """Fill settings that nobody chose in, and say under them where they are from."""
        for name, proposal in proposals.items():
            self.fields[name].initial = proposal.value
            self.fields[name].proposal = proposal.why  # type: ignore[attr-defined]  # templates/runs/setting.html shows it

    @property
    def takes_rewards(self) -> bool:
        return "rewards" in self.spec.settings.model_fields

    def rewards(self) -> list[RewardChoice]:
        return list(reward_choices(self, self.reward_slots, self.project))

    def reward_terms(self) -> list[dict[str, Any]]:
        """The computed rewards that are switched on, as the contract has them."""
        return [term for _, term in chosen_terms(self.reward_slots, self.values())]

    def show_as_typed(self, data: Mapping[str, Any]) -> None:
        """Fill the rewards in as a form has them that nobody has sent yet."""
        self.reward_slots = reward_slots(self.project, data)
        for name in [name for name in self.fields if name.startswith(f"{PREFIX}.")]:
            del self.fields[name]
        add_reward_fields(self, self.reward_slots, form_field, settings_leaves)
        suggest_as_typed(self, self.reward_slots, data)

    def inputs(self) -> list[forms.BoundField]:
        return [self[name] for name in self.input_names]

    def usual_settings(self) -> list[forms.BoundField]:
        return [self[name] for name, _, notes in self.leaves if not notes["advanced"]]

    def advanced_settings(self) -> list[forms.BoundField]:
        return [self[name] for name, _, notes in self.leaves if notes["advanced"]]

    def has_advanced_errors(self) -> bool:
        return any(name in self.errors for name, _, notes in self.leaves if notes["advanced"])

    def clean(self) -> dict[str, Any]:
        """Nest the settings and hold them against the contract, whose words go to the fields they are about."""
        values = self.cleaned_data
        if values.get("found"):
            values["base_name"] = values["found"]
        is_named = any(values.get(name) or name in self.errors for name in ("base_name", "upload"))
        if self.spec.names_base and not is_named:
            self.add_error("base_name", "Name a model, or choose a file that holds one.")
        config: dict[str, Any] = {}
        for name, _, notes in self.leaves:
            if not has_effect(notes.get("only_with", {}), values):  # it is hidden, so what it holds does not count
                self.errors.pop(name, None)
                values[name] = None
            if values.get(name) is not None:
                *path, leaf = name.split(".")
                section = config
                for key in path:
                    section = section.setdefault(key, {})
                section[leaf] = values[name]
        terms = chosen_terms(self.reward_slots, values)
        if terms:
            config["rewards"] = [term for _, term in terms]
        slots = [slot for slot, _ in terms]
        if not any(name in self.errors for name, _, _ in self.leaves):
            try:
                self.spec.settings.model_validate(config)
            except ValidationError as error:
                for problem in problems(error.errors(), self.spec.settings):
                    field_name = place_in_form(problem.place, slots)
                    named = field_name in self.fields
                    message = problem.message if named else problem.sentence
                    if problem.type != "value_error":  # those may begin with a name
                        message = f"{message[:1].upper()}{message[1:]}."
                    self.add_error(field_name if named else None, message)
        return values | {"config": config}


def recipes_for(stage: str) -> list[Recipe]:
    return [recipe for recipe in read_recipes().values() if stage in recipe.stages]


class RecipeField(forms.ChoiceField):
    """Fills in what a person has not set, in place of what suits the model."""

    widget = forms.RadioSelect

    def __init__(self, recipes: list[Recipe]) -> None:
        choices = [("", "What suits the model"), *((recipe.name, recipe.title) for recipe in recipes)]
        super().__init__(choices=choices, required=False, initial="", label="Fill in from")


class UploadField(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    """A file that was sent; static/js/add-model.js fills it in."""

    widget = forms.HiddenInput

    def __init__(self, queryset: QuerySet[ModelUpload]) -> None:
        super().__init__(queryset, required=False)
        self.error_messages["invalid_choice"] = "This file is not here any more. Choose it again."


class TouchedField(forms.CharField):
    """Names of the settings that a person has set, separated by commas; static/js/launch.js adds to them."""

    widget = forms.HiddenInput

    def __init__(self) -> None:
        super().__init__(required=False, max_length=10_000)

    def prepare_value(self, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [name for name in (super().to_python(value) or "").split(",") if name]


CORPUS_HELP = "Whose cleaned text this reads."
HUB_OR_FOLDER = (
    "Its name on the Hugging Face hub, such as org/model or org/model/file.gguf, or a folder, archive or GGUF file "
    "below those that the operator lists."
)
HUB = "A model of the Hugging Face hub, or a folder that the operator lists, in place of a model of the project."


class SnapshotField(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    def label_from_instance(self, obj: Snapshot) -> str:
        counts = f"{obj.counts.get('train', 0):,} to learn from, {obj.counts.get('heldout', 0):,} held out"
        return f"{obj.name} ({counts}, {obj.created_at:%-d %b %Y})"


class WithLeaveOut(ModelChoiceIterator):  # type: ignore[type-arg]  # not generic at run time
    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        yield LEAVE_OUT, "None"


class OptionalSnapshotField(SnapshotField):
    """A snapshot, none for a new one of all there is, or LEAVE_OUT."""

    iterator = WithLeaveOut

    def to_python(self, value: Any) -> Any:
        return LEAVE_OUT if value == LEAVE_OUT else super().to_python(value)


class ModelField(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, queryset: QuerySet[ModelVersion], required: bool, help_text: str) -> None:
        super().__init__(queryset, required=required, help_text=help_text, empty_label="None")

    def label_from_instance(self, obj: ModelVersion) -> str:
        return f"{obj.number} · {obj.name} ({obj.get_kind_display().lower()})"


class RunField(forms.ModelChoiceField):  # type: ignore[type-arg]  # not generic at run time
    def __init__(self, queryset: QuerySet[Run], required: bool, help_text: str) -> None:
        super().__init__(queryset, required=required, help_text=help_text, empty_label="None", label="Corpus run")
