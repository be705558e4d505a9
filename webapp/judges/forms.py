"""Forms of judges."""

from __future__ import annotations

from typing import Any

from django import forms

from webapp.accounts.models import Project
from webapp.judges.items import MAX_SAMPLE
from webapp.judges.models import Judge
from webapp.judges.services import MAX_PARALLEL
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import models_of
from webapp.runs.models import Run

MAX_TEXT = 100_000


class JudgeForm(forms.Form):
    name = forms.CharField(max_length=100)
    mode = forms.ChoiceField(choices=Judge.Mode.choices, label="It says")
    own_model: forms.ModelChoiceField[ModelVersion] = forms.ModelChoiceField(
        None, required=False, label="A model of this project", empty_label="None: use the endpoint below"
    )
    address = forms.CharField(
        required=False,
        max_length=500,
        label="Endpoint",
        help_text="OpenAI-compatible, up to /v1: https://api.openai.com/v1. Prompts and replies are sent there.",
        widget=forms.URLInput(attrs={"placeholder": "https://"}),
    )
    model = forms.CharField(required=False, max_length=200, label="Model", help_text="As the endpoint calls it.")
    key = forms.CharField(
        required=False,
        max_length=1000,
        label="API key",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Stored encrypted, sent to this endpoint only, and never shown again.",
    )
    reads_chats = forms.BooleanField(
        required=False,
        label="It may read prompts from chats",
        help_text="Without this, an endpoint outside is not sent what people wrote in chats.",
    )
    rubric = forms.CharField(
        required=False,
        max_length=MAX_TEXT,
        widget=forms.Textarea(attrs={"rows": 10}),
        help_text="What makes a reply good. Empty: the project's guidelines as they are when it begins.",
    )
    price_in = forms.FloatField(required=False, min_value=0, max_value=1e6, label="Dollars per million tokens read")
    price_out = forms.FloatField(required=False, min_value=0, max_value=1e6, label="Dollars per million tokens written")
    spending_limit = forms.FloatField(
        required=False, min_value=0, max_value=1e9, label="Spending limit in dollars",
        help_text="Of all that it is ever asked. Needs the prices.",
    )  # fmt: skip
    parallel = forms.IntegerField(min_value=1, max_value=MAX_PARALLEL, initial=4, label="Requests at once")
    timeout = forms.IntegerField(min_value=1, max_value=3600, initial=120, label="Seconds for one answer")
    max_tokens = forms.IntegerField(
        min_value=16, max_value=65_536, initial=1024, label="Most tokens of an answer",
        help_text="Models that think first need more.",
    )  # fmt: skip

    def __init__(self, *args: Any, project: Project, judge: Judge | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        kinds = (ModelVersion.Kind.FULL, ModelVersion.Kind.ADAPTER)
        self.fields["own_model"].queryset = models_of(project).filter(kind__in=kinds)  # type: ignore[attr-defined]
        if judge is not None and judge.encrypted_key:
            self.fields[
                "key"
            ].help_text = "One is stored. Empty keeps it, unless the endpoint changes: it is never sent anywhere else."

    def values(self) -> dict[str, Any]:
        """As add_judge and change_judge take them: an empty key leaves what is stored."""
        return {**self.cleaned_data, "key": self.cleaned_data["key"] or None}


class TryForm(forms.Form):
    prompt = forms.CharField(max_length=MAX_TEXT, widget=forms.Textarea(attrs={"rows": 3}))
    first = forms.CharField(max_length=MAX_TEXT, label="Reply A", widget=forms.Textarea(attrs={"rows": 5}))
    second = forms.CharField(
        required=False, max_length=MAX_TEXT, label="Reply B", widget=forms.Textarea(attrs={"rows": 5})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})


class CompareForm(forms.Form):
    run: forms.ModelChoiceField[Run] = forms.ModelChoiceField(None, label="Evaluate run", empty_label=None)

    def __init__(self, *args: Any, runs: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        self.fields["run"].queryset = runs  # type: ignore[attr-defined]


class AgreementForm(forms.Form):
    size = forms.IntegerField(min_value=1, max_value=MAX_SAMPLE, initial=100, label="Ranked pairs")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
