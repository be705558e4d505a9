"""The labeling pages, as plain requests: what htmx and a browser without scripts both rest on.

Over 300 lines: all cases share the task and the page that it is shown on.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotations.models import Demonstration, Draft, Lease, Ranking, Response, Review, Task
from annotations.services.leases import lease_next
from annotations.services.tasks import open_review_task
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Membership, Project, Role, User
from webapp.accounts.services import archive_project, set_guidelines

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


@pytest.fixture
def browser(client: Client, ann: User) -> Client:
    client.force_login(ann)
    return client


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def submit(client: Client, lease: Lease, headers: Any = None, **fields: object) -> Any:
    fields.setdefault("token", str(uuid.uuid4()))
    return client.post(f"/label/leases/{lease.pk}/submit/", fields, headers=headers or {})


def test_the_page_takes_the_next_task_at_once(browser: Client, project: Project, ann: User) -> None:
    task = factories.task(project, prompt=factories.prompt(project, "Why does a kite fly?"))
    page = browser.get("/label/").text
    assert "Why does a kite fly?" in page
    assert Lease.objects.get().task == task


def test_a_task_to_rank_shows_replies_by_letter_and_not_who_wrote_them(
    browser: Client, project: Project, ben: User
) -> None:
    prompt = factories.prompt(project)
    model = factories.model_version(project, name="kite-ppo-7")
    replies = [factories.response(prompt, "One.", model=model), factories.response(prompt, "Two.", author=ben)]
    factories.task(project, Task.Kind.RANK, prompt=prompt, responses=replies)
    page = browser.get("/label/").text
    assert "Reply A" in page
    assert "kite-ppo-7" not in page
    assert "Ben" not in page


def test_a_submission_brings_the_next_task_in_the_same_answer(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    factories.task(project, prompt=factories.prompt(project, "And what is a tail for?"))
    answer = submit(
        browser, existing(lease_next(person=ann, project=project)), HTMX, text="It flies.", active_seconds="7"
    )
    assert "And what is a tail for?" in answer.text
    assert "<html" not in answer.text
    assert "Undo" in answer.text
    assert Demonstration.objects.get().active_seconds == 7


def test_without_scripts_a_submission_leads_to_the_next_task(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    answer = submit(browser, existing(lease_next(person=ann, project=project)), text="It flies.")
    assert (answer.status_code, answer["Location"]) == (302, "/label/")
    assert "Undo" in browser.get("/label/").text


def test_without_scripts_a_refused_submission_keeps_what_was_typed(
    browser: Client, project: Project, ann: User
) -> None:
    factories.task(project, Task.Kind.RANK)
    lease = existing(lease_next(person=ann, project=project))
    first = lease.order_shown[0]
    answer = submit(browser, lease, **{f"rank_{first}": "2", "reason": "It is kind."})
    assert answer.status_code == 400
    assert "2 of the 3 replies have no rank yet." in answer.text
    assert "It is kind." in answer.text
    assert Draft.objects.get().content == {f"rank_{first}": "2", "reason": "It is kind."}


def test_a_refusal_says_why_to_htmx(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    answer = submit(browser, existing(lease_next(person=ann, project=project)), HTMX, text=" ")
    assert (answer.status_code, "no reply yet" in answer.text) == (400, True)


def test_ranks_with_gaps_and_ties_become_groups(browser: Client, project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.RANK, replies=3)
    lease = existing(lease_next(person=ann, project=project))
    a, b, c = lease.order_shown
    fields = {f"rank_{a}": 3, f"rank_{b}": 1, f"rank_{c}": 3, f"rating_{b}": 6, f"flags_{a}": ["rude", "long"]}
    submit(browser, lease, strength="1", **fields)
    label = Ranking.objects.get()
    assert label.groups == [[b], [a, c]]
    assert (label.ratings, label.flags) == ({str(b): 6}, {str(a): ["long", "rude"]})
    assert label.strength == 1


def test_the_replies_that_are_left_are_shown_and_ranked_when_one_was_deleted(
    browser: Client, project: Project, ann: User
) -> None:
    factories.task(project, Task.Kind.RANK, replies=3)
    lease = existing(lease_next(person=ann, project=project))
    gone, b, c = lease.order_shown
    Response.objects.get(pk=gone).delete()
    page = browser.get("/label/")
    assert "Rank 2 replies" in page.text
    assert (f"rank_{gone}" in page.text, f"rank_{b}" in page.text) == (False, True)
    submit(browser, lease, **{f"rank_{gone}": 1, f"rank_{b}": 2, f"rank_{c}": 1})
    assert Ranking.objects.get().groups == [[c], [b]]


def test_a_page_whose_other_replies_were_deleted_says_so(browser: Client, project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.RANK, replies=2)
    lease = existing(lease_next(person=ann, project=project))
    Response.objects.get(pk=lease.order_shown[0]).delete()
    assert "there is nothing to compare. Skip the task." in browser.get("/label/").text


@pytest.mark.parametrize("bad", [{"token": "no"}, {"strength": "huge"}, {"active_seconds": "-4"}])
def test_a_malformed_field_is_a_refusal_and_not_a_crash(
    browser: Client, project: Project, ann: User, bad: dict[str, Any]
) -> None:
    factories.task(project, Task.Kind.RANK, replies=2)
    lease = existing(lease_next(person=ann, project=project))
    ranks = {f"rank_{r}": 1 for r in lease.order_shown}
    assert submit(browser, lease, HTMX, **ranks | bad).status_code == 400
    assert not Ranking.objects.exists()


def test_a_review_is_sent_with_its_comment(browser: Client, project: Project, ann: User, ada: User) -> None:
    open_review_task(demonstration=factories.demonstration(project, ada))
    submit(browser, existing(lease_next(person=ann, project=project)), verdict="reject", comment="Wrong.")
    assert (Review.objects.get().verdict, Review.objects.get().comment) == ("reject", "Wrong.")


def test_a_program_that_sends_again_hears_that_it_is_saved(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease, token = lease_next(person=ann, project=project), str(uuid.uuid4())
    for _ in range(2):
        answer = submit(browser, existing(lease), {"Accept": "application/json"}, token=token, text="It flies.")
        assert answer.json() == {"saved": True}
    assert Demonstration.objects.count() == 1


def test_the_kind_asked_for_is_kept_to(browser: Client, project: Project) -> None:
    factories.task(project, Task.Kind.WRITE)
    factories.task(project, Task.Kind.RANK)
    assert "Rank 3 replies" in browser.get("/label/?kind=rank", follow=True).text
    assert "Rank 3 replies" in browser.get("/label/").text
    assert "Nothing left to do" in browser.get("/label/?kind=review", follow=True).text
    assert "Write a reply" in browser.get("/label/?kind=any", follow=True).text


def test_with_nothing_left_to_do_a_manager_is_led_to_the_form_that_adds_prompts(project: Project, ada: User) -> None:
    browser = Client()
    browser.force_login(ada)
    assert reverse("data_prompt_add", args=[project.slug]) in browser.get("/label/").text


def test_skipping_takes_the_reason_along(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    browser.post(f"/label/leases/{lease.pk}/skip/", {"skip_reason": "", "own_reason": "I sell kites."})
    lease.refresh_from_db()
    assert (lease.outcome, lease.skip_reason) == (Lease.Outcome.SKIPPED, "I sell kites.")


def test_drafts_are_saved_and_shown_again(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    url = f"/label/leases/{lease.pk}/draft/"
    saved = browser.post(url, {"text": "A ki", "revision": "", "token": str(uuid.uuid4())})
    assert saved.json() == {"saved": True, "revision": str(Draft.objects.get().revision)}
    assert browser.post(url, {"text": "x", "revision": "soon"}).status_code == 400
    assert "\nA ki</textarea>" in browser.get("/label/").text


def test_a_draft_of_another_device_is_handed_over_instead_of_overwritten(
    browser: Client, project: Project, ann: User
) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    url = f"/label/leases/{lease.pk}/draft/"
    browser.post(url, {"text": "By phone", "revision": "", "token": str(uuid.uuid4())})
    answer = browser.post(url, {"text": "By desktop", "revision": "", "token": str(uuid.uuid4())})
    assert answer.status_code == 409
    assert answer.json()["code"] == "draft_conflict"
    assert answer.json()["draft"]["content"] == {"text": "By phone"}
    assert Draft.objects.get().content == {"text": "By phone"}


def test_without_scripts_both_texts_stand_on_the_page(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    url = f"/label/leases/{lease.pk}/draft/"
    browser.post(url, {"text": "By phone", "revision": "", "token": str(uuid.uuid4())})
    answer = submit(browser, lease, text="By desktop")
    assert answer.status_code == 409
    assert "By desktop</textarea>" in answer.text
    assert "By phone" in answer.text
    assert Draft.objects.get().content == {"text": "By phone"}


def test_renewing_says_how_the_hold_stands(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    assert browser.post(f"/label/leases/{lease.pk}/renew/").json()["outcome"] == "held"


def test_undo_brings_the_label_back_to_be_changed(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    submit(browser, existing(lease_next(person=ann, project=project)), text="It flies.")
    label = Demonstration.objects.get()
    answer = browser.post(f"/label/write/{label.pk}/undo/", follow=True)
    assert "It flies.</textarea>" in answer.text


def test_history_shows_ones_own_labels_only(browser: Client, project: Project, ann: User, ben: User) -> None:
    for person, text in ((ann, "Mine."), (ben, "Theirs.")):
        factories.task(project)
        client = signed_in(person)
        submit(client, existing(lease_next(person=person, project=project, kinds=[Task.Kind.WRITE])), text=text)
    page = browser.get("/label/history/").text
    assert "Mine." in page
    assert "Theirs." not in page


@pytest.mark.parametrize("before", ["yesterday", "2026-01-01"])
def test_a_page_of_history_that_is_no_time_is_refused(browser: Client, before: str) -> None:
    assert browser.get("/label/history/", {"before": before}).status_code == 400


def test_a_preview_is_cleaned(browser: Client) -> None:
    html = browser.post("/label/preview/", {"text": "**Hi** <script>alert(1)</script>"}).text
    assert "<strong>Hi</strong>" in html
    assert "<script" not in html


def test_nobody_touches_another_persons_task_or_label(project: Project, ann: User, ben: User, stranger: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    for other in (ben, stranger):
        client = signed_in(other)
        assert client.get(f"/label/leases/{lease.pk}/").status_code == 404
        for action in ("submit", "skip", "draft", "renew"):
            answer = client.post(f"/label/leases/{lease.pk}/{action}/", {"text": "x", "revision": 1}, headers=HTMX)
            assert answer.status_code == 404
    label = factories.demonstration(project, ann)
    assert signed_in(ben).post(f"/label/write/{label.pk}/undo/").status_code == 404
    assert signed_in(ben).post(f"/label/nonsense/{label.pk}/undo/").status_code == 404
    assert not Draft.objects.exists()


def test_a_tester_may_not_label(project: Project, tess: User) -> None:
    factories.task(project)
    client = signed_in(tess)
    assert client.get(f"/label/?project={project.slug}").status_code == 403
    assert "No project to label in" in client.get("/label/").text
    assert not Lease.objects.exists()


def test_a_stranger_does_not_learn_that_a_project_exists(project: Project, stranger: User) -> None:
    assert signed_in(stranger).get(f"/label/?project={project.slug}").status_code == 404


def test_whoever_lost_the_role_can_no_longer_submit(project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    Membership.objects.filter(user=ann).update(role=Role.TESTER)
    assert submit(signed_in(ann), lease, HTMX, text="It flies.").status_code == 403


def test_signing_in_is_asked_for_first(client: Client, project: Project) -> None:
    for url in ("/label/", "/label/history/", "/label/leases/1/"):
        assert client.get(url)["Location"].startswith("/accounts/login/")


def test_a_submitted_task_opens_as_history(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    submit(browser, lease, text="It flies.")
    assert browser.get(f"/label/leases/{lease.pk}/")["Location"] == "/label/history/"


def test_undo_is_refused_in_words_once_someone_has_reviewed(
    browser: Client, project: Project, ann: User, ben: User
) -> None:
    factories.task(project)
    submit(browser, existing(lease_next(person=ann, project=project)), text="It flies.")
    submit(signed_in(ben), existing(lease_next(person=ben, project=project)), verdict="accept")
    answer = browser.post(
        f"/label/write/{Demonstration.objects.get().pk}/undo/", headers={"Accept": "application/json"}
    )
    assert answer.status_code == 409
    assert "reviewed" in json.loads(answer.content)["message"]


def restored(client: Client, url: str) -> Any:
    """What a browser gets that asks for the page of a history entry by htmx."""
    return client.get(url, headers={**HTMX, "HX-History-Restore-Request": "true"})


def test_going_back_gets_the_whole_page(browser: Client, project: Project) -> None:
    factories.task(project)
    assert "<html" in restored(browser, "/label/").text


def test_answers_add_nothing_to_the_history(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    answer = submit(browser, existing(lease_next(person=ann, project=project)), HTMX, text="It flies.")
    assert "HX-Push-Url" not in answer
    assert answer["HX-Replace-Url"] == "/label/"


def test_a_skip_keeps_the_draft_and_offers_the_way_back(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    fields = {"text": "A ki", "token": str(uuid.uuid4()), "skip_reason": "The prompt is unclear"}
    answer = browser.post(f"/label/leases/{lease.pk}/skip/", fields, headers=HTMX)
    assert "Skipped." in answer.text
    assert f"/label/leases/{lease.pk}/unskip/" in answer.text
    page = browser.post(f"/label/leases/{lease.pk}/unskip/", follow=True)
    assert "A ki</textarea>" in page.text


def test_a_skipped_task_stands_in_the_history_and_can_be_brought_back(
    browser: Client, project: Project, ann: User
) -> None:
    factories.task(project, prompt=factories.prompt(project, "Why does a kite fly?"))
    lease = existing(lease_next(person=ann, project=project))
    browser.post(f"/label/leases/{lease.pk}/skip/", {"own_reason": "I sell kites."})
    page = browser.get("/label/history/").text
    assert all(words in page for words in ("Why does a kite fly?", "Skipped", "I sell kites.", "Bring back"))
    browser.post(f"/label/leases/{lease.pk}/unskip/")
    assert "Bring back" not in browser.get("/label/history/").text


def test_a_reviewed_reply_is_not_offered_to_be_taken_back(
    browser: Client, project: Project, ann: User, ben: User
) -> None:
    factories.task(project)
    submit(browser, existing(lease_next(person=ann, project=project)), text="It flies.")
    assert "Take back and change" in browser.get("/label/history/").text
    submit(signed_in(ben), existing(lease_next(person=ben, project=project)), verdict="accept")
    assert "Take back and change" not in browser.get("/label/history/").text


def test_the_last_answer_in_an_archived_project_is_kept_and_no_task_follows(
    browser: Client, project: Project, ann: User
) -> None:
    factories.task(project)
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    archive_project(project=project)
    answer = submit(browser, lease, HTMX, text="It flies.")
    assert Demonstration.objects.get().response.text == "It flies."
    assert "Saved." in answer.text
    assert "Kite is archived" in answer.text
    assert "Undo" not in answer.text
    assert not Lease.objects.filter(outcome=Lease.Outcome.HELD).exists()
    assert "Kite is archived" in browser.get("/label/?project=kite").text


def test_a_page_hears_of_new_guidelines_and_shows_them_when_asked(
    browser: Client, project: Project, ann: User, mo: User
) -> None:
    factories.task(project)
    browser.get("/label/")
    lease = Lease.objects.get()
    set_guidelines(project=project, text="Be brief above all.", user=mo)
    assert browser.post(f"/label/leases/{lease.pk}/renew/").json()["guidelines"] == 2
    lease.refresh_from_db()
    assert existing(lease.guidelines).version == 1  # told of, not shown
    assert "Be brief above all." in browser.post(f"/label/leases/{lease.pk}/guidelines/").text
    lease.refresh_from_db()
    assert existing(lease.guidelines).version == 2


def test_a_task_that_is_opened_again_says_that_the_guidelines_changed(
    browser: Client, project: Project, ann: User, mo: User
) -> None:
    factories.task(project)
    assert "New here?" in browser.get("/label/").text
    set_guidelines(project=project, text="Be brief above all.", user=mo)
    assert "The guidelines have changed: this is version 2." in browser.get("/label/").text
    submit(browser, Lease.objects.get(), text="It flies.")
    assert existing(Demonstration.objects.get().guidelines).version == 2


def test_a_page_hears_of_a_draft_from_another_device(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    page = {"token": str(uuid.uuid4()), "revision": ""}
    url = f"/label/leases/{lease.pk}/renew/"
    assert browser.post(url, page).json()["draft"] is None
    browser.post(f"/label/leases/{lease.pk}/draft/", {"text": "By phone", "token": str(uuid.uuid4())})
    assert browser.post(url, page).json()["draft"]["content"] == {"text": "By phone"}


def test_the_time_spent_goes_on_after_an_undo(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    submit(browser, existing(lease_next(person=ann, project=project)), text="It flies.", active_seconds="12.4")
    page = browser.post(f"/label/write/{Demonstration.objects.get().pk}/undo/", follow=True)
    assert 'name="active_seconds" value="12.4"' in page.text


def test_the_counts_beside_the_kinds_are_of_what_the_person_can_do(
    browser: Client, project: Project, ann: User
) -> None:
    own = factories.demonstration(project, ann)
    open_review_task(demonstration=own)
    factories.task(project, Task.Kind.RANK, overlap=3)
    counts = browser.get("/label/").context["open_to_person"]
    assert counts == {"write": 0, "rank": 1, "review": 0, "any": 1}


def test_a_line_break_at_the_start_of_a_draft_stays(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    browser.post(f"/label/leases/{lease.pk}/draft/", {"text": "\n  A\r\nkite", "token": str(uuid.uuid4())})
    assert ">\n\n  A\nkite</textarea>" in browser.get("/label/").text


def test_a_reply_of_spaces_says_so(browser: Client, project: Project) -> None:
    prompt = factories.prompt(project)
    replies = [factories.response(prompt, text) for text in ("   ", "Straw.")]
    factories.task(project, Task.Kind.RANK, prompt=prompt, responses=replies)
    assert "Only white space: 3 spaces." in browser.get("/label/").text


def test_a_skipped_task_opens_as_history(browser: Client, project: Project, ann: User) -> None:
    factories.task(project)
    lease = existing(lease_next(person=ann, project=project))
    browser.post(f"/label/leases/{lease.pk}/skip/")
    assert browser.get(f"/label/leases/{lease.pk}/")["Location"] == "/label/history/"
    assert browser.post(f"/label/leases/{lease.pk}/renew/").json()["outcome"] == "skipped"


def test_a_list_says_what_a_reply_is_that_shows_nothing(project: Project, ada: User) -> None:
    factories.demonstration(project, ada, "   ")
    assert "Only white space: 3 spaces." in signed_in(ada).get("/projects/kite/data/demonstrations/").text
