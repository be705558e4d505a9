"""What leaves a project: own rows, the formats of other tools, and how they are sent."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from datasets import Dataset, load_dataset
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.models import Demonstration, Prompt, Ranking, Task
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.data.exports import EXPORTS, Selection, export_lines, format_of
from webapp.data.exports.trl import pairs

pytestmark = pytest.mark.django_db
ACCEPTED = Demonstration.State.ACCEPTED
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def rows(project: Project) -> Rows:
    def read(kind: str, name: str = "", **filters: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for line in export_lines(format_of(kind, name), project, Selection(**filters))]

    return read


@pytest.fixture
def ranked(project: Project, ann: User) -> Ranking:
    """Three replies: the second is best, the other two tie. Ann rated, flagged and explained."""
    task = factories.task(project, Task.Kind.RANK, replies=3, prompt=factories.prompt(project, "What is a kite?"))
    a, b, c = task.responses.order_by("pk")
    return factories.ranking(
        project, ann, task=task, groups=[[b.pk], [a.pk, c.pk]], strength=2.0, reason="Straight to the point.",
        ratings={str(b.pk): 7, str(a.pk): 2}, flags={str(a.pk): ["wrong", "rude"]}, active_seconds=12.5,
        guidelines=project.guidelines.get(),
    )  # fmt: skip


def test_a_ranking_leaves_with_all_that_was_said_of_its_replies(rows: Rows, ranked: Ranking, ann: User) -> None:
    (row,) = rows("rankings")
    replies = list(existing(ranked.task).responses.order_by("pk").values_list("text", flat=True))
    assert (row["id"], row["replies"], row["groups"]) == (f"ranking:{ranked.pk}", replies, [[1], [0, 2]])
    assert (row["ratings"], row["flags"]) == ([2, 7, 0], ["wrong,rude", "", ""])
    assert (row["strength"], row["reason"], row["active_seconds"]) == (2.0, "Straight to the point.", 12.5)
    assert (row["annotator"], row["guidelines"], row["split"]) == (f"person:{ann.pk}", 1, "train")


def test_people_are_named_where_the_project_says_so(rows: Rows, project: Project, ranked: Ranking, ann: User) -> None:
    factories.judgment(project, ann, annotator="rater-7")
    Project.objects.filter(pk=project.pk).update(name_annotators=True)
    project.refresh_from_db()
    assert rows("rankings")[0]["annotator"] == f"Ann (person:{ann.pk})"
    assert rows("judgments")[0]["annotator"] == "rater-7", "who gave an imported label is what its file says"


def test_held_out_rows_are_marked_and_can_be_left_out(rows: Rows, project: Project, ann: User) -> None:
    for split in Prompt.Split.values:
        prompt = factories.prompt(project, split=split)
        factories.demonstration(project, ann, prompt=prompt, state=ACCEPTED)
    for kind in ("prompts", "demonstrations"):
        assert [row["split"] for row in rows(kind)] == ["train", "heldout"]
        assert [row["split"] for row in rows(kind, split="train")] == ["train"]
    assert [row["split"] for row in rows("demonstrations", "sft")] == ["train", "heldout"]


def test_masked_turns_weigh_nothing_and_the_system_prompt_goes_in_front(
    rows: Rows, project: Project, ann: User
) -> None:
    Project.objects.filter(pk=project.pk).update(system_prompt="Be brief.")
    project.refresh_from_db()
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Go away."},
        {"role": "user", "content": "Please?"},
    ]
    prompt = factories.prompt(project, messages=turns)
    factories.demonstration(project, ann, "Hello!", prompt=prompt, state=ACCEPTED, masked_turns=[1])
    (row,) = rows("demonstrations")
    assert [(turn["content"], turn["weight"]) for turn in row["messages"]] == [
        ("Be brief.", 1), ("Hi.", 1), ("Go away.", 0), ("Please?", 1), ("Hello!", 1),
    ]  # fmt: skip
    assert rows("demonstrations", "sft") == [], "SFTTrainer would learn the masked turn"
    (row,) = rows("demonstrations", "sft-last-reply")
    assert (len(row["prompt"]), row["completion"]) == (4, [{"role": "assistant", "content": "Hello!"}])


def test_what_is_withdrawn_or_rejected_leaves_only_when_asked_for(rows: Rows, project: Project, ann: User) -> None:
    label = factories.demonstration(project, ann, "Because.", state=ACCEPTED)
    factories.demonstration(project, ann, "No.", state=Demonstration.State.REJECTED)
    label.retracted_at = label.created_at
    label.save()
    assert rows("demonstrations") == []
    assert [row["state"] for row in rows("demonstrations", state="all")] == ["withdrawn", "rejected"]


def test_a_review_leaves_with_its_demonstration(rows: Rows, project: Project, ann: User, ben: User) -> None:
    label = factories.demonstration(project, ann, state=ACCEPTED)
    label.reviews.create(
        prompt=label.prompt, author=ben, token=label.token, verdict="accept", comment="Clear and kind."
    )
    (row,) = rows("demonstrations")
    assert (row["review_verdict"], row["review_comment"]) == ("accept", "Clear and kind.")


def test_rows_can_be_narrowed_to_a_person_and_a_day(
    client: Client, mo: User, project: Project, ann: User, ben: User
) -> None:
    factories.judgment(project, ann, "By Ann.")
    factories.judgment(project, ben, "By Ben.")
    client.force_login(mo)
    address = reverse("data_export", args=["kite", "judgments"])
    mine = client.get(address, {"author": ann.pk, "since": "2020-01-01"}).getvalue()  # type: ignore[arg-type]
    assert (b"By Ann." in mine, b"By Ben." in mine) == (True, False)
    assert client.get(address, {"since": "2999-01-01"}).getvalue() == b""


def test_each_better_reply_makes_a_pair_with_each_worse_one() -> None:
    assert list(pairs([[1], [0, 2]])) == [(1, 0), (1, 2)]
    assert list(pairs([[0, 1], [2], [3]])) == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    assert list(pairs([[0, 1]])) == [], "a tie says nothing"


def test_a_ranking_becomes_pairs_and_good_and_bad_replies(rows: Rows, ranked: Ranking) -> None:
    a, b, c = existing(ranked.task).responses.order_by("pk").values_list("text", flat=True)
    found = rows("rankings", "preference")
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in found] == [(b, a), (b, c)]
    assert found[0]["prompt"] == [{"role": "user", "content": "What is a kite?"}]
    judged = {row["completion"][0]["content"]: row["label"] for row in rows("rankings", "kto")}
    assert judged == {b: True, a: False, c: False}


def test_labels_of_no_weight_do_not_go_out_to_trainers(
    rows: Rows, project: Project, ann: User, ranked: Ranking
) -> None:
    Ranking.objects.update(weight=0)
    factories.judgment(project, ann, weight=0)
    assert rows("rankings", "preference") == rows("rankings", "kto") == rows("judgments", "kto") == []
    assert [row["weight"] for row in rows("rankings")] == [0.0]


def test_a_table_keeps_text_from_becoming_a_formula(project: Project, ann: User) -> None:
    factories.judgment(project, ann, '=HYPERLINK("http://x.example")')
    text = "".join(export_lines(format_of("judgments", "csv"), project, Selection()))
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")))
    assert row["reply"] == '\'=HYPERLINK("http://x.example")'
    assert json.loads(row["messages"])[0]["role"] == "user"
    assert row["good"] == "true"


# ------------------------------------------------------------------------------------- read by the datasets library


def loaded(path: Path) -> Dataset:
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


def write(path: Path, project: Project, kind: str, name: str = "") -> Path:
    path.write_text("".join(export_lines(format_of(kind, name), project, Selection(state="all"))))
    return path


def fill(project: Project, ann: User, ranked: Ranking) -> None:
    factories.demonstration(project, ann, "A toy.", state=ACCEPTED)
    factories.judgment(project, ann)
    factories.corpus(project)


def jsonl_formats() -> list[Any]:
    """(kind, format); our own rankings, which have the most that may be missing, are tried every time."""
    found = [(kind, name) for kind, formats in EXPORTS.items() for name in formats if formats[name].suffix == "jsonl"]
    usual = ("rankings", "tutelage")
    return [pytest.param(*one, marks=() if one == usual else pytest.mark.slow, id="-".join(one)) for one in found]


@pytest.mark.parametrize(("kind", "name"), jsonl_formats())
def test_a_value_that_comes_after_10_mb_still_loads(
    kind: str, name: str, project: Project, ann: User, ranked: Ranking, tmp_path: Path
) -> None:
    fill(project, ann, ranked)
    full = [json.loads(line) for line in export_lines(format_of(kind, name), project, Selection())]
    sparse = [emptied(row) for row in full]
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        size = 0
        while size < 11_000_000:
            size += sum(file.write(json.dumps(row) + "\n") for row in sparse)
        for row in full:
            file.write(json.dumps(row) + "\n")
    found = loaded(path)
    assert found[-1] == full[-1]
    assert "Json" not in str(found.features), "turns of unlike keys make a column of no type"


def emptied(row: dict[str, Any]) -> dict[str, Any]:
    """The same row with as little in it as such a row may have, and of 10 KB."""
    poor = {
        "strength": -1.0,
        "reason": "",
        "review_verdict": "",
        "review_comment": "",
        "source_ref": "",
        "guidelines": 0,
    }
    row = {key: poor.get(key, value) for key, value in row.items()}
    if "flags" in row:
        row |= {"flags": ["" for _ in row["flags"]], "ratings": [0 for _ in row["ratings"]]}
    return row | {"id": row["id"] + "x" * 10_000}


# ------------------------------------------------------------------------------------------------------ sent, whole


def test_an_export_names_its_file_and_is_kept_by_no_cache(client: Client, mo: User, ranked: Ranking) -> None:
    client.force_login(mo)
    answer = client.get(reverse("data_export", args=["kite", "rankings"]), {"as": "preference", "split": "train"})
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Disposition"] == 'attachment; filename="kite-rankings-preference-train.jsonl"'
    assert answer.getvalue().count(b"\n") == 2


@pytest.mark.parametrize(
    ("query", "status"),
    [({"as": "parquet"}, 404), ({"split": "both"}, 400), ({"author": "²"}, 400), ({"since": "yesterday"}, 400)],
)
def test_an_export_that_there_is_not_is_refused_in_a_sentence(
    client: Client, mo: User, query: dict[str, str], status: int
) -> None:
    client.force_login(mo)
    assert client.get(reverse("data_export", args=["kite", "rankings"]), query).status_code == status


def test_the_api_gives_the_same_rows(client: Client, mo: User, ranked: Ranking) -> None:
    client.force_login(mo)
    page = client.get(reverse("data_export", args=["kite", "rankings"]))
    api = client.get(reverse("api_export", args=["kite", "rankings"]))
    assert api.getvalue() == page.getvalue()
    assert client.get(reverse("api_export", args=["kite", "rankings"]), {"as": "nothing"}).json()["code"] == "not_found"


def test_every_kind_can_be_chosen_on_the_page(client: Client, mo: User, project: Project) -> None:
    client.force_login(mo)
    page = client.get(reverse("data_export_page", args=["kite"])).content.decode()
    for kind, formats in EXPORTS.items():
        assert reverse("data_export", args=["kite", kind]) in page
        assert all(chosen.title in page for chosen in formats.values())


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("error:StreamingHttpResponse")
def test_the_first_rows_leave_before_the_last_are_read_and_a_client_may_leave(project: Project, mo: User) -> None:
    for number in range(600):
        factories.prompt(project, f"{number} " + "x" * 1000)

    address = reverse("data_export", args=["kite", "prompts"])

    async def take(most: int) -> bytes:
        client = AsyncClient()
        await client.aforce_login(mo)
        pieces = aiter(await client.get(address))  # type: ignore[arg-type,var-annotated]
        found = [piece async for _, piece in azip(range(most), pieces)]
        await pieces.aclose()
        return b"".join(found)

    with CaptureQueriesContext(connection) as queries:
        first = async_to_sync(take)(1)
    assert 0 < first.count(b"\n") < 200
    assert sum('FROM "annotations_prompt"' in query["sql"] for query in queries) == 1, "one batch of three"
    assert async_to_sync(take)(1000).count(b"\n") == 600


async def azip(numbers: range, pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    for number in numbers:
        try:
            yield number, await anext(pieces)
        except StopAsyncIteration:
            return
