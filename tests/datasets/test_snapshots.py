"""Freezing rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fsspec.core import url_to_fs

from annotations.models import Demonstration, Prompt
from tests import factories
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.datasets.services import NewDocument, add_documents, create_corpus, create_snapshot
from webapp.errors import BadInput, Conflict

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_folders")]


def rows(snapshot: Snapshot, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(url_to_fs(snapshot.files[split])[1]).read_text().splitlines()]


def freeze(project: Project, kind: str, **options: Any) -> Snapshot:
    return create_snapshot(project=project, kind=kind, by=project.created_by, **options)


@pytest.fixture
def labeled(project: Project, ann: User) -> list[Demonstration]:
    """Three accepted demonstrations, the last on a held-out prompt."""
    splits = [Prompt.Split.TRAIN, Prompt.Split.TRAIN, Prompt.Split.HELDOUT]
    return [
        factories.demonstration(project, ann, prompt=factories.prompt(project, split=split), state="accepted")
        for split in splits
    ]


def test_rows_are_frozen_by_split_with_their_ids(project: Project, labeled: list[Demonstration]) -> None:
    snapshot = freeze(project, "demonstrations")
    assert (snapshot.counts["train"], snapshot.counts["heldout"]) == (2, 1)
    assert {row["id"] for row in rows(snapshot, "train")} == {f"demonstration:{d.pk}" for d in labeled[:2]}
    assert [row["id"] for row in rows(snapshot, "heldout")] == [f"demonstration:{labeled[2].pk}"]
    assert set(snapshot.items.filter(heldout=False).values_list("row", flat=True)) == {d.pk for d in labeled[:2]}


def test_judgments_are_frozen_in_the_rows_that_training_reads(project: Project, ann: User) -> None:
    label = factories.judgment(project, ann, "A toy.", good=False)
    snapshot = freeze(project, "judgments")
    (row,) = rows(snapshot, "train")
    assert (row["id"], row["good"], row["reply"]) == (f"judgment:{label.pk}", False, "A toy.")
    assert snapshot.name == "Judgments 1"


def test_a_snapshot_without_judgments_says_where_they_come_from(project: Project) -> None:
    with pytest.raises(Conflict, match="labeled good or bad"):
        freeze(project, "judgments")


def test_a_later_label_does_not_change_a_snapshot(project: Project, ann: User, labeled: list[Demonstration]) -> None:
    before = freeze(project, "demonstrations")
    kept = rows(before, "train")
    factories.demonstration(project, ann, prompt=factories.prompt(project), state="accepted")
    after = freeze(project, "demonstrations")
    assert rows(before, "train") == kept
    assert after.counts["train"] == 3
    assert before.content_hash != after.content_hash


def test_the_same_rows_have_the_same_hash(project: Project, labeled: list[Demonstration]) -> None:
    assert freeze(project, "demonstrations").content_hash == freeze(project, "demonstrations").content_hash


def test_filters_choose_rows(project: Project, labeled: list[Demonstration]) -> None:
    assert freeze(project, "demonstrations", filters={"limit": 1}).counts["train"] == 1
    only = freeze(project, "demonstrations", filters={"ids": [labeled[1].pk]})
    assert (only.counts["train"], only.counts["heldout"]) == (1, 0)
    assert freeze(project, "demonstrations", filters={"split": "heldout"}).counts["train"] == 0


def test_nothing_to_freeze_is_said_with_what_to_do(project: Project) -> None:
    with pytest.raises(Conflict, match="There are no rankings yet"):
        freeze(project, "rankings")
    assert not Snapshot.objects.exists()


def test_an_unknown_kind_or_filter_is_named(project: Project) -> None:
    with pytest.raises(BadInput, match="no snapshot kind"):
        freeze(project, "dreams")
    with pytest.raises(BadInput, match="filters: color: "):
        freeze(project, "prompts", filters={"color": "red"})


def test_a_document_comes_into_a_corpus_once(project: Project) -> None:
    corpus = create_corpus(project=project, name="Lines", by=project.created_by)
    texts = ["one", "two", "one", " ", "three\x00"]
    first = add_documents(corpus=corpus, documents=(NewDocument(text) for text in texts))
    again = add_documents(corpus=corpus, documents=[NewDocument("two"), NewDocument("four")])
    assert first == (3, 1, 1)
    assert again == (1, 1, 0)
    assert set(corpus.documents.values_list("text", flat=True)) == {"one", "two", "three", "four"}


def test_a_corpus_name_is_taken_once(project: Project) -> None:
    create_corpus(project=project, name="Lines", by=project.created_by)
    with pytest.raises(BadInput, match="a corpus “Lines” already"):
        create_corpus(project=project, name=" Lines ", by=project.created_by)


def test_text_of_chosen_corpora_is_frozen(project: Project) -> None:
    one, two = factories.corpus(project, documents=2), factories.corpus(project, documents=3)
    assert freeze(project, "documents").counts["train"] == 5
    chosen = freeze(project, "documents", filters={"corpora": [two.pk]})
    assert chosen.counts["train"] == 3
    assert all(row["source"] == two.name for row in rows(chosen, "train"))
    assert one.name not in {row["source"] for row in rows(chosen, "train")}


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": "a"}, {"limit": [1]}, {"limit": -1}, {"limit": 2**70}, {"limit": True}, {"limit": 1.5},
        {"heldout_limit": "z"}, {"ids": [[1]]}, {"ids": 5}, {"ids": ["x"]}, {"ids": [2**70]}, {"ids": {"1": 1}},
        {"corpora": ["x"]}, {"split": "both"}, {"split": ["train"]},
    ],
)  # fmt: skip
def test_a_filter_of_the_wrong_kind_is_refused_by_name(
    project: Project, labeled: list[Demonstration], filters: Any
) -> None:
    for kind in ("demonstrations", "documents"):
        with pytest.raises(BadInput, match=f"^filters: {next(iter(filters))}"):
            freeze(project, kind, filters=filters)


def test_a_corpus_of_another_project_is_refused(project: Project) -> None:
    other = factories.corpus(factories.project(name="Crane"))
    with pytest.raises(BadInput, match=f"corpora: there is no {other.pk} in this project"):
        freeze(project, "documents", filters={"corpora": [other.pk]})
