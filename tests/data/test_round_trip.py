"""What leaves a project comes back whole in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotations.models import Demonstration, Judgment, Prompt, Ranking
from annotations.services.imported import (
    ImportedDemonstration,
    ImportedJudgment,
    ImportedRanking,
    import_demonstrations,
    import_judgments,
    import_rankings,
)
from tests import factories
from webapp.accounts.models import Project, User
from webapp.data.exports import Selection, export_lines, format_of
from webapp.data.loading import load

pytestmark = pytest.mark.django_db

CHAT = [
    {"role": "system", "content": "Answer in one line."},
    {"role": "user", "content": "Complete:\ndef double(x):\n"},
    {"role": "assistant", "content": "=1+1 # a formula, to some\n"},
    {"role": "user", "content": "  Again; with \"quotes\", commas,\ttabs – and ‘Ümläute’\n"},
]  # fmt: skip
REPLIES = ["    return x + x\n", "return x + x", "-x"]
KEPT = {
    "prompts": ("messages", "split"),
    "demonstrations": ("messages", "weight", "annotator", "split"),
    "rankings": (
        "messages", "replies", "groups", "strength", "ratings", "flags", "reason", "weight", "annotator", "split"
    ),
    "judgments": ("messages", "reply", "good", "weight", "annotator", "split"),
}  # fmt: skip


@pytest.fixture
def full(project: Project, ada: User) -> Any:
    """A project with something of everything."""
    import_demonstrations(
        project=project,
        author=ada,
        rows=[
            ImportedDemonstration(CHAT, REPLIES[0], "a:1", masked_turns=[2], weight=0.5, annotator="ann"),
            ImportedDemonstration(CHAT[:2], REPLIES[1], "a:2"),
            ImportedDemonstration([{"role": "user", "content": "Held?"}], "Yes.", "a:3", split="heldout"),
        ],
    )
    import_rankings(
        project=project,
        author=ada,
        rows=[
            ImportedRanking(
                CHAT, REPLIES, [[1], [0, 2]], 1.5, "a:4", ratings={0: 2, 1: 7}, flags={2: ["long", "wrong"]},
                reason="+ it is so,\nthere", annotator="ben",
            ),
            ImportedRanking(CHAT, REPLIES, [[0, 1], [2]], None, "a:5", weight=0.0),
        ],
    )  # fmt: skip
    rows = [ImportedJudgment(CHAT[:2], "=x", False, "a:6", annotator="cem"), ImportedJudgment(CHAT, "y", True, "a:7")]
    import_judgments(project=project, author=ada, rows=rows)
    return project


def exported(project: Any, kind: str, name: str = "", **chosen: Any) -> list[str]:
    return list(export_lines(format_of(kind, name), project, Selection(**chosen)))


def rows_of(project: Any, kind: str) -> list[dict[str, Any]]:
    rows = format_of(kind).rows(project, Selection())
    return [{name: row[name] for name in KEPT[kind]} for row in rows]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("kind", KEPT)
def test_an_export_comes_back_as_it_left(full: Any, ada: User, tmp_path: Path, kind: Any, suffix: Any) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_text("".join(exported(full, kind, "" if suffix == "jsonl" else "csv")), newline="")
    other = factories.project(ada)
    report = load(project=other, by=ada, paths=[path])
    assert report.errors == []
    assert dict(report.left_out) == {}
    assert dict(report.unused_columns) == {}
    assert set(report.added) == {kind}
    back = rows_of(other, kind)
    given = rows_of(full, kind)
    for row in given:
        if "annotator" in row and row["annotator"].startswith("person:"):
            assert any(other_row["annotator"] == row["annotator"] for other_row in back)
    assert sorted(map(str, back)) == sorted(map(str, given))
    assert sum(load(project=other, by=ada, paths=[path]).added.values()) == 0


def test_what_is_withdrawn_or_rejected_is_marked_and_does_not_come_back(full: Any, ada: User, tmp_path: Path) -> None:
    factories.demonstration(full, ada, "No.", state=Demonstration.State.REJECTED)
    Ranking.objects.update(retracted_at="2026-01-01T00:00:00Z")
    lines = [line for kind in ("demonstrations", "rankings") for line in exported(full, kind, state="all")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines))
    other = factories.project(ada)
    report = load(project=other, by=ada, paths=[path])
    assert dict(report.added) == {"demonstrations": 3}
    assert {reason: left.count for reason, left in report.left_out.items()} == {
        "a demonstration that is rejected": 1,
        "a ranking that is withdrawn": 2,
    }


@pytest.mark.parametrize(
    ("kind", "name", "model"),
    [
        ("prompts", "prompt-only", Prompt),
        ("demonstrations", "sft", Demonstration),
        ("demonstrations", "sft-last-reply", Demonstration),
        ("rankings", "preference", Ranking),
        ("judgments", "kto", Judgment),
    ],
)
def test_formats_of_other_tools_come_back_as_their_kind(
    full: Any, ada: User, tmp_path: Path, kind: Any, name: Any, model: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(exported(full, kind, name)))
    report = load(project=factories.project(ada), by=ada, paths=[path])
    assert (set(report.added), dict(report.left_out)) == ({kind}, {})


def test_held_out_rows_stay_held_out_where_another_hash_would_train_on_them(
    full: Any, ada: User, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(exported(full, "demonstrations", split="heldout")))
    other = factories.project(ada)
    load(project=other, by=ada, paths=[path])
    assert Prompt.objects.get(project=other, messages__0__content="Held?").split == Prompt.Split.HELDOUT
