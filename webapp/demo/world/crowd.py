"""The crowd that writes demonstrations: people, each with faults of their own, as real crowds have them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from . import facts as world_facts
from . import talk, things
from .cases import Case, listed


@dataclass(frozen=True)
class Writer:
    """How often this person's demonstration has each fault, as probabilities."""

    name: str
    wrong: float
    rambling: float
    rude: float
    curt: float
    careless: float
    compliant: float
    timid: float


# careless: pays no heed to the wish for a form; compliant: helps where it should decline; timid: declines where it
# should help; curt: leaves courtesy out.
WRITERS: Final = (
    Writer("Ada", wrong=0.02, rambling=0.20, rude=0.02, curt=0.30, careless=0.25, compliant=0.20, timid=0.05),
    Writer("Bruno", wrong=0.06, rambling=0.80, rude=0.15, curt=0.50, careless=0.60, compliant=0.50, timid=0.02),
    Writer("Clara", wrong=0.04, rambling=0.40, rude=0.60, curt=0.70, careless=0.40, compliant=0.50, timid=0.06),
    Writer("Deniz", wrong=0.15, rambling=0.55, rude=0.35, curt=0.60, careless=0.55, compliant=0.70, timid=0.02),
    Writer("Emeka", wrong=0.06, rambling=0.65, rude=0.35, curt=0.80, careless=0.65, compliant=0.65, timid=0.04),
)


def written_reply(case: Case, writer: Writer, rng: random.Random) -> str:
    """What `writer` gives as the reply to `case`: right or with faults, as the person's habits and the dice say."""
    careless = rng.random() < writer.careless
    if case.kind == "decline":
        body = _to_harm(case, writer, rng)
    elif case.kind == "talk":
        body = _small_talk(case, rng)
    elif rng.random() < writer.timid:
        return talk.REFUSALS[1]
    elif case.kind == "list":
        body = _list(case, rng, wrong=rng.random() < writer.wrong, careless=careless)
    else:
        body = _fact_reply(case, rng, wrong=rng.random() < writer.wrong, careless=careless)
    if case.form in ("one word", "three words", "list") and not careless:
        return body
    if rng.random() < writer.rude:
        if rng.random() < 0.5:
            return f"{rng.choice(talk.RUDE_OPENERS)} {body}"
        return f"{body} {rng.choice(talk.RUDE_CLOSERS)}"
    if case.kind in ("fact", "list") and "\n" not in body and rng.random() >= writer.curt:
        body = courteous(body, single=case.form == "one sentence" and not careless, rng=rng)
    if rng.random() < writer.rambling:
        body = " ".join([body, *rng.sample(talk.RAMBLES, rng.choice((1, 1, 2)))])
    return body


def courteous(body: str, *, single: bool, rng: random.Random) -> str:
    """`body` with a courteous word before or after it, within one sentence where `single` is wanted."""
    if single:
        return f"{rng.choice(talk.LEAD_INS)} {lower_start(body)}"
    if rng.random() < 0.7:
        return f"{rng.choice(talk.OPENERS)} {body}"
    return f"{body} {rng.choice(talk.CLOSERS)}"


def lower_start(text: str) -> str:
    """`text` as it stands inside a sentence: the first letter small unless a name begins it."""
    first_word = text.split(" ", 1)[0].strip(".,!?")
    return text if first_word in _names() else text[:1].lower() + text[1:]


def _names() -> set[str]:
    names = {cell for row in things.COUNTRIES for cell in row}
    return names | set(things.DAYS) | set(things.MONTHS) | set(things.PLANETS) | {"I", "Pip"}


def _small_talk(case: Case, rng: random.Random) -> str:
    item = next(item for item in talk.TALKS if item.topic == case.about)
    return rng.choice(item.replies)


def _to_harm(case: Case, writer: Writer, rng: random.Random) -> str:
    if rng.random() < writer.compliant:
        return rng.choice(talk.COMPLIANCES)
    harm = next(row[0] for row in things.HARMS if row[1] == case.about)
    refusals = talk.CURT_REFUSALS if rng.random() < writer.curt / 2 else talk.REFUSALS
    return rng.choice(refusals).format(harm=harm)


def _fact_reply(case: Case, rng: random.Random, *, wrong: bool, careless: bool) -> str:
    facts = world_facts.by_key()
    fact = facts[case.about]
    if wrong:
        others = sorted(
            {candidate.value for candidate in facts.values() if candidate.topic == fact.topic} - {fact.value}
        )
        fact = world_facts.with_value(fact, rng.choice(others))
    if careless:
        return fact.answer
    return {"one word": fact.word, "three words": fact.three}.get(case.form, "") or fact.answer


def _list(case: Case, rng: random.Random, *, wrong: bool, careless: bool) -> str:
    count = case.count + rng.choice((-1, 1, 2)) if careless and rng.random() < 0.5 else case.count
    chosen = rng.sample(case.members, max(2, min(count, len(case.members))))
    if wrong:
        strangers = [
            member for members in world_facts.groups().values() for member in members if member not in case.members
        ]
        chosen[rng.randrange(len(chosen))] = rng.choice(strangers)
    form = case.form
    if careless:
        form = "" if form == "list" else "list"
    return listed(chosen, case.about, form)
