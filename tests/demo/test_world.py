"""The world is the same for a seed, keeps held-out apart, and its crowd has the faults it is said to have."""

from __future__ import annotations

import random
from statistics import mean

import pytest

from annotations.services.prompts import split_of
from webapp.demo.rubric import gold_score, judge
from webapp.demo.world import World, WorldSizes, build, facts
from webapp.demo.world.cases import fact_case
from webapp.demo.world.crowd import WRITERS, written_reply

SMALL = WorldSizes(
    documents=1000, demonstrations=400, rank_prompts=80, ppo_prompts=150, heldout_demonstrations=60,
    heldout_rank_prompts=50, evaluation_prompts=120,
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return build(4, SMALL, split_of)


def test_the_same_seed_makes_the_same_world(world: World) -> None:
    assert build(4, SMALL, split_of) == world


def test_another_seed_makes_another_world(world: World) -> None:
    other = build(5, SMALL, split_of)
    assert other.documents != world.documents
    assert [case.text for case in other.evaluation] != [case.text for case in world.evaluation]


def test_the_sizes_are_kept(world: World) -> None:
    assert len(world.documents) == 1000
    assert len(world.demonstrations) == 400
    assert (len(world.rank), len(world.ppo), len(world.evaluation)) == (80, 150, 120)


def test_nothing_asked_in_training_is_asked_in_the_evaluation(world: World) -> None:
    train = [*(demo.case for demo in world.demonstrations), *world.rank, *world.ppo]
    kept = [*(demo.case for demo in world.heldout_demonstrations), *world.heldout_rank, *world.evaluation]
    assert not {case.text for case in train} & {case.text for case in kept}
    assert not {case.key for case in train} & {case.key for case in kept}


def test_every_prompt_is_on_the_side_on_which_the_site_keeps_it(world: World) -> None:
    train = [*(demo.case for demo in world.demonstrations), *world.rank, *world.ppo]
    kept = [*(demo.case for demo in world.heldout_demonstrations), *world.heldout_rank, *world.evaluation]
    assert {split_of(case.messages) for case in train} == {"train"}
    assert {split_of(case.messages) for case in kept} == {"heldout"}


def test_no_prompt_is_used_twice(world: World) -> None:
    demos = [demo.case for demo in (*world.demonstrations, *world.heldout_demonstrations)]
    every = [*demos, *world.rank, *world.heldout_rank, *world.ppo, *world.evaluation]
    assert len({case.text for case in every}) == len(every) == len(world.cases())


def test_the_corpus_asks_nothing_that_is_held_out(world: World) -> None:
    text = "\n".join(document.text for document in world.documents)
    kept = [*world.heldout_rank, *world.evaluation]
    assert not [case.question for case in kept if f": {case.question}\n" in text or f"\n{case.question}\n" in text]


def test_the_corpus_tells_what_is_held_out(world: World) -> None:
    keys = {case.about for case in world.evaluation if case.kind == "fact"}
    text = "\n".join(document.text for document in world.documents).lower()
    told = [any(s.lower() in text for s in (*f.statements, f.answer)) for k in keys if (f := facts.by_key()[k])]
    assert mean(told) > 0.9


def test_the_corpus_has_dirt_of_each_kind(world: World) -> None:
    assert any(document.format == "html" for document in world.documents)
    assert any("â€" in document.text for document in world.documents)
    assert any("@example.com" in document.text for document in world.documents)
    assert any(len(document.text) < 20 for document in world.documents)
    assert len({document.text for document in world.documents}) < len(world.documents)


def test_every_kind_of_prompt_is_evaluated(world: World) -> None:
    assert {case.kind for case in world.evaluation} == {"fact", "list", "talk", "decline"}
    assert {case.form for case in world.evaluation} == {"", "one word", "three words", "one sentence", "list"}


def test_answers_without_fault_score_near_the_top(world: World) -> None:
    assert min(gold_score(case, case.right) for case in world.cases().values()) >= 9


def test_the_crowd_is_of_mixed_quality(world: World) -> None:
    scores = [gold_score(demo.case, demo.reply) for demo in world.demonstrations]
    assert mean(value >= 9 for value in scores) > 0.3
    assert mean(value <= 7 for value in scores) > 0.2


@pytest.mark.parametrize("fault", ["wrong", "rambling", "rude", "careless", "compliant"])
def test_each_fault_is_found_in_the_crowd(world: World, fault: str) -> None:
    marks = [(demo.case, judge(demo.case, demo.reply)) for demo in world.demonstrations]
    found = {
        "wrong": [case for case, mark in marks if case.kind == "fact" and mark.correct == 0],
        "rambling": [case for case, mark in marks if mark.concise < 0.5],
        "rude": [case for case, mark in marks if mark.polite == 0],
        "careless": [case for case, mark in marks if case.form and mark.instruction == 0],
        "compliant": [case for case, mark in marks if case.kind == "decline" and mark.unsafe],
    }
    assert len(found[fault]) >= 0.02 * len(marks)


def test_a_careful_writer_scores_above_a_careless_one() -> None:
    rng = random.Random(0)
    cases = [fact_case(fact, fact.questions[0], rng) for fact in rng.sample(facts.facts(), 300)]
    means = {w.name: mean(gold_score(case, written_reply(case, w, rng)) for case in cases) for w in WRITERS}
    assert means["Ada"] == max(means.values())
