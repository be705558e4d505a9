"""Forms of the data pages."""

from __future__ import annotations

from django import forms

from webapp.accounts.models import Project
from webapp.data.files import FORMATS
from webapp.data.loading import KINDS


class ImportForm(forms.Form):
    file = forms.FileField(help_text=f"{', '.join(FORMATS)}; a .gz may follow. At most 512 MB.")
    kind = forms.ChoiceField(
        label="Take",
        required=False,
        choices=[("", "whatever is in it"), *((kind, f"only {kind}") for kind in KINDS)],
        help_text="Only prompts takes the prompts of demonstrations and rankings too.",
    )
    corpus = forms.CharField(
        max_length=100, required=False, help_text="For text: the corpus it goes into. Empty: the file's name."
    )
    licence = forms.CharField(max_length=200, required=False, help_text="For text: the licence of a new corpus.")
    open_tasks = forms.BooleanField(label="Ask annotators to reply to the prompts", required=False)


class PromptForm(forms.Form):
    """Prompts by hand: one a paragraph."""

    text = forms.CharField(
        label="Prompts",
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text="One prompt a line. A prompt of several lines: put --- on lines of their own between prompts.",
    )
    open_tasks = forms.BooleanField(label="Ask annotators to reply to them", required=False, initial=True)

    def prompts(self) -> list[str]:
        text: str = self.cleaned_data["text"].replace("\r\n", "\n")
        parts = text.split("\n---\n") if "\n---\n" in text else text.split("\n")
        return [part.strip() for part in parts if part.strip()]


class FilterForm(forms.Form):
    """What the lists of prompts and labels are narrowed by."""

    q = forms.CharField(label="Text", required=False, max_length=200, widget=forms.SearchInput)

    def __init__(
        self, project: Project, *args: object, choices: dict[str, list[tuple[str, str]]], **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.project = project
        for name, options in choices.items():
            label = name.replace("_", " ").capitalize()
            self.fields[name] = forms.ChoiceField(label=label, required=False, choices=[("", "any"), *options])

    def values(self) -> dict[str, str]:
        """The filters that are set; a value that is no choice counts as not set."""
        self.is_valid()
        return {name: value for name, value in self.cleaned_data.items() if value}
