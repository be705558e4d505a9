"""Facts: what the tables say, in the words a text, a question and an answer would use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from . import things

# topic: statements, questions, answer, answer in three words ("" if there is none of that length).
# {s} is the thing with its article, {S} the same at the start of a sentence, {v} the value, {a} the value's article.
FORMS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...], str, str]]] = {
    "capital": (
        ("{v} is the capital of {s}.",),
        ("What is the capital of {s}?", "Which city is the capital of {s}?", "Name the capital of {s}.",
         "Do you know the capital of {s}?"),
        "The capital of {s} is {v}.", "It is {v}."),
    "continent": (
        ("{S} is a country in {v}.",),
        ("In which continent is {s}?", "Which continent is {s} in?", "Where in the world is {s}?"),
        "{S} is in {v}.", "It is {v}."),
    "food": (
        ("The food of {s} is {v}.",),
        ("What does {s} eat?", "What is the food of {s}?", "Tell me what {s} eats."),
        "{S} eats {v}.", "It eats {v}."),
    "young": (
        ("The baby of {s} is {a} {v}.",),
        ("What is a young {n} called?", "What do we call the baby of {s}?", "How do you call a baby {n}?"),
        "A young {n} is called {a} {v}.", "It's {a} {v}."),
    "use": (
        ("People use {s} for {v}.",),
        ("What is {s} used for?", "What do people use {s} for?", "What can I do with {s}?"),
        "{S} is used for {v}.", "For {v}."),
    "material": (
        ("To make {s} you need {v}.",),
        ("What is {s} made of?", "Of what is {s} made?", "Tell me what {s} is made of."),
        "{S} is made of {v}.", "It is {v}."),
    "color": (
        ("The color of {s} is {v}.",),
        ("What color is {s}?", "Which color does {s} have?", "Tell me the color of {s}."),
        "{S} is {v}.", "It is {v}."),
    "does": (
        ("Every day {s} {v}.",),
        ("What does {s} do?", "What is the work of {s}?", "Tell me what {s} does."),
        "{S} {v}.", ""),
    "opposite": (
        ("{S} and {v} are opposites.",),
        ("What is the opposite of {s}?", "Which word is the opposite of {s}?", "Tell me the opposite of {s}."),
        "The opposite of {s} is {v}.", "It is {v}."),
    "after": (
        ("{V} comes after {s}.",),
        ("What comes after {s}?", "Which comes right after {s}?"),
        "After {s} comes {v}.", "It is {v}."),
    "sum": (
        ("{s} makes {v}.",),
        ("What is {s}?", "How much is {s}?", "Work out {s}.", "Can you tell me {s}?"),
        "{s} is {v}.", "It is {v}."),
    "definition": (
        ("By {n} we mean this: {v}.",),
        ("What is {s}?", "What does the word {n} mean?", "Explain what {s} is.", "Define {n}."),
        "{S} is {v}.", ""),
    "how": (
        ("This is how you {s}. {v}",),
        ("How do I {s}?", "How can I {s}?", "Tell me how to {s}.", "What is the best way to {s}?"),
        "{v}", ""),
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """`needs`: groups of which a right answer has at least one word or phrase each; `rivals`: what makes it wrong."""

    key: str
    topic: str
    thing: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str
    word: str
    three: str
    needs: tuple[tuple[str, ...], ...]
    rivals: tuple[str, ...]
    bare: bool


def article(noun: str) -> str:
    """`noun` with a or an before it."""
    return f"{_article(noun)} {noun}"


def _article(noun: str) -> str:
    if noun == "furniture":
        return "a piece of"
    if noun == "larva":
        return "a"
    return "an" if noun[0].lower() in "aeiou" else "a"


def capitalise(text: str) -> str:
    """First letter large, the rest as it is."""
    return text[:1].upper() + text[1:]


def _fact(topic: str, subject: str, value: str, rivals: Iterable[str], *, bare: bool = False, need: str = "") -> Fact:
    """One fact. `bare`: the thing takes no article; `need`: the word that counts, where it is not the value itself."""
    statements, questions, answer, three = FORMS[topic]
    s = subject if bare else article(subject)
    words = {
        "s": s, "S": capitalise(s), "n": subject, "v": value, "V": capitalise(value),
        "a": _article(value) if value else "",
    }  # fmt: skip
    short = three.format(**words)
    others = {r for r in rivals if r != value}
    last_word = value.rsplit(maxsplit=1)[-1]
    accepted = (need,) if need else (value,) if any(r.endswith(last_word) for r in others) else (value, last_word)
    return Fact(
        key=f"{topic} of {subject}", topic=topic, thing=subject, value=value,
        statements=tuple(form.format(**words) for form in statements),
        questions=tuple(form.format(**words) for form in questions),
        answer=answer.format(**words),
        word=capitalise(value) + "." if " " not in value and three and topic != "use" else "",
        three=short if len(short.split()) == 3 else "",
        needs=(accepted,),
        rivals=tuple(sorted(r for r in others if r not in subject.split() and r not in value.split())),
        bare=bare,
    )  # fmt: skip


def with_value(fact: Fact, value: str) -> Fact:
    """The same claim with another value: how a person who is wrong would say it."""
    return _fact(fact.topic, fact.thing, value, (), bare=fact.bare)


def _column(topic: str, rows: list[list[str]], index: int, *, bare: bool = False) -> Iterator[Fact]:
    values = {row[index] for row in rows if row[index]}
    return (_fact(topic, row[0], row[index], values, bare=bare) for row in rows if row[index])


def _definitions() -> Iterator[Fact]:
    """Definitions say two things: what it is and what marks it. Both must be right."""
    tables = (
        (things.ANIMALS, 1, 3, "{a} that lives {m}"),
        (things.OBJECTS, 1, 2, "{a} used for {m}"),
        (things.PLANTS, 1, 3, "{a} that grows {m}"),
    )
    for rows, kind, mark, form in tables:
        kinds = {row[kind] for row in rows}
        marks = {row[mark] for row in rows}
        for row in rows:
            genus = row[kind]
            fact = _fact("definition", row[0], form.format(a=article(genus), m=row[mark]), ())
            last_word = row[mark].rsplit(maxsplit=1)[-1]
            needs = ((genus,), (row[mark],) if last_word == "ground" else (row[mark], last_word))
            rivals = {r for r in kinds | marks if r not in (genus, row[mark]) and r not in row[mark].split()}
            yield with_checks(fact, needs=needs, rivals=tuple(sorted(rivals - {row[0]})))


def with_checks(fact: Fact, *, needs: tuple[tuple[str, ...], ...], rivals: tuple[str, ...]) -> Fact:
    """The fact with its own account of what makes an answer right."""
    return replace(fact, needs=needs, rivals=rivals)


def _sums() -> Iterator[Fact]:
    pairs = [(f"{a} plus {b}", a + b) for a in range(1, 5) for b in range(1, 5)]
    pairs += [(f"{a} minus {b}", a - b) for a in range(2, 6) for b in range(1, a)]
    numbers = {str(n) for n in range(61)}
    for text, value in pairs:
        fact = _fact("sum", text, str(value), (), bare=True)
        yield with_checks(fact, needs=fact.needs, rivals=tuple(sorted(numbers - {str(value)})))


def _orders() -> Iterator[Fact]:
    for row in (things.DAYS, things.MONTHS, things.SEASONS):
        for i, item in enumerate(row):
            yield _fact("after", item, row[(i + 1) % len(row)], row, bare=True)


def _opposites() -> Iterator[Fact]:
    words = {word for row in things.OPPOSITES for word in row}
    for left_word, opposite in things.OPPOSITES:
        yield _fact("opposite", left_word, opposite, words, bare=True)
        yield _fact("opposite", opposite, left_word, words, bare=True)


def _how_tos() -> Iterator[Fact]:
    needed = {row[2] for row in things.HOW_TOS}
    for act, answer, need in things.HOW_TOS:
        fact = _fact("how", act, answer, (), bare=True, need=need)
        others = needed - {need} - set(answer.lower().replace(",", " ").replace(".", " ").split())
        yield with_checks(fact, needs=fact.needs, rivals=tuple(sorted(others - {"water"})))


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of the world, in the order of the tables."""
    return (
        *_column("capital", things.COUNTRIES, 1, bare=True),
        *_column("continent", things.COUNTRIES, 2, bare=True),
        *_column("food", things.ANIMALS, 2),
        *_column("young", things.ANIMALS, 4),
        *_column("use", things.OBJECTS, 2),
        *_column("material", things.OBJECTS, 3),
        *_column("color", things.PLANTS, 2),
        *_column("does", things.JOBS, 1),
        *_definitions(),
        *_opposites(),
        *_orders(),
        *_sums(),
        *_how_tos(),
    )


@cache
def by_key() -> dict[str, Fact]:
    """Every fact by its key."""
    return {fact.key: fact for fact in facts()}


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Groups whose members can be listed: plural name → members."""
    members_of: dict[str, list[str]] = {
        "colors": list(things.COLORS), "seasons": list(things.SEASONS), "days": list(things.DAYS),
        "months": list(things.MONTHS), "planets": list(things.PLANETS), "jobs": [row[0] for row in things.JOBS],
    }  # fmt: skip
    plural = {
        "mammal": "mammals", "bird": "birds", "tool": "tools", "instrument": "instruments", "vehicle": "vehicles",
        "fruit": "fruits", "vegetable": "vegetables",
    }  # fmt: skip
    for rows in (things.ANIMALS, things.OBJECTS, things.PLANTS):
        for row in rows:
            if row[1] in plural:
                members_of.setdefault(plural[row[1]], []).append(row[0])
    for row in things.COUNTRIES:
        members_of.setdefault(f"countries in {row[2]}", []).append(row[0])
    return {name: tuple(dict.fromkeys(members)) for name, members in members_of.items() if len(members) >= 3}
