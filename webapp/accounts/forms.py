from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, QueryDict

from webapp.accounts.models import ApiToken, Project, Role, User
from webapp.accounts.tokens import DEFAULT_DAYS, MAX_DAYS
from webapp.accounts.zones import zones_by_region
from webapp.errors import BadInput
from webapp.model_names import check_model_name

MAX_GUIDELINES = 100_000  # characters
ROLE_HELP = {
    Role.OWNER: "everything, including archiving the project and adding owners",
    Role.MANAGER: "settings, members, data, runs, models and deployments",
    Role.ANNOTATOR: "labels and chats with the assistant",
    Role.TESTER: "chats with the assistant and reports what was wrong",
}
ROLE_CHOICES = [(role.value, f"{role.label}: {ROLE_HELP[role]}") for role in reversed(Role)]


class NameForm(forms.Form):
    """What sign-up asks for in addition to address and password."""

    name = forms.CharField(
        max_length=100,
        required=False,
        label="Your name",
        help_text="Shown to your team.",
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    field_order: tuple[str, ...] = ("name", "email", "password1")

    def signup(self, request: HttpRequest, user: User) -> None:
        """The account adapter keeps the name; this is where the sign-up form looks for a hook of its own."""


class ProfileForm(NameForm):
    """The browser's zone is named in the choice that follows it."""

    field_order = ("name", "time_zone")

    def __init__(self, *args: Any, of_browser: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        same = f"Same as this device ({of_browser})" if of_browser else "Same as this device"
        self.fields["time_zone"] = forms.ChoiceField(
            label="Time zone",
            required=False,
            choices=[("", same), *zones_by_region()],
            help_text="Times are shown in this time zone, and “today” starts at its midnight.",
        )


class ProjectForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    class Meta:
        model = Project
        fields = ("name", "description")
        widgets = {
            "name": forms.TextInput(attrs={"placeholder": "Museum guide", "autofocus": True}),
            "description": forms.Textarea(attrs={"rows": 3}),
        }
        help_texts = {"description": "What the assistant is for, in a sentence or two."}


SETTINGS_GROUPS = [
    ("Project", ("name", "description")),
    ("Model", ("base_model", "system_prompt")),
    ("Labels", ("rank_overlap", "write_overlap", "review_overlap", "lease_minutes", "name_annotators")),
    ("Sampling of replies", ("replies_to_rank", "temperature", "top_p", "max_new_tokens")),
]


class SettingsForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    class Meta:
        model = Project
        fields = tuple(name for _, names in SETTINGS_GROUPS for name in names)
        widgets = {
            "description": forms.Textarea(attrs={"rows": 2}),
            "system_prompt": forms.Textarea(attrs={"rows": 3}),
            "temperature": forms.NumberInput(attrs={"step": "0.05"}),
            "top_p": forms.NumberInput(attrs={"step": "0.05"}),
        }
        labels = {
            "rank_overlap": "Rankings per set of replies",
            "write_overlap": "Demonstrations per prompt",
            "review_overlap": "Reviews per demonstration",
            "lease_minutes": "Minutes until an idle task goes to someone else",
            "name_annotators": "Name annotators in exports",
            "replies_to_rank": "Replies per prompt",
            "top_p": "Top-p",
            "max_new_tokens": "Longest reply, in tokens",
        }
        # What the label says already is not said again.
        help_texts = {
            "base_model": "Name on the Hugging Face Hub, or folder, of the model to start from. Leave it empty to "
            "train from scratch.",
            "system_prompt": "Placed before every conversation. Leave it empty for none.",
            "rank_overlap": "Each by a different person.",
            "write_overlap": "",
            "review_overlap": "0 means none.",
            "lease_minutes": "",
            "name_annotators": "Exports name the person behind each label. If this is off, they number people instead, "
            "always in the same way, such as person:3.",
            "replies_to_rank": "",
            "temperature": "0 always picks the most likely word; 1 keeps the model’s own probabilities.",
            "top_p": "Only the most likely words that add up to this probability are sampled.",
            "max_new_tokens": "",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.show_hidden_initial = True  # so that a change names the value that it began from

    def groups(self) -> list[tuple[str, list[Any]]]:
        """The bound fields under their headings."""
        return [(title, [self[name] for name in names]) for title, names in SETTINGS_GROUPS]

    def clean_base_model(self) -> str:
        name: str = self.cleaned_data["base_model"].strip()
        try:
            check_model_name(name, "base_model")
        except BadInput as error:
            raise forms.ValidationError(error.message.removeprefix("base_model: ")) from None
        return name

    def changes(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in self.changed_data}

    def began_from(self) -> dict[str, Any]:
        """The values that the page showed, by field, where it sent them along."""
        initial = {name: self.data[key] for name in self.fields if (key := self[name].html_initial_name) in self.data}
        return {name: self.fields[name].to_python(value) for name, value in initial.items()}

    def renewed(self) -> SettingsForm:
        """The same changes, as begun from what is saved now; everything else as it is saved now."""
        saved = SettingsForm(instance=Project.objects.get(pk=self.instance.pk))
        data = QueryDict(mutable=True)
        for name in self.fields:
            stands = saved[name].value()
            data[self.add_initial_prefix(name)] = stands
            data[self.add_prefix(name)] = self.data.get(name, "") if name in self.changed_data else stands
        return SettingsForm(data, instance=saved.instance)


class GuidelinesForm(forms.Form):
    text = forms.CharField(
        label="Guidelines",
        max_length=MAX_GUIDELINES,
        help_text="Markdown. Saving creates a new version. Each label records the version it was given under.",
        widget=forms.Textarea(attrs={"rows": 20}),
    )
    began_from = forms.IntegerField(required=False, widget=forms.HiddenInput)  # the version that the page showed


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=[(role.value, role.label) for role in Role])


class InviteForm(forms.Form):
    role = forms.ChoiceField(choices=ROLE_CHOICES, initial=Role.ANNOTATOR.value, widget=forms.RadioSelect)
    email = forms.EmailField(
        required=False,
        label="Email address",
        help_text="Optional. If you enter one, only the account with this address can join.",
    )


class TokenForm(forms.Form):
    """A new API token. `days` is 0 for one without an end."""

    name = forms.CharField(
        max_length=100, label="What for", widget=forms.TextInput(attrs={"placeholder": "Nightly export"})
    )
    scopes = forms.MultipleChoiceField(
        label="May be used to",
        choices=ApiToken.Scope.choices,
        initial=["read"],
        widget=forms.CheckboxSelectMultiple,
    )
    days = forms.TypedChoiceField(label="Expires after", coerce=int, initial=DEFAULT_DAYS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", "auto_id": "id_token_%s", **kwargs})
        choices = [(30, "30 days"), (DEFAULT_DAYS, "90 days"), (MAX_DAYS, "a year")]
        if settings.TOKENS_WITHOUT_END:
            choices.append((0, "never"))
        self.fields["days"].choices = choices  # type: ignore[attr-defined]

    def arguments(self) -> dict[str, Any]:
        """As create_api_token takes them."""
        return {**self.cleaned_data, "days": self.cleaned_data["days"] or None}


class HubTokenForm(forms.Form):
    """Never filled in again: a stored token is not shown."""

    token = forms.CharField(
        max_length=500,
        label="Access token",
        help_text="From your settings on the hub, with the right to read.",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"auto_id": "id_hub_%s", **kwargs})
