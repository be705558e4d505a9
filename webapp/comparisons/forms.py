"""Forms of blind comparisons."""

from __future__ import annotations

from typing import Any

from django import forms

from annotations.models import Prompt
from annotations.selectors import live_prompts
from webapp.accounts.models import Project
from webapp.comparisons.selectors import comparable_models
from webapp.comparisons.services import HELDOUT, MAX_OVERLAP, MAX_PAIRS, PROJECT, TYPED
from webapp.data.forms import split_prompts
from webapp.registry.models import ModelVersion

MAX_TEXT = 1_000_000


class AskingForm(forms.Form):
    """How people are asked."""

    overlap = forms.IntegerField(
        min_value=1,
        max_value=MAX_OVERLAP,
        label="People for each pair",
        help_text="With two or more you see how far they agree.",
    )
    for_training = forms.BooleanField(
        required=False,
        label="Training may learn from these judgments too",
        help_text="Otherwise no snapshot takes them. Judgments of held-out prompts never train.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        self.fields["overlap"].initial = max(1, project.rank_overlap)


class ComparisonForm(AskingForm):
    baseline: forms.ModelChoiceField[ModelVersion] = forms.ModelChoiceField(
        None, label="Compare with", empty_label=None
    )
    prompts = forms.ChoiceField(label="Prompts", widget=forms.RadioSelect, initial=HELDOUT)
    number = forms.IntegerField(
        min_value=1, max_value=MAX_PAIRS, initial=50, label="How many", help_text="Drawn at random. Not for typed ones."
    )
    typed = forms.CharField(
        required=False,
        max_length=MAX_TEXT,
        label="Typed prompts",
        widget=forms.Textarea(attrs={"rows": 5}),
        help_text="One a line; for longer ones, put a line --- between them. They are held out from training.",
    )
    field_order = ("baseline", "prompts", "number", "typed", "overlap", "for_training")

    def __init__(self, *args: Any, model: ModelVersion, **kwargs: Any) -> None:
        super().__init__(*args, project=model.project, **kwargs)
        models = comparable_models(model)
        self.fields["baseline"].queryset = models  # type: ignore[attr-defined]
        self.fields["baseline"].initial = model.parent_id
        counts = {
            HELDOUT: live_prompts(model.project, Prompt.Split.HELDOUT).count(),
            PROJECT: live_prompts(model.project).count(),
        }
        self.fields["prompts"].choices = [  # type: ignore[attr-defined]
            (HELDOUT, f"Held-out prompts ({counts[HELDOUT]:,} there)"),
            (PROJECT, f"All prompts of the project ({counts[PROJECT]:,} there)"),
            (TYPED, "Prompts that you type below"),
        ]
        if not counts[HELDOUT]:
            self.fields["prompts"].initial = PROJECT if counts[PROJECT] else TYPED

    def values(self) -> dict[str, Any]:
        typed = split_prompts(self.cleaned_data["typed"].replace("\r\n", "\n"))
        return {**self.cleaned_data, "typed": [prompt.text for prompt in typed]}
