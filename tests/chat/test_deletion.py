"""A word is planted through the chat, carried to every place that words go, and must be nowhere after its deletion.

Over 300 lines: the planted word and its path through every table are shared by all cases.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from django.utils import timezone
from fsspec.core import url_to_fs
from psycopg import sql

from annotations import export
from annotations.models import Demonstration, Draft, Lease, Prompt, Ranking, Response, Review, Task
from annotations.services import drafts, labels, leases
from annotations.services.prompts import add_prompt
from annotations.services.seats import free_seat
from tests import factories
from tests.chat.conftest import answer, reply_of
from tests.narrowing import existing
from training.contract import DATA, EVENTS, LOG, OUTPUT
from webapp.accounts.models import Project, User
from webapp.accounts.selectors import consent_of
from webapp.chat.live import client as redis_client
from webapp.chat.models import Conversation, Erasure, Feedback, Message
from webapp.chat.services import conversations, feedback, replies
from webapp.chat.services.account import delete_account
from webapp.chat.services.erasure import erased_rows
from webapp.chat.services.replies import KEEP_DELETED, drop_old_pieces
from webapp.datasets.models import Snapshot, SnapshotItem
from webapp.datasets.services import create_snapshot
from webapp.errors import Conflict
from webapp.registry.artefacts import hashes_of, publish_folder
from webapp.runs.folders import folder_of, prepare_folder
from webapp.runs.lineage import models_that_learned_from_rows
from webapp.runs.models import Run, RunEvent
from webapp.runs.services import resume_run
from webapp.runs.services.redaction import redact_files

WORD = "BANANA4711"


@pytest.fixture
def places(settings: LazySettings, tmp_path: Path) -> Path:
    settings.ARTEFACTS_URL = f"file://{tmp_path}/artefacts"
    settings.RUNS_FOLDER = tmp_path / "runs"
    return tmp_path


def rows_that_say(word: str) -> list[str]:
    """Every row of every table whose text, in any column, has the word."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        found = []
        for (table,) in cursor.fetchall():
            query = sql.SQL("SELECT r::text FROM {} AS r WHERE r::text ILIKE %s").format(sql.Identifier(table))
            cursor.execute(query, [f"%{word}%"])
            found += [f"{table}: {row}" for (row,) in cursor.fetchall()]
    return found


def files_that_say(word: str, *folders: Path) -> list[str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if word.encode() in path.read_bytes()]


def keys_that_say(word: str) -> list[bytes]:
    client = redis_client()
    return [key for key in client.scan_iter() if word.encode() in (client.dump(key) or b"")]


def exported(project: Project) -> str:
    rows = [*export.demonstration_rows(project), *export.ranking_rows(project), *export.prompt_rows(project)]
    return "\n".join(row.model_dump_json() for row in rows)


@pytest.fixture
def planted(deployed: Project, tess: User) -> Conversation:
    """Tess has said the word in every place where the chat takes words; others have answered it in theirs."""
    deployed.write_overlap = 3
    deployed.save()
    feedback.allow_use(user=tess, project=deployed)
    talk = conversations.begin_conversation(user=tess, project=deployed, text=f"My {WORD} is what?", token=uuid.uuid4())
    first = answer(talk, f"A fruit called {WORD}.")
    conversations.regenerate(message=first, token=uuid.uuid4())
    second = answer(talk, f"Yellow, your {WORD}.")
    feedback.pick(winner=second, loser=first, user=tess)
    feedback.set_thumb(reply=first, user=tess, thumb=-1)
    feedback.say_more(reply=second, user=tess, reasons=[], comment=f"Not my {WORD}", better_answer=f"{WORD} one")
    feedback.say_more(reply=second, user=tess, reasons=[], comment="", better_answer=f"{WORD} two")
    user_message = existing(talk.messages.filter(role="user").first())
    conversations.edit(message=user_message, text=f"I meant {WORD}, so?", token=uuid.uuid4())
    third = answer(talk, f"Ah, {WORD}.")
    feedback.set_thumb(reply=third, user=tess, thumb=-1)
    conversations.rename(conversation=talk, title=f"About {WORD}")
    return talk


def label_it(project: Project, ann: User, ben: User, mo: User) -> None:
    """Everyone's work on it: replies, rankings with reasons, a review with changes, drafts, a reason to skip."""
    for task in Task.objects.filter(state=Task.State.OPEN).order_by("pk"):
        for person in (ann, ben, mo):
            work(held(task, person), person, ann, ben)


def held(task: Task, person: User) -> Lease:
    return task.leases.create(
        person=person,
        until=timezone.now() + timedelta(hours=1),
        order_shown=[response.pk for response in task.responses.order_by("pk")],
        seat=free_seat(task),
    )


def work(lease: Lease, person: User, ann: User, ben: User) -> None:
    task, token = lease.task, uuid.uuid4()
    if person == ben:
        drafts.save_draft(lease=lease, content={"text": f"half of {WORD}"}, page=drafts.PageState())
    elif person != ann:
        leases.skip(lease=lease, reason=f"I know no {WORD}")
    elif task.kind == Task.Kind.WRITE:
        labels.submit_demonstration(lease=lease, token=token, text=f"Ann on {WORD}")
    elif task.kind == Task.Kind.RANK:
        labels.submit_ranking(lease=lease, token=token, groups=[[r] for r in lease.order_shown], reason=f"{WORD}!")
    else:
        labels.submit_review(
            lease=lease, token=token, verdict=Review.Verdict.EDIT, text=f"{WORD} mended", comment=f"so {WORD}"
        )


@pytest.fixture
def labeled(planted: Conversation, project: Project, ann: User, ben: User, mo: User) -> Conversation:
    label_it(project, ann, ben, mo)
    Demonstration.objects.filter(retracted_at=None).exclude(state="replaced").update(state="accepted")
    assert Draft.objects.exists()
    assert {Demonstration, Ranking, Review} == {
        model for model in (Demonstration, Ranking, Review) if model.objects.filter(author=ann).exists()
    }
    return planted


@pytest.fixture
def trained(labeled: Conversation, project: Project, places: Path) -> Run:
    """A run has read a snapshot, shown the word in samples and kept it in its outputs; other snapshots hold it too."""
    bystander = factories.prompt(project, "What is a pen?")
    snapshots = [
        create_snapshot(project=project, kind=kind, by=project.created_by)
        for kind in ("demonstrations", "rankings", "prompts")
    ]
    made = factories.model_version(project, name="Learned it")
    run = factories.run(project, "sample", state=Run.State.RUNNING, started_at=timezone.now(), output=made)
    run.config = {"stage": "sample", "replies": 2}
    run.save()
    run.snapshots.add(snapshots[2])
    sft = factories.run(project, "sft", state=Run.State.FAILED, started_at=timezone.now())
    sft.snapshots.add(*snapshots[:2])
    for each in (run, sft):
        fill(each, prepare_folder(each))
    publish_output(run, bystander)
    return run


def fill(run: Run, folder: Path) -> None:
    sample = {
        "type": "sample",
        "time": 1.0,
        "step": 1,
        "prompt": f"My {WORD} is what?",
        "reply": f"{WORD}?",
        "detail": {},
    }
    progress = {"type": "progress", "time": 2.0, "step": 1, "total": 2}
    (folder / EVENTS).write_text(json.dumps(sample) + "\n" + json.dumps(progress) + "\n")
    (folder / LOG).write_text(f"> 'My {WORD} is what?'\n< '{WORD}?'\nstep 1/2\n")
    data = {key: sample[key] for key in ("prompt", "reply", "detail")}
    RunEvent.objects.create(run=run, position=0, type="sample", step=1, time=timezone.now(), data=data)
    (folder / "checkpoint-1").mkdir()


def publish_output(run: Run, bystander: Prompt) -> None:
    output = folder_of(run) / OUTPUT
    output.mkdir()
    lines = []
    for prompt in Prompt.objects.filter(project=run.project):
        row = {"id": f"prompt:{prompt.pk}#0", "prompt_id": f"prompt:{prompt.pk}", "messages": prompt.messages}
        said = "A pen." if prompt == bystander else f"No {WORD}."
        lines.append(json.dumps(row | {"reply": said, "tokens": 2, "finish": "stop", "logprob": -1.0}) + "\n")
    (output / "samples.jsonl").write_text("".join(lines))
    address = publish_folder(output, folder_name="outputs", files=hashes_of(output))
    run.outputs = {"samples.jsonl": f"{address}/samples.jsonl"}
    run.save()


def everywhere(places: Path, settings: LazySettings) -> list[str]:
    return [*rows_that_say(WORD), *files_that_say(WORD, places, settings.HOME), *map(str, keys_that_say(WORD))]


def end(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state=Run.State.SUCCEEDED)
    assert redact_files()["runs"] >= 1


def test_the_search_finds_the_word_wherever_it_was_planted(
    trained: Run, project: Project, places: Path, settings: LazySettings
) -> None:
    tables = {row.partition(":")[0] for row in rows_that_say(WORD)}
    assert tables >= {
        "annotations_prompt", "annotations_response", "annotations_draft",
        "annotations_lease", "annotations_ranking", "annotations_review", "chat_conversation", "chat_message",
        "chat_event", "chat_feedback", "runs_runevent",
    }  # fmt: skip
    files = files_that_say(WORD, places)
    assert {Path(file).name for file in files} >= {"train.jsonl", "prompts.jsonl", "samples.jsonl", EVENTS, LOG}
    assert WORD in exported(project)


def delete_all(talk: Conversation) -> None:
    conversations.delete_all(user=talk.user, project=talk.project)


def delete_one(talk: Conversation) -> None:
    conversations.delete_for_good(conversation=talk)


def let_a_month_pass(talk: Conversation) -> None:
    conversations.delete(conversation=talk)
    drop_old_pieces(now=timezone.now() + KEEP_DELETED + timedelta(minutes=1))


@pytest.mark.parametrize("way", [delete_all, delete_one, let_a_month_pass])
def test_a_deleted_word_is_in_no_table_and_in_no_file(
    way: Callable[[Conversation], None],
    labeled: Conversation,
    trained: Run,
    project: Project,
    places: Path,
    settings: LazySettings,
) -> None:
    way(labeled)

    assert WORD not in exported(project)
    redact_files()
    assert rows_that_say(WORD) == [] or all(row.startswith("runs_runevent") for row in rows_that_say(WORD))
    assert all(str(folder_of(trained)) in file or "outputs" in file for file in files_that_say(WORD, places))
    end(trained)
    assert everywhere(places, settings) == []
    assert "What is a pen?" in exported(project)
    assert "What is a pen?" in (folder_of(trained) / DATA / "prompts.jsonl").read_text()


def test_withdrawn_consent_leaves_the_words_only_in_the_persons_own_chat(
    labeled: Conversation, trained: Run, project: Project, tess: User, places: Path, settings: LazySettings
) -> None:
    feedback.forbid_use(user=tess, project=project)
    end(trained)

    found = everywhere(places, settings)
    assert found
    assert all(place.startswith("chat_") for place in found)
    assert Feedback.objects.filter(better_answer__contains=WORD, prompt=None).exists()


def test_consent_can_be_withdrawn_after_the_conversations_are_gone(
    labeled: Conversation, project: Project, tess: User
) -> None:
    conversations.delete_all(user=tess, project=project)
    assert consent_of(user=tess, project=project) is not None

    feedback.forbid_use(user=tess, project=project)

    assert consent_of(user=tess, project=project) is None


def test_prompts_that_an_earlier_deletion_left_behind_go_with_the_consent(
    labeled: Conversation, project: Project, tess: User
) -> None:
    Conversation.objects.all().delete()
    assert WORD in exported(project)

    feedback.forbid_use(user=tess, project=project)

    assert rows_that_say(WORD) == []


def test_the_clean_up_erases_what_an_earlier_version_left_of_deleted_conversations(
    labeled: Conversation, project: Project, tess: User
) -> None:
    standing = conversations.begin_conversation(
        user=tess, project=project, text="Who flies a kite?", token=uuid.uuid4()
    )
    feedback.say_more(reply=answer(standing, "A"), user=tess, reasons=[], comment="", better_answer="One")
    feedback.say_more(reply=reply_of(standing), user=tess, reasons=[], comment="", better_answer="Two")
    Conversation.objects.filter(pk=labeled.pk).delete()
    assert WORD in exported(project)

    drop_old_pieces()

    assert rows_that_say(WORD) == []
    assert Demonstration.objects.get(retracted_at=None, author=tess).response.text == "Two"


def test_the_models_that_learned_from_it_stay_known(
    trained: Run, labeled: Conversation, project: Project, tess: User
) -> None:
    conversations.delete_all(user=tess, project=project)

    erasure = Erasure.objects.get()
    assert set(erasure.rows) == {"prompts", "demonstrations", "rankings"}
    assert [model.name for model in models_that_learned_from_rows(erasure.rows)] == ["Learned it"]


def test_a_run_that_begins_after_the_deletion_reads_and_learns_nothing_of_it(
    trained: Run, labeled: Conversation, project: Project, tess: User, places: Path
) -> None:
    conversations.delete_all(user=tess, project=project)
    later = factories.run(project, "sample", state=Run.State.SUCCEEDED, started_at=timezone.now())
    later.snapshots.set(trained.snapshots.all())
    later.output = factories.model_version(project, name="Knows nothing")
    later.save()
    redact_files()
    prepare_folder(later)

    assert files_that_say(WORD, folder_of(later)) == []
    learned = models_that_learned_from_rows(Erasure.objects.get().rows)
    assert "Knows nothing" not in [model.name for model in learned]


def test_a_snapshot_says_that_it_was_redacted_and_keeps_its_hash(
    trained: Run, labeled: Conversation, project: Project, tess: User
) -> None:
    before = Snapshot.objects.get(kind="prompts")
    conversations.delete_all(user=tess, project=project)
    redact_files()

    after = Snapshot.objects.get(kind="prompts")
    assert (after.content_hash, after.counts) == (before.content_hash, before.counts)
    assert after.redacted_at is not None
    assert SnapshotItem.objects.filter(snapshot=after, erased_at__isnull=False).count() == 2
    lines = Path(url_to_fs(after.files["train"])[1]).read_text().splitlines()
    lines += Path(url_to_fs(after.files["heldout"])[1]).read_text().splitlines()
    assert [json.loads(line)["messages"][0]["content"] for line in lines] == ["What is a pen?"]
    assert redact_files() == {"snapshots": 0, "runs": 0}


def test_a_run_whose_rows_were_deleted_is_not_resumed(
    trained: Run, labeled: Conversation, project: Project, tess: User
) -> None:
    conversations.delete_all(user=tess, project=project)
    sft = Run.objects.get(stage="sft")
    for _ in range(2):
        with pytest.raises(Conflict, match="Retry it: it starts again without those rows"):
            resume_run(run=sft, by=project.created_by)
        redact_files()


def test_events_keep_their_places_in_the_file(
    trained: Run, labeled: Conversation, project: Project, tess: User
) -> None:
    path = folder_of(trained) / EVENTS
    before = path.read_bytes()
    conversations.delete_all(user=tess, project=project)
    end(trained)

    after = path.read_bytes()
    assert [len(line) for line in after.splitlines()] == [len(line) for line in before.splitlines()]
    assert json.loads(after.splitlines()[0])["prompt"] == "[removed]"
    assert after.splitlines()[1] == before.splitlines()[1]


def test_what_is_sent_in_after_the_deletion_is_refused_and_not_kept(
    planted: Conversation, project: Project, ann: User, ben: User, tess: User
) -> None:
    task = existing(Task.objects.filter(kind=Task.Kind.WRITE).first())
    anns, bens = held(task, ann), held(task, ben)
    conversations.delete_all(user=tess, project=project)

    with pytest.raises(Conflict, match="has deleted it"):
        labels.submit_demonstration(lease=anns, token=uuid.uuid4(), text=f"Late {WORD}")
    with pytest.raises(Conflict):
        drafts.save_draft(lease=bens, content={"text": f"Late {WORD}"}, page=drafts.PageState())
    leases.skip(lease=bens, reason=f"Late {WORD}")
    assert rows_that_say(WORD) == []


def test_a_conversation_that_another_person_had_too_stays_theirs(deployed: Project, tess: User, ann: User) -> None:
    for person, said in ((tess, "Tess's better"), (ann, "Ann's better")):
        feedback.allow_use(user=person, project=deployed)
        talk = conversations.begin_conversation(
            user=person, project=deployed, text="What is a kite?", token=uuid.uuid4()
        )
        reply = answer(talk, f"A toy, {person}.")
        feedback.say_more(reply=reply, user=person, reasons=[], comment="", better_answer=said)

    conversations.delete_all(user=tess, project=deployed)

    assert Prompt.objects.get().erased_at is None
    assert rows_that_say("Tess's better") == []
    assert Response.objects.filter(text="Ann's better").exists()
    conversations.delete_all(user=ann, project=deployed)
    assert Prompt.objects.get().erased_at is not None


def test_a_prompt_that_was_imported_before_it_was_asked_in_a_chat_stays(deployed: Project, tess: User) -> None:
    messages = [{"role": "user", "content": "What is a kite?"}]
    prompt = add_prompt(project=deployed, messages=messages, source=Prompt.Source.IMPORT, by=deployed.created_by)
    feedback.allow_use(user=tess, project=deployed)
    talk = conversations.begin_conversation(user=tess, project=deployed, text="What is a kite?", token=uuid.uuid4())
    feedback.say_more(reply=answer(talk, "A toy."), user=tess, reasons=[], comment="", better_answer=f"My {WORD}")

    conversations.delete_all(user=tess, project=deployed)

    prompt.refresh_from_db()
    assert (prompt.erased_at, prompt.withdrawn_at) == (None, None)
    assert rows_that_say(WORD) == []


def test_an_export_that_was_read_back_in_under_the_system_prompt_goes_too(deployed: Project, tess: User) -> None:
    deployed.system_prompt = "Be brief."
    deployed.save()
    feedback.allow_use(user=tess, project=deployed)
    talk = conversations.begin_conversation(user=tess, project=deployed, text=f"What is {WORD}?", token=uuid.uuid4())
    feedback.set_thumb(reply=answer(talk, "A toy."), user=tess, thumb=-1)
    for row in list(export.prompt_rows(deployed, system=deployed.system_prompt)):
        messages = [turn.model_dump() for turn in row.messages]
        add_prompt(project=deployed, messages=messages, source=Prompt.Source.IMPORT, by=deployed.created_by)
    assert Prompt.objects.count() == 2

    conversations.delete_all(user=tess, project=deployed)

    assert rows_that_say(WORD) == []


def test_a_reply_that_is_being_written_ends_with_its_conversation(deployed: Project, tess: User) -> None:
    talk = conversations.begin_conversation(user=tess, project=deployed, text=f"Tell me of {WORD}", token=uuid.uuid4())
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    assert replies.append(message_id=reply.pk, text=f"{WORD} is")

    conversations.delete_all(user=tess, project=deployed)

    assert not replies.append(message_id=reply.pk, text=f"more {WORD}")
    assert rows_that_say(WORD) == []
    assert not Message.objects.exists()


def test_a_deleted_account_leaves_neither_words_nor_name(
    labeled: Conversation, trained: Run, client: Client, tess: User, places: Path, settings: LazySettings
) -> None:
    tess.name, tess.email = "Tessa Unusual", "tessa.unusual@example.org"
    tess.save()
    client.force_login(tess)
    assert client.post("/chat/data/delete-account/", {"email": "other@example.org"}).status_code == 400
    assert Conversation.objects.exists()

    client.post("/chat/data/delete-account/", {"email": tess.email})
    end(trained)

    assert everywhere(places, settings) == []
    assert rows_that_say("unusual") == []
    assert client.get("/chat/data/").status_code == 302
    assert not client.login(email="tessa.unusual@example.org", password=factories.PASSWORD)
    assert [model.name for model in models_that_learned_from_rows(erased_rows(Erasure.objects.all()))] == ["Learned it"]


def test_who_alone_owns_a_project_cannot_leave_it_behind(project: Project, ada: User) -> None:
    with pytest.raises(Conflict, match="only owner of Kite"):
        delete_account(user=ada)
    ada.refresh_from_db()
    assert ada.is_active


def test_work_for_a_project_stays_without_its_authors_name(project: Project, ann: User) -> None:
    factories.demonstration(project, ann, "A good reply.", state="accepted")

    delete_account(user=ann)

    demonstration = Demonstration.objects.get()
    assert (demonstration.response.text, str(demonstration.author)) == ("A good reply.", "Deleted person")
