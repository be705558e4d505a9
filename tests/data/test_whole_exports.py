"""What a project's people gave leaves it and comes back in an empty one: times, texts and chats too."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Task
from tests import factories
from webapp.accounts.models import Project, User
from webapp.chat.exports import conversation_row
from webapp.chat.models import Feedback
from webapp.data.exports import EXPORTS, Selection, export_lines, format_of
from webapp.data.loading import load
from webapp.datasets.models import Corpus

pytestmark = pytest.mark.django_db
WHEN = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
OTHER = {"id", "source", "source_ref", "models", "guidelines", "review_verdict", "review_comment"}


@pytest.fixture
def full(project: Project, ann: User, ben: User) -> Project:
    """Given on the site, not imported; with a system prompt that the other project does not have."""
    Project.objects.filter(pk=project.pk).update(system_prompt="Answer in one line.")
    project.refresh_from_db()
    prompt = factories.prompt(project, "Why is the sky blue?", created_at=WHEN)
    given = {"created_at": WHEN, "active_seconds": 12.5, "prompt": prompt}
    factories.demonstration(project, ann, "It\u2019s the air.\n", state=Demonstration.State.ACCEPTED, **given)
    task = factories.task(project, Task.Kind.RANK, prompt=prompt, replies=3)
    a, b, c = task.responses.order_by("pk")
    factories.ranking(
        project, ben, task=task, groups=[[b.pk], [a.pk, c.pk]], strength=0.0, ratings={str(a.pk): 3},
        flags={str(c.pk): ["rude", "long"]}, reason="= so it is", created_at=WHEN, active_seconds=1.25, weight=0.5,
    )  # fmt: skip
    factories.judgment(project, ben, "Magic.", good=False, **given)
    corpus = factories.corpus(project, name="Novels", licence="CC0")
    corpus.documents.create(text="<p>Hi</p>\n", format="html", sha256="0" * 64, created_at=WHEN)
    return project


def rows(project: Project, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in export_lines(format_of(kind), project, Selection())]
    dated = kind in ("demonstrations", "rankings", "judgments")
    left = OTHER if dated else OTHER | {"created_at"}  # prompts and documents are as old as their import
    return [{name: value for name, value in row.items() if name not in left} for row in found]


@pytest.mark.parametrize("kind", EXPORTS)
def test_every_kind_comes_back_row_by_row(kind: str, full: Project, ada: User, tmp_path: Path) -> None:
    path = tmp_path / f"kite-{kind}.jsonl"
    path.write_text("".join(export_lines(format_of(kind), full, Selection())))
    empty = factories.project(ada)
    report = load(project=empty, by=ada, paths=[path])
    assert (report.errors, dict(report.left_out), dict(report.unused_columns)) == ([], {}, {})
    assert rows(empty, kind) == rows(full, kind)
    assert sum(load(project=empty, by=ada, paths=[path]).added.values()) == 0


def test_documents_go_back_into_their_corpora(full: Project, ada: User, tmp_path: Path) -> None:
    path = tmp_path / "kite-text.jsonl"
    path.write_text("".join(export_lines(format_of("text"), full, Selection())))
    empty = factories.project(ada)
    load(project=empty, by=ada, paths=[path], corpus="Elsewhere")
    corpus = Corpus.objects.get(project=empty)
    assert (corpus.name, corpus.licence, corpus.documents.count()) == ("Novels", "CC0", 3)


def test_a_chat_comes_back_as_what_was_said_of_its_replies(
    full: Project, tess: User, ada: User, tmp_path: Path
) -> None:
    """A reply with a thumb down is bad, and nobody's demonstration; the better answer is one."""
    chat = factories.conversation(tess, full)
    asked = factories.message(chat, "Which fruit is yellow?")
    bad = factories.message(chat, "After December comes December.", role="assistant", parent=asked)
    good = factories.message(chat, "Lemons are.", role="assistant", parent=asked)
    Feedback.objects.create(message=bad, user=tess, thumb=-1, better_answer="A banana.")
    Feedback.objects.create(message=good, user=tess, preferred_over=bad)
    path = tmp_path / "kite-chats.jsonl"
    path.write_text(json.dumps(conversation_row(chat)) + "\n")
    empty = factories.project(ada)
    load(project=empty, by=ada, paths=[path])
    assert [label.response.text for label in Demonstration.objects.filter(prompt__project=empty)] == ["A banana."]
    judgment = Judgment.objects.get(prompt__project=empty)
    assert (judgment.good, judgment.response.text) == (False, "After December comes December.")
    ranking = Ranking.objects.get(prompt__project=empty)
    best = Prompt.objects.get(project=empty).responses.get(pk=ranking.groups[0][0])
    assert best.text == "Lemons are."


def test_a_time_that_is_none_or_in_the_future_is_the_time_of_the_import(
    full: Project, ada: User, tmp_path: Path
) -> None:
    (line,) = export_lines(format_of("judgments"), full, Selection())
    path = tmp_path / "rows.jsonl"
    for told in ("2999-01-01T00:00:00.000000Z", "yesterday", "2026-03-04T05:06:07"):
        path.write_text(json.dumps(json.loads(line) | {"created_at": told}) + "\n")
        empty = factories.project(ada)
        load(project=empty, by=ada, paths=[path])
        assert Judgment.objects.get(prompt__project=empty).created_at > WHEN.replace(month=6)
