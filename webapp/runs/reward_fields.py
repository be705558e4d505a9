"""The computed rewards of the launch form: for each kind a switch, its weight and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from django import forms

from annotations.selectors import live_prompts
from training.contract import REWARD_TERMS, RewardTermBase
from webapp.accounts.models import Project

PREFIX: Final = "rewards"


class RewardChoice(NamedTuple):
    """One kind of reward as the form shows it."""

    title: str
    about: str
    switch: forms.BoundField
    parameters: list[forms.BoundField]
    is_open: bool
    lacking: str


def field_name(kind: str, name: str) -> str:
    return f"{PREFIX}.{kind}.{name}"


def add_reward_fields(form: forms.Form, make_field: Callable[..., forms.Field], leaves: Callable[..., Any]) -> None:
    """Add the fields of each kind to a form whose stage takes computed rewards."""
    for kind, term in REWARD_TERMS.items():
        form.fields[field_name(kind, "use")] = forms.BooleanField(required=False, label=term.title)
        for name, field, notes in leaves(term):
            made = make_field(name, field, notes)
            made.required = False
            form.fields[field_name(kind, name)] = made


def suggest_rewards(form: forms.Form, terms: Sequence[Mapping[str, Any]]) -> None:
    """Fill the fields in as another run had them: the first term of each kind."""
    for term in reversed(terms):
        kind = str(term.get("kind"))
        if kind in REWARD_TERMS:
            form.fields[field_name(kind, "use")].initial = True
            for name, value in term.items():
                if field_name(kind, name) in form.fields:
                    form.fields[field_name(kind, name)].initial = value


def chosen_terms(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The terms that are switched on, as the contract has them."""
    terms = []
    for kind, term in REWARD_TERMS.items():
        if values.get(field_name(kind, "use")):
            given = {name: values.get(field_name(kind, name)) for name in term.model_fields if name != "kind"}
            terms.append({"kind": kind, **{name: value for name, value in given.items() if value is not None}})
    return terms


def reward_choices(form: forms.Form, project: Project) -> Iterator[RewardChoice]:
    prompts = live_prompts(project, "train")
    total = prompts.count()
    without_reference = prompts.filter(reference__isnull=True).count()
    for kind, term in REWARD_TERMS.items():
        own = [name for name in form.fields if name.startswith(f"{PREFIX}.{kind}.") and not name.endswith(".use")]
        switch = form[field_name(kind, "use")]
        about = " ".join((term.__doc__ or "").split())
        lacking = lacking_sentence(term, without_reference, total)
        yield RewardChoice(term.title, about, switch, [form[name] for name in own], bool(switch.value()), lacking)


def lacking_sentence(term: type[RewardTermBase], without_reference: int, total: int) -> str:
    """How many of the prompts there are now cannot be scored for want of a reference."""
    if not term.needs_reference or not without_reference:
        return ""
    return (
        f"{without_reference:,} of {total:,} prompts to learn from have no reference, so this reward cannot score them."
    )
