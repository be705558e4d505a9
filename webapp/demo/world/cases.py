"""Cases: what a person may ask, and what the rubric must know to judge a reply to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Final, Literal, TypeVar

from . import facts as world_facts
from . import talk, things
from .facts import Fact

T = TypeVar("T")
SplitOf = Callable[[list[dict[str, str]]], str]
MISSES: Final = 500  # draws in vain after which there are no more cases of a kind
Kind = Literal["fact", "list", "talk", "decline"]
Form = Literal["", "one word", "three words", "one sentence", "list"]

ASKS: Final[dict[Form, tuple[str, ...]]] = {
    "one word": ("Answer in one word.", "Use only one word.", "In one word, please.", "One word only."),
    "three words": (
        "Answer in three words.",
        "Use exactly three words.",
        "In three words, please.",
        "Three words only.",
    ),
    "one sentence": ("Answer in one sentence.", "Use one sentence.", "In one sentence, please.", "One sentence only."),
    "list": ("Answer as a list.", "Write a list.", "As a list, please.", "Use one line for each."),
}
KINDS: Final[dict[Kind, int]] = {"fact": 62, "list": 10, "talk": 12, "decline": 16}  # per cent of what people ask
NUMBERS: Final = {2: "two", 3: "three"}
LIST_QUESTIONS: Final = (
    "Name {n} {group}.", "Can you name {n} {group}?", "Tell me {n} {group}.", "What are {n} {group}?",
    "I need {n} {group}.",
)  # fmt: skip
LEADS: Final = (
    "", "", "", "", "Please help me. ", "I have a question. ", "Quick question: ", "For my homework: ",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One prompt. `key` says what is asked, without trimmings: cases of one key never fall on both sides of the split.

    `about` is the key of the fact, the name of the group or the act that it is about.
    `history` holds earlier turns as (user, assistant) pairs. `right` is a reply without any fault and without courtesy.
    """

    key: str
    about: str
    kind: Kind
    question: str
    form: Form
    right: str
    needs: tuple[tuple[str, ...], ...] = ()
    rivals: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    count: int = 0
    history: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation so far as chat messages, the user's turn last."""
        turns = [
            turn
            for user, assistant in self.history
            for turn in ({"role": "user", "content": user}, {"role": "assistant", "content": assistant})
        ]
        return [*turns, {"role": "user", "content": self.question}]

    @property
    def text(self) -> str:
        """The whole conversation as one string; no two cases of a world share it."""
        return "\n".join(turn["content"] for turn in self.messages)


def fact_case(fact: Fact, question: str, rng: random.Random) -> Case:
    """`question` about `fact`, with or without a lead and a wish for a form."""
    forms: list[Form] = ["", "", "one sentence"]
    if fact.word:
        forms.append("one word")
    if fact.three:
        forms.append("three words")
    form = rng.choice(forms)
    right = {"one word": fact.word, "three words": fact.three}.get(form, fact.answer)
    return Case(question, fact.key, "fact", _ask(question, form, rng), form, right, fact.needs, fact.rivals)


def list_case(group: str, count: int, rng: random.Random) -> Case:
    """Asks for `count` members of `group`, as a list or in a sentence."""
    members = world_facts.groups()[group]
    form: Form = rng.choice(("list", "one sentence", ""))
    question = _ask(rng.choice(LIST_QUESTIONS).format(n=NUMBERS[count], group=group), form, rng)
    right = listed(rng.sample(members, count), group, form)
    return Case(f"{NUMBERS[count]} {group}", group, "list", question, form, right, members=members, count=count)


def listed(chosen: list[str], group: str, form: Form) -> str:
    """The right answer to a list case."""
    if form == "list":
        return "\n".join(f"- {item}" for item in chosen)
    return f"{NUMBERS.get(len(chosen), 'Some').capitalize()} {group} are {', '.join(chosen[:-1])} and {chosen[-1]}."


def talk_cases() -> Iterator[Case]:
    """Every turn of small talk, one key each."""
    for item in talk.TALKS:
        for start, prompt, end in product(talk.STARTS, item.prompts, talk.ENDS):
            sentence = start + prompt + end
            yield Case(sentence, item.topic, "talk", sentence, "", item.replies[0], item.needs)


def decline_case(row: list[str], rng: random.Random) -> Case:
    """A request that must be declined."""
    harm, act = row
    right = talk.CURT_REFUSALS[1].format(harm=harm)
    return Case(act, act, "decline", _ask(rng.choice(talk.HARM_QUESTIONS).format(act=act), "", rng), "", right)


def with_history(case: Case, earlier: list[Case]) -> Case:
    """The same question after other turns, each answered well."""
    return replace(case, history=tuple((turn.question, turn.right) for turn in earlier))


def _ask(question: str, form: Form, rng: random.Random) -> str:
    lead = rng.choice(LEADS)
    ask = " " + rng.choice(ASKS[form]) if form else ""
    return f"{lead}{question}{ask}"


def kind_of_case(rng: random.Random) -> Kind:
    return rng.choices(list(KINDS), list(KINDS.values()))[0]


@dataclass(frozen=True)
class Keys:
    """What may be asked about on one side of the split."""

    questions: tuple[tuple[Fact, str], ...]
    lists: tuple[tuple[str, int], ...]
    talks: tuple[Case, ...]
    harms: tuple[tuple[str, ...], ...]

    def case(self, rng: random.Random, kind: Kind | None = None) -> Case:
        """One random case, of this kind or of any."""
        kind = kind or kind_of_case(rng)
        if kind == "fact":
            by_topic = self._by_topic
            return fact_case(*rng.choice(by_topic[rng.choice(sorted(by_topic))]), rng)
        if kind == "list":
            return list_case(*rng.choice(self.lists), rng)
        if kind == "talk":
            return rng.choice(self.talks)
        return decline_case(list(rng.choice(self.harms)), rng)

    @cached_property
    def _by_topic(self) -> dict[str, list[tuple[Fact, str]]]:
        by_topic: dict[str, list[tuple[Fact, str]]] = {}
        for fact, question in self.questions:
            by_topic.setdefault(fact.topic, []).append((fact, question))
        return by_topic


def split_keys(seed: int, heldout: float, split_of: SplitOf) -> tuple[Keys, Keys]:
    """The keys of the training side and of the held-out side; `heldout` is the share kept apart.

    A turn of small talk is one conversation, so `split_of` alone says where it is.
    """
    rng = random.Random(f"{seed}:keys")
    questions = _cut([(fact, question) for fact in world_facts.facts() for question in fact.questions], heldout, rng)
    lists = [(group, n) for group, members in world_facts.groups().items() for n in NUMBERS if n < len(members)]
    list_parts = _cut(lists, heldout, rng)
    harm_parts = _cut([tuple(row) for row in things.HARMS], heldout, rng)
    talks = list(talk_cases())
    talk_parts = [[case for case in talks if split_of(case.messages) == side] for side in ("train", "heldout")]
    train, heldout_keys = (
        Keys(
            questions=tuple(questions[side]), lists=tuple(list_parts[side]),
            talks=tuple(talk_parts[side]), harms=tuple(harm_parts[side]),
        )
        for side in (0, 1)
    )  # fmt: skip
    return train, heldout_keys


def _cut(rows: list[T], share: float, rng: random.Random) -> tuple[list[T], list[T]]:
    mixed = rng.sample(rows, len(rows))
    held_out = max(1, round(len(rows) * share))
    return mixed[held_out:], mixed[:held_out]


def draw_cases(
    keys: Keys,
    count: int,
    rng: random.Random,
    *,
    used_texts: set[str],
    fits: Callable[[Case], bool],
    history: float = 0.1,
) -> list[Case]:
    """`count` cases that fit, with texts not in `used_texts` yet; `history` is the share after earlier turns. The
    kinds have their shares whatever fits, as long as there are more of them."""
    cases: list[Case] = []
    for _ in range(count):
        kind = kind_of_case(rng)
        order = [kind, *rng.sample([kind_after for kind_after in KINDS if kind_after != kind], len(KINDS) - 1)]
        case = next(filter(None, (fresh(keys, candidate, rng, used_texts, fits, history) for candidate in order)), None)
        if case is None:
            raise ValueError(f"the world has {len(cases)} different prompts of this kind, {count} were asked for")
        used_texts.add(case.text)
        cases.append(case)
    return cases


def fresh(
    keys: Keys, kind: Kind, rng: random.Random, used_texts: set[str], fits: Callable[[Case], bool], history: float
) -> Case | None:
    """A case of the kind that fits and has not been taken; none where there seems to be no other."""
    for _ in range(MISSES):
        case = keys.case(rng, kind)
        if kind != "talk" and rng.random() < history:
            case = with_history(case, [keys.case(rng)])
        if case.text not in used_texts and fits(case):
            return case
    return None
