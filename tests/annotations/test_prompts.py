"""Prompts and replies come in."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from annotations.models import Prompt, Response, Task
from annotations.services.prompts import add_and_ask, add_prompt, add_prompts, add_responses, split_of, withdraw_prompts
from tests import factories
from webapp.accounts.models import Project, User
from webapp.errors import BadInput


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.django_db
def test_a_prompt_keeps_where_it_came_from(project: Project, ada: User) -> None:
    prompt = add_prompt(
        project=project, messages=ask("What is a kite?"), source=Prompt.Source.IMPORT, by=ada, source_ref="a.jsonl:3"
    )
    assert (prompt.text, prompt.source_ref, prompt.created_by) == ("What is a kite?", "a.jsonl:3", ada)


@pytest.mark.django_db
def test_equal_conversations_are_one_prompt_of_a_project(project: Project) -> None:
    a, b, c = add_prompts(
        project=project, conversations=[ask("one"), ask("two"), ask("one")], source=Prompt.Source.WRITTEN
    )
    assert a == c != b
    assert add_prompt(project=project, messages=ask("two"), source=Prompt.Source.API) == b
    other = add_prompt(project=factories.project(), messages=ask("two"), source=Prompt.Source.API)
    assert other != b


@pytest.mark.django_db
def test_nul_bytes_and_lone_surrogates_are_cleaned_away(project: Project) -> None:
    prompt = add_prompt(project=project, messages=ask("a\x00b\ud800"), source=Prompt.Source.WRITTEN)
    prompt.refresh_from_db()
    assert prompt.text == "ab?"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "messages",
    [
        [],
        ask("  "),
        [{"role": "assistant", "content": "Hello."}],
        [*ask("Hi."), {"role": "assistant", "content": "Hello."}],
        [{"role": "robot", "content": "Hi."}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
    ],
)
def test_a_conversation_that_does_not_end_with_a_user_is_refused_by_name(project: Project, messages: list[Any]) -> None:
    with pytest.raises(BadInput, match=r"^b\.jsonl:2: "):
        add_prompts(
            project=project,
            conversations=[ask("fine"), messages],
            source=Prompt.Source.IMPORT,
            source_refs=["b.jsonl:1", "b.jsonl:2"],
        )
    assert not Prompt.objects.exists()


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1))
def test_conversations_that_begin_alike_are_on_the_same_side_of_the_split(first: str, reply: str) -> None:
    longer = [*ask(first), {"role": "assistant", "content": reply}, {"role": "user", "content": "Go on."}]
    system = [{"role": "system", "content": "Be brief."}, *ask(f"  {first.lower()} ")]
    assert split_of(ask(first)) == split_of(longer)
    assert split_of(ask(first.lower())) == split_of(system)


def test_about_a_tenth_is_held_out() -> None:
    held_out = sum(split_of(ask(f"question {n}")) == Prompt.Split.HELDOUT for n in range(5000))
    assert 400 < held_out < 600


@pytest.mark.django_db
def test_replies_are_kept_in_bulk(project: Project) -> None:
    prompt = factories.prompt(project)
    replies = add_responses(responses=[Response(prompt=prompt, text="a\x00b"), Response(prompt=prompt, text="")])
    assert [Response.objects.get(pk=reply.pk).text for reply in replies] == ["ab", ""]


@pytest.mark.django_db
def test_withdrawing_twice_counts_once(project: Project) -> None:
    factories.prompt(project)
    assert withdraw_prompts(prompts=project.prompts.all()) == 1
    assert withdraw_prompts(prompts=project.prompts.all()) == 0


@pytest.mark.slow
@pytest.mark.django_db
def test_ten_thousand_prompts_come_in_within_seconds(project: Project) -> None:
    start = time.perf_counter()
    add_prompts(project=project, conversations=[ask(f"q{n}") for n in range(10_000)], source=Prompt.Source.IMPORT)
    assert time.perf_counter() - start < 15
    assert Prompt.objects.count() == 10_000


@pytest.mark.django_db(transaction=True)
def test_two_who_add_the_same_prompts_at_once_ask_once(project: Project, ada: User) -> None:
    known = add_prompt(project=project, messages=ask("known"), source=Prompt.Source.WRITTEN)
    barrier = Barrier(4)

    def add(_: int) -> int:
        barrier.wait()
        try:
            return add_and_ask(
                project=project,
                conversations=[ask("new"), ask("known")],
                source=Prompt.Source.API,
                by=ada,
                open_tasks=True,
            ).tasks
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as people:
        opened = list(people.map(add, range(4)))

    assert sum(opened) == Task.objects.count() == 2
    assert known.tasks.count() == 1
