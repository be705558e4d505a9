"""Forms of the data pages."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from django import forms

from annotations.models import Prompt
from annotations.services.prompts import WithdrawnPrompts
from training.contract import RequestRefused, parse_request
from webapp.accounts.models import Project
from webapp.data.exports import EXPORTS
from webapp.data.exports.selection import STATES
from webapp.data.files import FORMATS
from webapp.data.loading import KINDS
from webapp.data.packing import COMPRESSIONS
from webapp.data.selectors import authors
from webapp.data.services import ImportOptions
from webapp.text import clean_text


class OptionsForm(forms.Form):
    """How to read a file."""

    kind = forms.ChoiceField(
        label="Take",
        required=False,
        choices=[("", "whatever is in it"), *((kind, f"only {kind}") for kind in KINDS)],
        help_text="“Only prompts” takes the prompts of demonstrations and rankings too.",
    )
    corpus = forms.CharField(
        max_length=100, required=False, help_text="For text: the corpus it goes into. Empty: the file's name."
    )
    licence = forms.CharField(
        label="License", max_length=200, required=False, help_text="For text: the license of a new corpus."
    )
    open_tasks = forms.BooleanField(label="Ask annotators to reply to the prompts", required=False)
    skip_bad = forms.BooleanField(
        label="Skip bad rows", required=False, help_text="Otherwise one row that cannot be read stops the import."
    )

    def options(self) -> ImportOptions:
        values = self.cleaned_data
        return {
            "kind": values["kind"],
            "corpus": values["corpus"],
            "licence": values["licence"],
            "open_tasks": values["open_tasks"],
            "skip_bad": values["skip_bad"],
        }


class ImportForm(OptionsForm):
    file = forms.FileField(
        help_text=f"{', '.join(FORMATS)}, also packed ({', '.join(COMPRESSIONS)}). At most 512 MB.",
        widget=forms.FileInput(attrs={"accept": ",".join([*FORMATS, *COMPRESSIONS]), "hx-preserve": "true"}),
    )
    field_order = ("file",)


MAX_LINES_NAMED = 10


class CheckForm(forms.Form):
    """What rewards hold replies to a prompt against."""

    reference = forms.CharField(
        required=False,
        strip=False,
        label="Reference",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="What rewards compare replies with, such as a number or a text; a JSON list holds several right "
        "texts. Annotators do not see it.",
    )
    data = forms.CharField(  # type: ignore[assignment]  # the metaclass takes fields out of the class
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text='A JSON object for rewards that need more, such as {"tests": ["assert double(2) == 4"]} for code.',
    )

    @classmethod
    def of(cls, prompt: Prompt) -> CheckForm:
        """The form as a prompt's answer stands."""
        reference = prompt.reference
        is_text = reference is None or isinstance(reference, str)
        text = reference or "" if is_text else json.dumps(reference, ensure_ascii=False)
        data = "" if prompt.data is None else json.dumps(prompt.data, ensure_ascii=False, indent=1)
        return cls(initial={"reference": text, "data": data})

    def clean_data(self) -> dict[str, Any] | None:
        text = self.cleaned_data["data"]
        try:
            data = parse_request(text.encode()) if text else {}
        except RequestRefused as error:
            raise forms.ValidationError(error.message.replace("The body", "This")) from error
        if not isinstance(data, dict):
            raise forms.ValidationError("Write a JSON object, which begins with { and ends with }.")
        return data or None

    def clean_reference(self) -> Any:
        """A text, or a list if it is one in JSON."""
        text = clean_text(self.cleaned_data["reference"].replace("\r\n", "\n"))
        if text.lstrip().startswith("["):
            try:
                return parse_request(text.encode())
            except RequestRefused:
                return text
        return text if text.strip() else None


class WrittenPrompt(NamedTuple):
    """A prompt of the form, and the line of the text that it begins on, counted from 1."""

    line: int
    text: str


class PromptForm(forms.Form):
    """Prompts by hand: one a line, or parted by lines of dashes."""

    text = forms.CharField(
        label="Prompts",
        strip=False,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text="One prompt per line. For prompts of several lines, put --- on a line of its own between prompts.",
    )
    open_tasks = forms.BooleanField(label="Ask annotators to reply to them", required=False, initial=True)
    restore = forms.BooleanField(label="Restore the withdrawn prompts", required=False)

    def clean_text(self) -> str:
        text: str = self.cleaned_data["text"].replace("\r\n", "\n")
        if not split_prompts(text):
            raise forms.ValidationError("Write at least one prompt.")
        return text

    def prompts(self) -> list[WrittenPrompt]:
        return split_prompts(self.cleaned_data["text"])

    def refuse_withdrawn(self, error: WithdrawnPrompts) -> None:
        """Say beside the text which of its lines are withdrawn prompts."""
        written = self.prompts()
        lines = [str(written[number - 1].line) for number in error.numbers]
        named = ", ".join(lines[:MAX_LINES_NAMED])
        and_more = f" and {len(lines) - MAX_LINES_NAMED} more" if len(lines) > MAX_LINES_NAMED else ""
        where = f"line {named}" if len(lines) == 1 else f"lines {named}{and_more}"
        subject = f"The prompt on {where} was" if len(lines) == 1 else f"The prompts on {where} were"
        how = (
            "Tick “Restore the withdrawn prompts” below, or remove these lines."
            if error.restorable
            else "Their words came from chats, so they cannot be restored: remove these lines."
        )
        self.add_error("text", f"{subject} withdrawn from this project. Nothing has been added. {how}")
        self.offers_restore = error.restorable

    offers_restore = False


def split_prompts(text: str) -> list[WrittenPrompt]:
    lines = text.split("\n")
    if "---" not in (line.strip() for line in lines):
        return [WrittenPrompt(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    prompts = []
    prompt_lines: list[str] = []
    for number, line in enumerate([*lines, "---"], 1):
        if line.strip() != "---":
            prompt_lines.append(line)
            continue
        blank = next((index for index, words in enumerate(prompt_lines) if words.strip()), len(prompt_lines))
        if written := "\n".join(prompt_lines[blank:]).rstrip():
            prompts.append(WrittenPrompt(number - len(prompt_lines) + blank, written))
        prompt_lines = []
    return prompts


class ExportForm(forms.Form):
    """How to take rows of a kind out; its fields are the parameters of the export's address."""

    field_order = ("as", "split", "state", "since", "author")

    def __init__(self, project: Project, kind: str, **kwargs: object) -> None:
        super().__init__(auto_id=f"id_{kind}_%s", **kwargs)  # type: ignore[arg-type]
        formats = [(name, chosen.title) for name, chosen in EXPORTS[kind].items()]
        self.fields["as"] = forms.ChoiceField(label="Format", choices=formats)
        self.fields["since"] = forms.DateField(label="Added since", widget=forms.DateInput(attrs={"type": "date"}))
        if kind != "text":
            splits = [("", "training and held out"), *Prompt.Split.choices]
            self.fields["split"] = forms.ChoiceField(label="Split", choices=splits)
            self.fields["state"] = forms.ChoiceField(label="Rows", choices=list(STATES.items()))
            self.fields["author"] = forms.ChoiceField(label="By", choices=[("", "anybody"), *authors(project)])
        for field in self.fields.values():
            field.required = False
        self.order_fields(self.field_order)


class FilterForm(forms.Form):
    """What the lists of prompts and labels are narrowed by."""

    q = forms.CharField(label="Text", required=False, max_length=200, widget=forms.SearchInput)
    file = forms.CharField(required=False, max_length=200, widget=forms.HiddenInput)

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
