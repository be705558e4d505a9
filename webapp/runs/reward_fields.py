"""The computed rewards of the launch form: for each term a switch, its weight and its parameters.

Each kind has a term, and as many more as a person asks for. Servers that other apps make known, judges, stand among the
kinds by name: see `known_servers`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from django import forms

from annotations.selectors import live_prompts
from training.contract import MAX_TERMS, REWARD_TERMS, RewardTermBase
from webapp.accounts.models import Project

PREFIX: Final = "rewards"
ANOTHER: Final = "another_reward"
"""The parameter that asks for one more term of a kind."""
NUMBERED: Final = re.compile(rf"{PREFIX}\.([a-z_]+)~([0-9]{{1,3}})\.", re.ASCII)
PLACE: Final = re.compile(rf"{PREFIX}\.([0-9]+)(?:\.(\w+))?", re.ASCII)


class KnownServer(NamedTuple):
    """A server that scores replies, which a person can choose by its name. `seconds`: that a reply takes, as measured;
    None before it was asked."""

    key: str
    title: str
    about: str
    url: str
    timeout: float
    seconds: float | None


known_servers: Final[list[Callable[[Project], Iterable[KnownServer]]]] = []
"""What knows servers of a project. Apps above this one, of which nothing is known here, add to it when they start."""


class RewardSlot(NamedTuple):
    """A term that the form can make; its fields begin with `key`."""

    key: str
    kind: str
    title: str
    server: KnownServer | None = None

    @property
    def term(self) -> type[RewardTermBase]:
        return REWARD_TERMS[self.kind]

    def field_name(self, name: str) -> str:
        return f"{PREFIX}.{self.key}.{name}"


class RewardChoice(NamedTuple):
    """A slot as the form shows it. `more`: the kind of which another term can be asked for."""

    title: str
    about: str
    switch: forms.BoundField
    parameters: list[forms.BoundField]
    is_open: bool
    lacking: str
    more: str


def servers_of(project: Project) -> list[KnownServer]:
    return [server for list_servers in known_servers for server in list_servers(project)]


def reward_slots(
    project: Project, data: Mapping[str, Any] | None = None, terms: Sequence[Mapping[str, Any]] = ()
) -> list[RewardSlot]:
    """One slot for each kind and known server, and more of a kind where the form as it was sent (`data`) or another run
    (`terms`) has more."""
    servers = servers_of(project)
    addresses = {server.url for server in servers}
    count_by_kind = Counter(str(term.get("kind")) for term in terms if term.get("url") not in addresses)
    for name in data or ():
        if match := NUMBERED.match(name):
            count_by_kind[match[1]] = max(count_by_kind[match[1]], int(match[2]))
    slots = [RewardSlot(server.key, "url", server.title, server) for server in servers]
    for kind, term in REWARD_TERMS.items():
        count = max(1, count_by_kind[kind]) + ((data or {}).get(ANOTHER) == kind)
        slots += [
            RewardSlot(f"{kind}~{number}" if number > 1 else kind, kind, numbered(term.title, number))
            for number in range(1, min(count, MAX_TERMS) + 1)
        ]
    return slots


def numbered(title: str, number: int) -> str:
    return title if number == 1 else f"{title} {number}"


def add_reward_fields(
    form: forms.Form, slots: Sequence[RewardSlot], make_field: Callable[..., forms.Field], leaves: Callable[..., Any]
) -> None:
    """Add the fields of each slot to a form whose stage takes computed rewards."""
    for slot in slots:
        form.fields[slot.field_name("use")] = forms.BooleanField(required=False, label=slot.title)
        for name, field, notes in leaves(slot.term):
            if slot.server is not None and name == "url":
                continue
            form_field = make_field(name, field, notes)
            form_field.required = False
            if slot.server is not None and name == "timeout":
                form_field.initial = slot.server.timeout
            form.fields[slot.field_name(name)] = form_field


def suggest_rewards(form: forms.Form, slots: Sequence[RewardSlot], terms: Sequence[Mapping[str, Any]]) -> None:
    """Fill the fields in as another run had them."""
    free = list(slots)
    for term in terms:
        slot = next((slot for slot in free if slot.server is not None and slot.server.url == term.get("url")), None)
        slot = slot or next((slot for slot in free if slot.server is None and slot.kind == term.get("kind")), None)
        if slot is None:
            continue
        free.remove(slot)
        form.fields[slot.field_name("use")].initial = True
        for name, value in term.items():
            if slot.field_name(name) in form.fields:
                form.fields[slot.field_name(name)].initial = value


def suggest_as_typed(form: forms.Form, slots: Sequence[RewardSlot], data: Mapping[str, Any]) -> None:
    """Fill the fields in as a form has them that was not sent yet; the newest slot is switched on."""
    for name, field in form.fields.items():
        if name.startswith(f"{PREFIX}."):
            is_switch = isinstance(field, forms.BooleanField)
            if is_switch or name in data:
                field.initial = name in data if is_switch else data[name]
    if newest := next((slot for slot in reversed(slots) if slot.kind == data.get(ANOTHER)), None):
        for name, field in form.fields.items():
            if name.startswith(newest.field_name("")) and name not in data:
                default = newest.term.model_fields.get(name.rpartition(".")[2])
                field.initial = True if default is None else default.default


def chosen_terms(slots: Sequence[RewardSlot], values: Mapping[str, Any]) -> list[tuple[RewardSlot, dict[str, Any]]]:
    """The slots that are switched on, with their terms as the contract has them."""
    terms = []
    for slot in slots:
        if values.get(slot.field_name("use")):
            fields = slot.term.model_fields
            chosen = {name: values.get(slot.field_name(name)) for name in fields if name != "kind"}
            chosen = {name: value for name, value in chosen.items() if value != "" or fields[name].default == ""}
            if slot.server is not None:
                chosen["url"] = slot.server.url
            terms.append((slot, {"kind": slot.kind, **{name: v for name, v in chosen.items() if v is not None}}))
    return terms


def place_in_form(place: str, chosen: Sequence[RewardSlot]) -> str:
    """The field of the form that a problem at `rewards.1.pattern` is about: the switch, where its name has no field."""
    match = PLACE.fullmatch(place)
    if match is None or int(match[1]) >= len(chosen):
        return place
    return chosen[int(match[1])].field_name(match[2] or "use")


def reward_choices(form: forms.Form, slots: Sequence[RewardSlot], project: Project) -> Iterator[RewardChoice]:
    prompts = live_prompts(project, "train")
    total = prompts.count()
    without_reference = prompts.filter(reference__isnull=True).count()
    for index, slot in enumerate(slots):
        names = [name for name in form.fields if name.startswith(slot.field_name("")) and not name.endswith(".use")]
        switch = form[slot.field_name("use")]
        about = slot.server.about if slot.server else " ".join((slot.term.__doc__ or "").split())
        following = slots[index + 1] if index + 1 < len(slots) else None
        is_last = slot.server is None and (following is None or following.kind != slot.kind)
        yield RewardChoice(
            slot.title,
            about,
            switch,
            [form[name] for name in names],
            bool(switch.value()) or any(name in form.errors for name in names if form.is_bound),
            lacking_sentence(slot.term, without_reference, total),
            slot.kind if is_last and len(slots) < MAX_TERMS + len(REWARD_TERMS) else "",
        )


def lacking_sentence(term: type[RewardTermBase], without_reference: int, total: int) -> str:
    """How many of the prompts there are now cannot be scored for want of a reference."""
    if not term.needs_reference or not without_reference:
        return ""
    return (
        f"{without_reference:,} of {total:,} prompts to learn from have no reference, so this reward cannot score them."
    )
