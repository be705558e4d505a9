from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotations.models import Demonstration, Ranking
from webapp.accounts.models import Project

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[2]
GIVEN = Path(os.environ.get("TUTELAGE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def run(*args: object, **options: object) -> str:
    out = StringIO()
    call_command("load", *map(str, args), stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


def test_it_says_what_was_taken_and_what_was_left_out(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Say hi", "response": "Hi!"}\n{"instruction": "Go", "response": ""}\n')
    told = run("kite", path)
    assert "demonstrations: 1 found, 1 new, 0 already imported" in told
    assert "left out 1: the reply is empty (rows.jsonl:2)" in told
    assert "demonstrations: 1 found, 0 new, 1 already imported" in run("kite", path)


def test_a_dry_run_loads_nothing(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Say hi", "response": "Hi!"}\n')
    assert "would be loaded" in run("kite", path, dry_run=True)
    assert not Demonstration.objects.exists()


def test_an_unknown_project_is_answered_with_those_there_are(project: Project, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"There is no project kit\. Projects: kite\."):
        run("kit", tmp_path / "x.jsonl")


def test_a_data_folder_without_a_site_is_told_at_once_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "load", "kite", "rows.jsonl"],
        env=environment | {"TUTELAGE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "There is no database in" in done.stderr
    assert not home.exists()


def test_a_dry_run_shows_how_rows_will_be_read_and_which_columns_are_not_used(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Sing", "completion": "La", "label": true, "topic": "music"}\n')
    told = run("kite", path, dry_run=True)
    assert "judgments: 1 found, would be loaded" in told
    assert "columns that were not used: topic (1)" in told
    assert (
        'judgments, rows.jsonl:1: {"messages": [{"role": "user", "content": "Sing"}], "reply": "La", "good": true'
        in told
    )


def test_bad_rows_of_every_kind_are_left_out_in_every_file_and_no_others(project: Project, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b'{"prompt": "a"\n[1]\n{"x": 1}\n{"prompt": "\xff"}\n' * 30 + b'{"prompt": "Sing"}\n')
    table = tmp_path / "table.csv"
    table.write_text("prompt\nDance\na,b,c\nRead\n")
    told = run("kite", broken, table, skip_bad=True)
    assert "prompts: 3 found, 3 new" in told
    for reason in ("not valid JSON", "neither an object nor a string", "of no shape that we know", "not UTF-8 text"):
        assert f"left out 30: {reason} (broken.jsonl:" in told
    assert "left out 1: a row that does not fit its columns (table.csv:3)" in told


def test_a_missing_file_is_named(project: Project, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no such file"):
        run("kite", tmp_path / "absent.jsonl")


@pytest.mark.skipif(not GIVEN.is_dir(), reason="the folder of real data (TUTELAGE_DATA) is not here")
def test_real_human_preferences_load(project: Project) -> None:
    told = run(
        "kite",
        GIVEN / "preferences" / "hh_helpful_base.jsonl.gz",
        GIVEN / "preferences" / "oasst_en_100_trees.jsonl.gz",
    )
    assert "left out 6: chosen and rejected answer different prompts" in told
    assert Ranking.objects.filter(source_ref__startswith="hh_helpful").count() > 1800
    assert Ranking.objects.filter(source_ref__startswith="oasst").count() > 170
