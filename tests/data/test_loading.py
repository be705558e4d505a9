from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from annotations.models import Demonstration, Prompt, Ranking, Task
from webapp.accounts.models import Project, User
from webapp.data.loading import load
from webapp.data.storing import MANY_ROWS
from webapp.datasets.models import Document
from webapp.errors import BadInput

pytestmark = pytest.mark.django_db

PAIR = {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}
DEMONSTRATION = {"instruction": "Say hi", "response": "Hi!"}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(*records: object, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write


def test_each_kind_goes_where_it_belongs(project: Project, ada: User, file: Any) -> None:
    report = load(
        project=project, by=ada, paths=[file(PAIR, DEMONSTRATION, {"prompt": "Sing"}, {"text": "Once upon a time."})]
    )
    assert dict(report.added) == {"rankings": 1, "demonstrations": 1, "prompts": 1, "text": 1}
    ranking = Ranking.objects.get()
    assert [ranking.prompt.responses.get(pk=pk).text for group in ranking.groups for pk in group] == ["Because.", "No."]
    assert ranking.author == ada
    assert Demonstration.objects.get().response.text == "Hi!"
    assert Demonstration.objects.get().state == Demonstration.State.ACCEPTED
    assert Document.objects.get().corpus.name == "rows"
    assert Document.objects.get().source_ref == "rows.jsonl:4"


def test_loading_the_same_rows_again_adds_nothing(project: Project, ada: User, file: Any) -> None:
    path = file(PAIR, DEMONSTRATION, {"prompt": "Sing"}, {"text": "Once upon a time."})
    load(project=project, by=ada, paths=[path])
    assert sum(load(project=project, by=ada, paths=[path]).added.values()) == 0
    assert Ranking.objects.count() == Demonstration.objects.count() == Document.objects.count() == 1


def test_a_dry_run_reports_and_loads_nothing(project: Project, ada: User, file: Any) -> None:
    report = load(project=project, by=ada, paths=[file(PAIR, {"prompt": ""})], dry_run=True)
    assert dict(report.found) == {"rankings": 1}
    assert report.left_out["the prompt is empty"].places == ["rows.jsonl:2"]
    assert not Prompt.objects.exists()


def test_a_bad_row_loads_nothing_and_is_named(project: Project, ada: User, file: Any) -> None:
    with pytest.raises(BadInput, match=r"rows\.jsonl:2: cannot tell what this record is \(found: foo\)"):
        load(project=project, by=ada, paths=[file({"prompt": "Sing"}, {"foo": 1})])
    assert not Prompt.objects.exists()


def test_bad_rows_are_left_out_when_asked(project: Project, ada: User, file: Any) -> None:
    report = load(project=project, by=ada, paths=[file({"prompt": "Sing"}, {"foo": 1})], skip_bad=True)
    assert dict(report.added) == {"prompts": 1}
    assert report.left_out["of no shape that we know"].count == 1


def test_only_prompts_takes_the_prompts_of_labels_too(project: Project, ada: User, file: Any) -> None:
    report = load(project=project, by=ada, paths=[file(PAIR, DEMONSTRATION, {"text": "No."})], kind="prompts")
    assert dict(report.added) == {"prompts": 2}
    assert report.left_out["not asked for (text)"].count == 1
    assert not Ranking.objects.exists()


def test_prompts_may_become_tasks_at_once(project: Project, ada: User, file: Any) -> None:
    load(project=project, by=ada, paths=[file({"prompt": "Sing"})], open_tasks=True)
    assert Task.objects.get().kind == Task.Kind.WRITE


def test_lines_of_plain_text_may_be_prompts(project: Project, ada: User, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("Sing\n\nDance\n")
    load(project=project, by=ada, paths=[path], kind="prompts")
    assert sorted(p.text for p in Prompt.objects.all()) == ["Dance", "Sing"]


def test_the_report_shows_how_rows_are_read_and_stays_small(project: Project, ada: User, file: Any) -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"{n} " + "x" * 5000} for n in range(1000)]
    rows = [{"prompt": "Sing\u0000\ud83d", "\u0000": 1, "y": 2}, {"prompt": "Sing", "\u0000": 1, "completion": "La"}]
    report = load(project=project, by=ada, paths=[file({"messages": turns}, *rows)], dry_run=True).as_json()
    first, second = report["samples"]["demonstrations"]
    assert len(json.dumps(first)) < 100_000
    assert first["messages"][19] == {"role": "…", "content": "960 more turns"}
    assert (len(first["messages"]), first["messages"][-1]["content"][:4]) == (40, "998 ")
    assert (second["reply"], second["place"]) == ("La", "rows.jsonl:3")
    assert report["unused_columns"] == {"\N{SYMBOL FOR NULL}": 1}
    assert report["left_out"]["a character is broken: half of a surrogate pair"]["count"] == 1


def test_nul_bytes_do_not_stop_a_load(project: Project, ada: User, file: Any) -> None:
    load(project=project, by=ada, paths=[file({"prompt": "Si\u0000ng"})])
    assert Prompt.objects.get().text == "Sing"


def test_after_a_large_import_the_database_knows_how_many_rows_there_are(
    project: Project, ada: User, file: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        load(project=project, by=ada, paths=[file(*({"prompt": f"Sing song {n}"} for n in range(MANY_ROWS)))])
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = 'annotations_prompt'::regclass")
        assert cursor.fetchone() == (MANY_ROWS,)
