"""The form that makes a snapshot."""

from __future__ import annotations

from typing import Any

from django import forms

from webapp.accounts.models import Project
from webapp.datasets.models import Corpus, Snapshot
from webapp.datasets.selectors import corpora_of


class SnapshotForm(forms.Form):
    kind = forms.ChoiceField(choices=Snapshot.Kind.choices, label="What to freeze")
    name = forms.CharField(required=False, max_length=100, help_text="Empty: its kind and a number.")
    corpora: forms.ModelMultipleChoiceField[Corpus] = forms.ModelMultipleChoiceField(
        None, required=False, widget=forms.CheckboxSelectMultiple, help_text="For text only. None chosen: all of them."
    )
    limit = forms.IntegerField(
        required=False, min_value=1, label="At most", help_text="Rows to learn from. Empty: all of them."
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        self.fields["corpora"].queryset = corpora_of(project)  # type: ignore[attr-defined]

    def filters(self) -> dict[str, Any]:
        """As create_snapshot takes them."""
        values = self.cleaned_data
        documents = values["kind"] == Snapshot.Kind.DOCUMENTS
        corpora = [corpus.pk for corpus in values["corpora"]] if documents else []
        return {"corpora": corpora, "limit": values["limit"]}
