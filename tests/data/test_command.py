from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotations.models import Demonstration, Ranking

pytestmark = pytest.mark.django_db
GIVEN = Path(os.environ.get("TUTELAGE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def run(*args: object, **options: object) -> str:
    out = StringIO()
    call_command("load", *map(str, args), stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


def test_it_says_what_was_taken_and_what_was_left_out(project, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Say hi", "response": "Hi!"}\n{"instruction": "Go", "response": ""}\n')
    told = run("kite", path)
    assert "demonstrations: 1 found, 1 new, 0 known already" in told
    assert "left out 1: the reply is empty (rows.jsonl:2)" in told
    assert "demonstrations: 1 found, 0 new, 1 known already" in run("kite", path)


def test_a_dry_run_loads_nothing(project, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Say hi", "response": "Hi!"}\n')
    assert "would be loaded" in run("kite", path, dry_run=True)
    assert not Demonstration.objects.exists()


def test_an_unknown_project_is_answered_with_those_there_are(project, tmp_path):
    with pytest.raises(CommandError, match=r"There is no project kit\. Projects: kite\."):
        run("kit", tmp_path / "x.jsonl")


def test_a_missing_file_is_named(project, tmp_path):
    with pytest.raises(CommandError, match="there is no such file"):
        run("kite", tmp_path / "absent.jsonl")


@pytest.mark.skipif(not GIVEN.is_dir(), reason="the folder of real data (TUTELAGE_DATA) is not here")
def test_real_human_preferences_load(project):
    told = run(
        "kite",
        GIVEN / "preferences" / "hh_helpful_base.jsonl.gz",
        GIVEN / "preferences" / "oasst_en_100_trees.jsonl.gz",
    )
    assert "left out 6: chosen and rejected answer different prompts" in told
    assert Ranking.objects.filter(source_ref__startswith="hh_helpful").count() > 1800
    assert Ranking.objects.filter(source_ref__startswith="oasst").count() > 170
