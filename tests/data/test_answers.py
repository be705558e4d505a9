"""Right answers of prompts: in by file, form and API, out in snapshots and exports, and gone when the prompt is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotations.export import prompt_row
from annotations.models import Prompt
from annotations.services.erasure import erase_prompts
from annotations.services.prompts import PromptCheck, add_prompts
from tests import factories
from webapp.accounts.models import Project, User
from webapp.data.exports import export_lines, format_of
from webapp.data.exports.selection import Selection
from webapp.data.loading import load
from webapp.data.shapes import LeftOut, PromptItem, items

pytestmark = pytest.mark.django_db
ASKED = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture
def mos(client: Client, mo: User) -> Client:
    client.force_login(mo)
    return client


def only(record: Any) -> Any:
    (item,) = items(record)
    return item


@pytest.mark.parametrize(
    ("columns", "reference", "data"),
    [
        ({"reference": "4"}, "4", None),
        ({"ground_truth": 4}, 4, None),
        ({"expected_answer": ["4", "four"]}, ["4", "four"], None),
        ({"reference": "", "reference_json": "[4]"}, [4], None),
        ({"reference": "4", "data": {"level": 1}}, "4", {"level": 1}),
        ({"data": '{"level": 1}'}, None, {"level": 1}),
        ({"test_list": ["assert f(2) == 4"]}, None, {"tests": ["assert f(2) == 4"]}),
        ({"reference": "4\0"}, "4", None),
    ],
)
def test_columns_that_hold_the_right_answer_are_read(columns: Any, reference: Any, data: Any) -> None:
    expected = PromptItem(ASKED, reference=reference, data=data)
    assert only({"prompt": "What is 2+2?", **columns}) == expected
    assert only({"messages": ASKED, **columns}) == expected


@pytest.mark.parametrize(
    "columns", [{"data": "{"}, {"data": [1]}, {"reference": float("nan")}, {"reference": "\ud83d"}]
)
def test_answers_that_cannot_be_kept_leave_the_row_out(columns: Any) -> None:
    assert isinstance(only({"prompt": "What is 2+2?", **columns}), LeftOut)


def loaded(project: Project, ada: User, folder: Path, *rows: Any, **options: Any) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    load(project=project, by=ada, paths=[folder / "rows.jsonl"], **options)


def test_the_answers_of_questions_that_are_taken_as_prompts_are_their_references(
    project: Project, ada: User, tmp_path: Path
) -> None:
    gsm8k = {"question": "What is 2+2?", "answer": "It is <<2+2=4>>4.\n#### 4"}
    loaded(project, ada, tmp_path, gsm8k, kind="prompts")
    assert Prompt.objects.get().reference == gsm8k["answer"]


def test_a_file_that_comes_again_with_an_answer_gives_it_to_the_prompt(
    project: Project, ada: User, tmp_path: Path
) -> None:
    loaded(project, ada, tmp_path, {"prompt": "What is 2+2?"})
    loaded(project, ada, tmp_path, {"prompt": "What is 2+2?", "reference": "4"})
    loaded(project, ada, tmp_path, {"prompt": "What is 2+2?", "data": {"level": 1}})
    loaded(project, ada, tmp_path, {"prompt": "What is 2+2?"})
    prompt = Prompt.objects.get()
    assert (prompt.reference, prompt.data) == ("4", {"level": 1})


@pytest.mark.parametrize("reference", ["4", "[4]", "", 4, ["4", "four"], {"a": None}, None])
def test_an_export_brings_answers_back_as_they_were(
    project: Project, ada: User, tmp_path: Path, reference: Any
) -> None:
    check = PromptCheck(reference or None, {"level": 1} if reference else None)
    add_prompts(project=project, conversations=[ASKED], source=Prompt.Source.API, checks=[check])
    (tmp_path / "prompts.jsonl").write_text("".join(export_lines(format_of("prompts"), project, Selection())))
    other = Project.objects.create(slug="other", name="Other", created_by=ada)
    load(project=other, by=ada, paths=[tmp_path / "prompts.jsonl"])
    prompt = Prompt.objects.get(project=other)
    assert (prompt.reference, prompt.data) == tuple(check)
    (line,) = export_lines(format_of("prompts", "prompt-only"), project, Selection())
    columns = json.loads(line)
    assert all(isinstance(columns[name], str) for name in ("reference", "data"))


def test_training_gets_the_answer_and_an_erased_prompt_has_none(project: Project) -> None:
    check = PromptCheck("4", {"level": 1})
    (prompt,) = add_prompts(project=project, conversations=[ASKED], source=Prompt.Source.API, checks=[check])
    row = prompt_row(prompt)
    assert (row.reference, row.data) == ("4", {"level": 1})
    erase_prompts(prompts=[prompt.pk], now=timezone.now())
    prompt.refresh_from_db()
    assert (prompt.reference, prompt.data) == (None, None)


def test_a_manager_sees_and_sets_the_answer_on_the_prompts_page(mos: Client, project: Project) -> None:
    prompt = factories.prompt(project, "What is 2+2?")
    address = f"/projects/{project.slug}/data/prompts/{prompt.pk}/"
    assert "Annotators do not see it" in mos.get(address).content.decode()
    mos.post(f"{address}answer/", {"reference": "4", "data": '{"level": 1}'})
    prompt.refresh_from_db()
    assert (prompt.reference, prompt.data) == ("4", {"level": 1})
    assert "&quot;level&quot;: 1" in mos.get(address).content.decode()
    mos.post(f"{address}answer/", {"reference": '["4", "four"]', "data": ""})
    prompt.refresh_from_db()
    assert (prompt.reference, prompt.data) == (["4", "four"], None)
    mos.post(f"{address}answer/", {"reference": "", "data": ""})
    prompt.refresh_from_db()
    assert prompt.reference is None


@pytest.mark.parametrize("data", ["{", "[1]", '{"a": "\\u0000"}', '{"a": NaN}', "[" * 100])
def test_data_that_is_no_object_is_refused_and_nothing_changes(mos: Client, project: Project, data: str) -> None:
    prompt = factories.prompt(project, "What is 2+2?", reference="4")
    address = f"/projects/{project.slug}/data/prompts/{prompt.pk}/"
    page = mos.post(f"{address}answer/", {"reference": "5", "data": data}, follow=True).content.decode()
    assert "Nothing was saved. Data:" in page
    prompt.refresh_from_db()
    assert prompt.reference == "4"
