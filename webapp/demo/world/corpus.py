"""The corpus: pages about the world for a model to read, and some dirt for the cleaning to find.

It states every fact, and answers questions in the words of the training side only: no held-out question is in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Final, Literal, TypeVar

from . import facts as world_facts
from . import talk
from .cases import Keys, fact_case, list_case
from .crowd import courteous
from .facts import Fact

T = TypeVar("T")
PEOPLE: Final = ("Anna", "Tom", "Maria", "Paul", "Lena", "Oskar", "Nora", "Felix", "Ida", "Jonas")


@dataclass(frozen=True)
class DirtyDocument:
    """A collected text as it came, dirt and all."""

    text: str
    source: str
    format: Literal["text", "html"] = "text"


def make_documents(train: Keys, heldout: Keys, count: int, rng: random.Random) -> list[DirtyDocument]:
    """`count` documents; about one in eight needs cleaning or should be dropped."""
    reader = _Pages(train, heldout, rng)
    makers = (reader.thing, reader.topic, reader.quiz, reader.sums, reader.lists, reader.letter, reader.rules,
              reader.dialogue)  # fmt: skip
    weights = (16, 10, 50, 8, 6, 2, 2, 6)
    clean = [rng.choices(makers, weights)[0]() for _ in range(count - count // 8)]
    pages = [DirtyDocument(text, "sample pages") for text in clean]
    pages += [_dirty(rng.choice(clean), rng) for _ in range(count // 8)]
    rng.shuffle(pages)
    return pages


class _Pages:
    """Makes pages. Things, topics and sums come round in turn so that each is written about equally often."""

    def __init__(self, train: Keys, heldout: Keys, rng: random.Random) -> None:
        self.rng = rng
        self.train = train
        self.harms = [*train.harms, *heldout.harms]
        facts = [fact for fact in world_facts.facts() if fact.topic != "sum"]
        sums = [fact for fact in world_facts.facts() if fact.topic == "sum"]
        self._things = cycle(self._grouped(facts, lambda fact: fact.thing))
        self._topics = cycle(
            [group for rows in self._grouped(facts, lambda f: f.topic) for group in self._parts(rows, 9)]
        )
        self._sums = cycle(self._parts(sums, 12))
        self._asked = cycle(self._parts(list(train.questions), 8))

    def _grouped(self, facts: list[Fact], by: Callable[[Fact], str]) -> list[list[Fact]]:
        by_key: dict[str, list[Fact]] = {}
        for fact in facts:
            by_key.setdefault(by(fact), []).append(fact)
        return self.rng.sample(list(by_key.values()), len(by_key))

    def _parts(self, rows: list[T], size: int) -> list[list[T]]:
        mixed = self.rng.sample(rows, len(rows))
        return [mixed[i : i + size] for i in range(0, len(mixed), size)]

    def _say(self, fact: Fact) -> str:
        return world_facts.capitalise(self.rng.choice((fact.answer, fact.answer, *fact.statements)))

    def thing(self) -> str:
        """All about two things."""
        return "\n\n".join(self._about(next(self._things)) for _ in range(2))

    def _about(self, facts: list[Fact]) -> str:
        statements = [self._say(fact) for fact in self.rng.sample(facts, len(facts))]
        if self.rng.random() < 0.4:
            statements += [self._say(fact) for fact in self.rng.sample(facts, len(facts))]
        return f"{world_facts.capitalise(facts[0].thing)}\n{' '.join(dict.fromkeys(statements))}"

    def topic(self) -> str:
        """One kind of fact about several things."""
        facts = next(self._topics)
        return " ".join(self._say(fact) for fact in self.rng.sample(facts, len(facts)))

    def sums(self) -> str:
        """A page of sums."""
        facts = next(self._sums)
        return "\n".join(self._say(fact) for fact in self.rng.sample(facts, len(facts)))

    def quiz(self) -> str:
        """Questions and answers, some in a courteous voice."""
        rng = self.rng
        ask, tell = rng.choice((("Question: ", "Answer: "), ("Q: ", "A: "), (f"{rng.choice(PEOPLE)}: ", "Pip: ")))
        lines = []
        for fact, question in next(self._asked):
            case = fact_case(fact, question, rng)
            answer = case.right
            if case.form in ("", "one sentence") and rng.random() < 0.35:
                answer = courteous(answer, single=case.form != "", rng=rng)
            lines.append(f"{ask}{case.question}\n{tell}{answer}")
        return "\n".join(lines)

    def lists(self) -> str:
        """Members of groups, as lists and in sentences."""
        blocks = []
        for _ in range(4):
            case = list_case(*self.rng.choice(self.train.lists), self.rng)
            blocks.append(f"{case.question}\n{case.right}")
        return "\n\n".join(blocks)

    def letter(self) -> str:
        """A letter that rambles."""
        rng = self.rng
        sender, addressee = rng.sample(PEOPLE, 2)
        sentences = rng.sample(talk.RAMBLES, rng.choice((4, 5, 6)))
        if rng.random() < 0.3:
            sentences.append(rng.choice(talk.RUDE_CLOSERS))
        contact = (
            f" Write to {sender.lower()}@example.org or call +49 30 555 {rng.randrange(1000, 9999)}."
            if rng.random() < 0.2
            else ""
        )
        return f"Dear {addressee},\n{rng.choice(talk.CLOSERS)} {' '.join(sentences)}{contact}\nYours, {sender}"

    def rules(self) -> str:
        """What one must not do."""
        forms = ("{H} is wrong.", "Nobody should help with {h}.", "It is wrong to {a}.", "{H} hurts people.",
                 "You must not {a}.", "The police come for {h}.")  # fmt: skip
        return " ".join(
            self.rng.choice(forms).format(h=harm, H=world_facts.capitalise(harm), a=act)
            for harm, act in self.rng.sample(self.harms, 5)
        )

    def dialogue(self) -> str:
        """Two people talk, with greetings, thanks and now and then a rude word."""
        rng = self.rng
        speaker = rng.choice(PEOPLE)
        lines = [f"{speaker}: {case.question}\nPip: {case.right}" for case in rng.sample(self.train.talks, 3)]
        case = fact_case(*rng.choice(self.train.questions), rng)
        rude = f"{rng.choice(talk.RUDE_OPENERS)} " if rng.random() < 0.2 and case.form == "" else ""
        lines.insert(rng.randrange(1, 4), f"{speaker}: {case.question}\nPip: {rude}{case.right}")
        return "\n".join(lines)


def _dirty(text: str, rng: random.Random) -> DirtyDocument:
    """A copy of a page as a careless collection would hold it."""
    kind = rng.choice(("copy", "near copy", "html", "html", "encoding", "scrap", "contact"))
    if kind == "near copy":
        return DirtyDocument(f"{text} {rng.choice(PEOPLE)} wrote this down.", "sample mirror")
    if kind == "html":
        return DirtyDocument(_as_html(text), "sample web", "html")
    if kind == "encoding":
        quoted = f"{rng.choice(PEOPLE)} wrote: “{text}” – that’s all."
        return DirtyDocument(quoted.encode().decode("cp1252", errors="ignore"), "sample scans")
    if kind == "scrap":
        return DirtyDocument(rng.choice(("404", "Menu | Home", "page 3 of 7", "* * *", "(no text)")), "sample web")
    if kind == "contact":
        name = rng.choice(PEOPLE).lower()
        return DirtyDocument(
            f"{text}\nMail {name}@example.com or call (030) 555-{rng.randrange(1000, 9999)}.", "sample mails"
        )
    return DirtyDocument(text, "sample mirror")


def _as_html(text: str) -> str:
    body = "".join(f"<p>{line}</p>" for line in text.splitlines() if line)
    return (
        "<html><head><title>Page</title><script>track()</script></head><body>"
        "<nav><a href='/'>Home</a> <a href='/all'>All</a></nav>"
        f"<article>{body}</article><footer>All rights reserved. <a href='/imprint'>Imprint</a></footer></body></html>"
    )
