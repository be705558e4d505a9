import json
import uuid

import pytest
from django.urls import reverse

from tests import factories
from tests.chat.conftest import answer, reply_of
from webapp.chat.models import Conversation, Feedback, Message
from webapp.chat.services import conversations, replies


@pytest.fixture
def tess_client(client, tess):
    client.force_login(tess)
    return client


def text(**more):
    return {"text": "Hello", "token": str(uuid.uuid4()), **more}


def test_an_empty_chat_invites_to_write(tess_client, deployed):
    page = tess_client.get("/chat/?project=kite").content.decode()

    assert "What can Kite do for you?" in page
    assert "Your conversations will be here." in page


def test_where_nothing_is_deployed_a_tester_reads_who_can(tess_client, project):
    page = tess_client.get("/chat/?project=kite").content.decode()

    assert "Its owner and its managers can deploy one" in page
    assert "composer" not in page


def test_where_nothing_is_deployed_a_manager_is_led_to_the_models(client, project, mo):
    client.force_login(mo)

    assert reverse("model_list", args=["kite"]) in client.get("/chat/?project=kite").content.decode()


def test_a_first_message_leads_to_its_conversation(tess_client, deployed):
    form = text(project="kite")
    first, second = tess_client.post("/chat/", form), tess_client.post("/chat/", form)

    assert first.url == second.url == f"/chat/{Conversation.objects.get().pk}/"
    page = tess_client.get(first.url).content.decode()
    assert 'data-after="0"' in page
    assert 'http-equiv="refresh"' in page  # for a browser without scripts


def test_a_message_that_comes_incomplete_is_refused(tess_client, deployed):
    assert tess_client.post("/chat/", {"text": "Hello", "token": "nonsense", "project": "kite"}).status_code == 400


def test_a_page_opened_in_the_middle_shows_what_has_come(tess_client, talk):
    reply = reply_of(talk)
    replies.claim(message_id=reply.pk)
    replies.append(message_id=reply.pk, text="A mathe")

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()

    assert 'data-after="1"' in page
    assert "A mathe</div>" in page


def test_replies_are_rendered_as_markdown_without_scripts(tess_client, talk):
    answer(talk, "**Ada** <script>alert(1)</script> <img src=x onerror=alert(1)>")

    page = tess_client.get(f"/chat/{talk.pk}/").content.decode()

    assert "<strong>Ada</strong>" in page
    assert "<script>alert" not in page
    assert "<img" not in page


def test_what_people_write_is_shown_as_they_wrote_it(tess_client, deployed):
    url = tess_client.post("/chat/", text(text="<b>2 * 3 * 4</b>", project="kite")).url

    assert "&lt;b&gt;2 * 3 * 4&lt;/b&gt;" in tess_client.get(url).content.decode()


@pytest.mark.parametrize("who", ["ada", "stranger", "root"])
def test_nobody_else_reads_a_conversation(client, talk, who, request):
    client.force_login(request.getfixturevalue(who))
    reply = reply_of(talk)

    for address in (f"/chat/{talk.pk}/", f"/chat/{talk.pk}/export/", f"/chat/messages/{reply.pk}/"):
        assert client.get(address).status_code == 404
    assert client.post(f"/chat/messages/{reply.pk}/stop/").status_code == 404
    assert client.post(f"/chat/{talk.pk}/delete/").status_code == 404


def test_a_person_who_left_the_project_cannot_go_on(tess_client, talk, tess, deployed):
    deployed.memberships.filter(user=tess).delete()

    assert tess_client.get(f"/chat/{talk.pk}/").status_code == 404


def test_stop_regenerate_edit_and_turn_through_the_branches(tess_client, talk):
    first = reply_of(talk)
    replies.claim(message_id=first.pk)
    replies.append(message_id=first.pk, text="A mathe")
    tess_client.post(f"/chat/messages/{first.pk}/stop/")
    tess_client.post(f"/chat/messages/{first.pk}/regenerate/", {"token": str(uuid.uuid4())})
    second = answer(talk, "A poet.")
    assert "2<span" in tess_client.get(f"/chat/{talk.pk}/").content.decode()

    tess_client.post(f"/chat/messages/{first.pk}/show/")
    assert "You stopped it here." in tess_client.get(f"/chat/{talk.pk}/").content.decode()

    tess_client.post(f"/chat/messages/{second.parent_id}/edit/", text(text="Who was Alan Turing?"))
    assert reply_of(talk).parent.text == "Who was Alan Turing?"


def test_feedback_is_given_and_shown(tess_client, answered):
    base = f"/chat/messages/{answered.pk}"
    page = tess_client.post(f"{base}/thumb/", {"thumb": "-1"}, follow=True).content.decode()
    assert '<details class="feedback" open>' in page

    more = {"reasons": ["incorrect"], "comment": "No.", "better_answer": "A writer.", "consent": "on"}
    page = tess_client.post(f"{base}/feedback/", more, follow=True).content.decode()
    assert "waiting for its review" in page
    feedback = Feedback.objects.get()
    assert (feedback.thumb, feedback.reasons, feedback.comment) == (-1, ["incorrect"], "No.")


def test_a_pick_is_made_and_taken_back(tess_client, talk, answered):
    conversations.regenerate(message=answered, token=uuid.uuid4())
    second = answer(talk, "A poet.")

    tess_client.post(f"/chat/messages/{answered.pk}/pick/", {"over": second.pk})
    assert Feedback.objects.get(message=answered).preferred_over == second
    tess_client.post(f"/chat/messages/{answered.pk}/pick/")
    assert Feedback.objects.get(message=answered).preferred_over is None


def test_a_conversation_is_renamed_deleted_and_brought_back(tess_client, talk):
    tess_client.post(f"/chat/{talk.pk}/rename/", {"title": "  Ada\n"})
    assert "Ada" in tess_client.get("/chat/").content.decode()

    page = tess_client.post(f"/chat/{talk.pk}/delete/", follow=True).content.decode()
    assert f"/chat/{talk.pk}/restore/" in page
    assert tess_client.post(f"/chat/{talk.pk}/restore/", follow=True).status_code == 200


def test_the_search_lists_what_was_said(tess_client, talk, answered):
    assert f"/chat/{talk.pk}/" in tess_client.get("/chat/?q=mathematician").content.decode()
    assert "Nothing found" in tess_client.get("/chat/?q=zebra").content.decode()


def test_everything_can_be_taken_home(tess_client, talk, answered):
    lines = b"".join(tess_client.get("/chat/data/kite/export/").streaming_content).decode().splitlines()
    assert [m["content"] for m in json.loads(lines[0])["messages"]] == ["Who was Ada Lovelace?", "A mathematician."]

    assert "A mathematician." in tess_client.get(f"/chat/{talk.pk}/export/").content.decode()
    assert tess_client.get(f"/chat/{talk.pk}/export/?format=json").json()["title"] == "Who was Ada Lovelace?"


def test_everything_can_be_deleted_and_only_ones_own(tess_client, talk, deployed, ann):
    factories.conversation(ann, deployed)
    tess_client.post("/chat/data/kite/delete/")

    assert Conversation.objects.get().user == ann
    assert not Message.objects.exists()


def test_consent_is_given_and_taken_back(tess_client, deployed, tess):
    tess_client.post("/chat/data/kite/consent/", {"consent": "yes"})
    assert "You allowed this" in tess_client.get("/chat/data/").content.decode()

    tess_client.post("/chat/data/kite/consent/", {"consent": "no"})
    assert "Not allowed" in tess_client.get("/chat/data/").content.decode()
    assert tess.consents.get().withdrawn_at is not None


def test_a_long_conversation_is_one_handful_of_queries(tess_client, talk, answered, django_assert_max_num_queries):
    for number in range(20):
        conversations.send(conversation=talk, text=f"Question {number}", token=uuid.uuid4())
        answer(talk, f"Answer {number}")

    with django_assert_max_num_queries(25):
        tess_client.get(f"/chat/{talk.pk}/")
