"""The chat's pages, as plain requests.

Over 300 lines: all cases share the conversation that is shown.
"""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests import factories
from tests.chat.conftest import answer, reply_of
from tests.narrowing import existing
from webapp.accounts.models import Membership, Project, User
from webapp.chat.models import Conversation, Erasure, Feedback, Message
from webapp.chat.services import conversations, replies
from webapp.datasets.models import Snapshot, SnapshotItem


@pytest.fixture
def tess_client(client: Client, tess: User) -> Any:
    client.force_login(tess)
    return client


def text(**more: Any) -> Any:
    return {"text": "Hello", "token": str(uuid.uuid4()), **more}


def test_an_empty_chat_invites_to_write(tess_client: Any, deployed: Any) -> None:
    page = tess_client.get("/chat/?project=kite").content.decode()

    assert "What can Kite do for you?" in page
    assert "Your conversations will be here." in page


def test_where_nothing_is_deployed_a_tester_reads_who_can(tess_client: Any, project: Project) -> None:
    page = tess_client.get("/chat/?project=kite").content.decode()

    assert "Its owner and its managers can deploy one" in page
    assert "composer" not in page


def test_where_nothing_is_deployed_a_manager_is_led_to_the_models(client: Client, project: Project, mo: User) -> None:
    client.force_login(mo)

    assert reverse("model_list", args=["kite"]) in client.get("/chat/?project=kite").content.decode()


def test_a_first_message_leads_to_its_conversation(tess_client: Any, deployed: Any) -> None:
    form = text(project="kite")
    first, second = tess_client.post("/chat/", form), tess_client.post("/chat/", form)

    assert first.url == second.url == f"/chat/{Conversation.objects.get().pk}/"
    page = tess_client.get(first.url).content.decode()
    assert 'data-after="0"' in page
    assert 'http-equiv="refresh"' in page  # for a browser without scripts


def test_a_message_that_comes_incomplete_is_refused(tess_client: Any, deployed: Any) -> None:
    assert tess_client.post("/chat/", {"text": "Hello", "token": "nonsense", "project": "kite"}).status_code == 400


def test_a_page_opened_in_the_middle_shows_what_has_come(tess_client: Any, talk: Any) -> None:
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    replies.append(message_id=reply.pk, text="A mathe")

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()

    assert 'data-after="1"' in page
    assert "A mathe</div>" in page


def test_replies_are_rendered_as_markdown_without_scripts(tess_client: Any, talk: Any) -> None:
    answer(talk, "**Ada** <script>alert(1)</script> <img src=x onerror=alert(1)>")

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()

    assert "<strong>Ada</strong>" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def test_what_people_write_is_shown_as_they_wrote_it(tess_client: Any, deployed: Any) -> None:
    url = tess_client.post("/chat/", text(text="<b>2 * 3 * 4</b>", project="kite")).url

    assert "&lt;b&gt;2 * 3 * 4&lt;/b&gt;" in tess_client.get(url).content.decode()


@pytest.mark.parametrize("who", ["ada", "stranger", "root"])
def test_nobody_else_reads_a_conversation(client: Client, talk: Any, who: Any, request: pytest.FixtureRequest) -> None:
    client.force_login(request.getfixturevalue(who))
    reply = reply_of(talk)

    for address in (f"/chat/{talk.pk}/", f"/chat/{talk.pk}/export/", f"/chat/messages/{reply.pk}/"):
        assert client.get(address).status_code == 404
    assert client.post(f"/chat/messages/{reply.pk}/stop/").status_code == 404
    assert client.post(f"/chat/{talk.pk}/delete/").status_code == 404


def test_a_person_who_left_the_project_cannot_go_on(tess_client: Any, talk: Any, tess: User, deployed: Any) -> None:
    deployed.memberships.filter(user=tess).delete()

    assert tess_client.get(f"/chat/{talk.pk}/").status_code == 404


def test_stop_regenerate_edit_and_turn_through_the_branches(tess_client: Any, talk: Any) -> None:
    first = reply_of(talk)
    replies.claim(message_id=first.pk)
    replies.append(message_id=first.pk, text="A mathe")
    tess_client.post(f"/chat/messages/{first.pk}/stop/")
    tess_client.post(f"/chat/messages/{first.pk}/regenerate/", {"token": str(uuid.uuid4())})
    second = answer(talk, "A poet.")
    assert "2<span" in tess_client.get(f"/chat/{talk.pk}/").content.decode()

    tess_client.post(f"/chat/messages/{first.pk}/show/")
    assert "You stopped this reply." in tess_client.get(f"/chat/{talk.pk}/").content.decode()

    tess_client.post(f"/chat/messages/{second.parent_id}/edit/", text(text="Who was Alan Turing?"))
    assert existing(reply_of(talk).parent).text == "Who was Alan Turing?"


def test_feedback_is_given_and_shown(tess_client: Any, answered: Any) -> None:
    base = f"/chat/messages/{answered.pk}"
    page = tess_client.post(f"{base}/thumb/", {"thumb": "-1"}, follow=True).content.decode()
    assert '<details class="feedback" open>' in page

    more = {"reasons": ["incorrect"], "comment": "No.", "better_answer": "A writer.", "consent": "on"}
    page = tess_client.post(f"{base}/feedback/", more, follow=True).content.decode()
    assert "waiting for review" in page
    feedback = Feedback.objects.get()
    assert (feedback.thumb, feedback.reasons, feedback.comment) == (-1, ["incorrect"], "No.")


def test_a_better_answer_is_kept_as_it_was_typed(tess_client: Any, answered: Any) -> None:
    tess_client.post(f"/chat/messages/{answered.pk}/feedback/", {"better_answer": "    x = 1\r\n", "consent": "on"})
    assert Feedback.objects.get().better_answer == "    x = 1\n"


def test_a_pick_is_made_and_taken_back(tess_client: Any, talk: Any, answered: Any) -> None:
    conversations.regenerate(message=answered, token=uuid.uuid4())
    second = answer(talk, "A poet.")

    tess_client.post(f"/chat/messages/{answered.pk}/pick/", {"over": second.pk})
    assert Feedback.objects.get(message=answered).preferred_over == second
    tess_client.post(f"/chat/messages/{answered.pk}/pick/")
    assert Feedback.objects.get(message=answered).preferred_over is None


def test_a_conversation_is_renamed_deleted_and_brought_back(tess_client: Any, talk: Any) -> None:
    tess_client.post(f"/chat/{talk.pk}/rename/", {"title": "  Ada\n"})
    assert "Ada" in tess_client.get("/chat/").content.decode()

    page = tess_client.post(f"/chat/{talk.pk}/delete/", follow=True).content.decode()
    assert f"/chat/{talk.pk}/restore/" in page
    assert tess_client.post(f"/chat/{talk.pk}/restore/", follow=True).status_code == 200


def test_the_search_lists_what_was_said(tess_client: Any, talk: Any, answered: Any) -> None:
    assert f"/chat/{talk.pk}/" in tess_client.get("/chat/?q=mathematician").content.decode()
    assert "No conversation contains" in tess_client.get("/chat/?q=zebra").content.decode()


def test_everything_can_be_taken_home(tess_client: Any, talk: Any, answered: Any) -> None:
    lines = b"".join(tess_client.get("/chat/data/kite/export/").streaming_content).decode().splitlines()
    assert [m["content"] for m in json.loads(lines[0])["messages"]] == ["Who was Ada Lovelace?", "A mathematician."]

    assert "A mathematician." in tess_client.get(f"/chat/{talk.pk}/export/").content.decode()
    assert tess_client.get(f"/chat/{talk.pk}/export/?format=json").json()["title"] == "Who was Ada Lovelace?"


def test_everything_can_be_deleted_and_only_ones_own(tess_client: Any, talk: Any, deployed: Any, ann: User) -> None:
    factories.conversation(ann, deployed)
    tess_client.post("/chat/data/kite/delete/")

    assert Conversation.objects.get().user == ann
    assert not Message.objects.exists()


def test_consent_is_given_and_taken_back(tess_client: Any, deployed: Any, tess: User) -> None:
    tess_client.post("/chat/data/kite/consent/", {"consent": "yes"})
    assert "You allowed this" in tess_client.get("/chat/data/").content.decode()

    tess_client.post("/chat/data/kite/consent/", {"consent": "no"})
    assert "Not allowed" in tess_client.get("/chat/data/").content.decode()
    assert tess.consents.get().withdrawn_at is not None


def test_a_long_conversation_is_one_handful_of_queries(
    tess_client: Any, talk: Any, answered: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        conversations.send(conversation=talk, text=f"Question {number}", token=uuid.uuid4())
        answer(talk, f"Answer {number}")

    with django_assert_max_num_queries(25):
        tess_client.get(f"/chat/{talk.pk}/")


@pytest.mark.parametrize(
    "query",
    ["q=%00", "project=%00", "deleted=x", "deleted=%00", "rated=%C2%B2", "page=%C2%B2", "page=99999999999999999999"],
)
def test_parameters_that_are_none_are_no_server_error(tess_client: Any, deployed: Any, query: Any) -> None:
    assert tess_client.get(f"/chat/?{query}").status_code == 400


def test_a_deleted_conversation_says_so_and_can_be_restored(tess_client: Any, talk: Any, answered: Any) -> None:
    conversations.delete(conversation=talk)
    page = tess_client.get(f"/chat/{talk.pk}/")
    assert page.status_code == 410
    assert "You can restore it for 30 more days" in page.content.decode()
    assert talk.title in tess_client.get("/chat/data/kite/deleted/").content.decode()

    tess_client.post(f"/chat/{talk.pk}/restore/")

    assert tess_client.get(f"/chat/{talk.pk}/").status_code == 200
    assert "Nothing here" in tess_client.get("/chat/data/kite/deleted/").content.decode()


def test_the_days_that_are_left_are_told(tess_client: Any, talk: Any) -> None:
    conversations.delete(conversation=talk, now=timezone.now() - timedelta(days=28, hours=1))

    assert "2 days left" in tess_client.get("/chat/data/kite/deleted/").content.decode()


def test_a_deleted_conversation_is_deleted_now(tess_client: Any, talk: Any) -> None:
    conversations.delete(conversation=talk)
    tess_client.post(f"/chat/{talk.pk}/delete-for-good/")

    assert not Conversation.objects.exists()
    assert tess_client.get(f"/chat/{talk.pk}/").status_code == 404


def test_who_left_a_project_still_sees_downloads_and_deletes_their_chats(
    tess_client: Any, talk: Any, tess: User, project: Project
) -> None:
    Membership.objects.filter(user=tess).delete()

    assert "Your data is still yours to download and delete" in tess_client.get("/chat/data/").content.decode()
    assert str(talk.pk) in tess_client.get("/chat/data/kite/export/").getvalue().decode()
    tess_client.post("/chat/data/kite/delete/")
    assert not Conversation.objects.exists()


def test_a_stranger_has_no_data_page_of_a_project(client: Client, stranger: User, talk: Any) -> None:
    client.force_login(stranger)

    assert client.get("/chat/data/kite/export/").status_code == 404


def test_models_that_learned_are_named_to_the_person_and_to_the_managers(
    tess_client: Any, client: Client, mo: User, tess: User, project: Project
) -> None:
    model = factories.model_version(project, name="Learned it")
    snapshot = factories.snapshot(project, Snapshot.Kind.PROMPTS)
    SnapshotItem.objects.create(snapshot=snapshot, row=7, erased_at=timezone.now())
    run = factories.run(project, "ppo", output=model, state="running", started_at=timezone.now() - timedelta(hours=1))
    run.snapshots.add(snapshot)
    Erasure.objects.create(user=tess, project=project, reason="all", conversations=2, rows={"prompts": [7]})

    page = tess_client.get("/chat/data/").content.decode()
    assert "Learned it" in page
    assert "1 run, cleaned when it has ended" in page
    client.force_login(mo)
    page = client.get("/projects/kite/withdrawn-data/").content.decode()
    assert "Models that learned from withdrawn data" in page
    assert "Learned it" in page
    assert str(tess) not in page


def test_a_long_conversation_shows_its_end_and_the_rest_on_demand(tess_client: Any, talk: Any, answered: Any) -> None:
    parent = answered
    for number in range(60):
        question = factories.message(talk, f"Question {number}.", parent=parent)
        parent = factories.message(talk, f"Answer {number}.", role="assistant", parent=question)
    Conversation.objects.filter(pk=talk.pk).update(leaf=parent)

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()
    assert page.count("<article") == 40
    assert "Question 59." in page
    assert "Question 39." not in page
    assert "82 more above" in page
    first = existing(re.search(r'id="message-(\d+)"', page))[1]
    earlier = tess_client.get(f"/chat/{talk.pk}/earlier/?before={first}").content.decode()
    assert earlier.count("<article") == 40
    assert "Question 39." in earlier
    assert "Question 59." not in earlier
    oldest = talk.messages.first().pk
    assert tess_client.get(f"/chat/{talk.pk}/?first={oldest}").content.decode().count("<article") == 122


def test_a_thumb_answers_with_its_message_alone(tess_client: Any, talk: Any, answered: Any) -> None:
    page = tess_client.post(
        f"/chat/messages/{answered.pk}/thumb/", {"thumb": "-1"}, headers={"HX-Request": "true"}
    ).content.decode()

    assert page.count("<article") == 1
    assert "<html" not in page
    assert "What was wrong?" in page


def test_the_line_above_which_the_model_sees_nothing_is_drawn(tess_client: Any, talk: Any, answered: Any) -> None:
    conversations.send(conversation=talk, text="And then?", token=uuid.uuid4())
    later = answer(talk, "Nothing.")
    Message.objects.filter(pk=later.pk).update(seen_from=later.parent_id)

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()

    assert page.index("A mathematician.") < page.index("no longer sees the messages above") < page.index("And then?")


@pytest.mark.parametrize(("finish", "words"), [("length", "that this project allows"), ("context", "can hold at once")])
def test_a_reply_that_was_cut_says_the_true_reason_and_can_go_on(
    tess_client: Any, talk: Any, answered: Any, finish: Any, words: Any
) -> None:
    Message.objects.filter(pk=answered.pk).update(finish=finish)

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()

    assert words in page
    assert "Continue</button>" in page


def test_a_download_is_named_by_title_and_day(tess_client: Any, talk: Any, answered: Any) -> None:
    Conversation.objects.filter(pk=talk.pk).update(
        title='Who "was" Ada/?', updated_at=datetime(2026, 3, 5, 12, tzinfo=UTC)
    )

    named = tess_client.get(f"/chat/{talk.pk}/export/")["Content-Disposition"]

    assert named == 'attachment; filename="who-was-ada-2026-03-05.md"'
