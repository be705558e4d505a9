"""Submitting: what is kept, what is refused, what counts.

Over 300 lines: the three kinds of labels are held to the same rules.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotations.models import Demonstration, Draft, Lease, Ranking, Response, Task
from annotations.selectors import accepted_demonstrations, usable_rankings
from annotations.services.drafts import PageState, save_draft
from annotations.services.labels import submit_demonstration, submit_ranking, undo, withdraw_label
from annotations.services.leases import lease_next, lease_with_task, release, show_guidelines, skip
from annotations.services.submissions import submit
from annotations.services.tasks import withdraw_tasks
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Guidelines, Project, User
from webapp.accounts.services import archive_project, set_guidelines
from webapp.errors import BadInput, Conflict

pytestmark = pytest.mark.django_db


def ranked(lease: Lease, **fields: Any) -> Ranking:
    fields.setdefault("token", uuid.uuid4())
    fields.setdefault("groups", [[response] for response in lease.order_shown])
    return submit_ranking(lease=lease, **fields)


@pytest.fixture
def writing(project: Project, ann: User) -> Lease:
    factories.task(project, Task.Kind.WRITE)
    return existing(lease_next(person=ann, project=project))


@pytest.fixture
def ranking(project: Project, ann: User) -> Lease:
    factories.task(project, Task.Kind.RANK, replies=4, overlap=2)
    return existing(lease_next(person=ann, project=project))


def test_a_demonstration_keeps_who_wrote_what_under_which_guidelines(writing: Lease, ann: User) -> None:
    label = submit_demonstration(
        lease=writing, token=uuid.uuid4(), text="\n  A kite\x00 flies. \n", active_seconds=12.5
    )
    assert (label.author, label.response.author, label.response.text) == (ann, ann, "  A kite flies.")
    assert label.guidelines == Guidelines.objects.get()
    assert (label.task, label.prompt, label.active_seconds) == (writing.task, writing.task.prompt, 12.5)


@pytest.mark.parametrize("text", ["", " \n\t", "\x00"])
def test_an_empty_demonstration_is_refused_and_the_task_stays_in_hand(writing: Lease, text: str) -> None:
    with pytest.raises(BadInput, match="no reply yet"):
        submit_demonstration(lease=writing, token=uuid.uuid4(), text=text)
    writing.refresh_from_db()
    assert writing.outcome == Lease.Outcome.HELD


def test_a_demonstration_is_accepted_at_once_where_no_review_is_wanted(writing: Lease, project: Project) -> None:
    Project.objects.update(review_overlap=0)
    label = submit_demonstration(lease=lease_with_task(writing.pk), token=uuid.uuid4(), text="It flies.")
    assert list(accepted_demonstrations(project)) == [label]
    assert not Task.objects.filter(kind=Task.Kind.REVIEW).exists()


def test_a_demonstration_waits_for_the_reviews_that_the_project_wants(
    writing: Lease, project: Project, ben: User
) -> None:
    Project.objects.update(review_overlap=2)
    label = submit_demonstration(lease=lease_with_task(writing.pk), token=uuid.uuid4(), text="It flies.")
    assert not accepted_demonstrations(project).exists()
    review = existing(lease_next(person=ben, project=project)).task
    assert (review.kind, review.demonstration, review.overlap) == (Task.Kind.REVIEW, label, 2)


def test_a_ranking_keeps_groups_strength_ratings_flags_and_the_order_shown(ranking: Lease) -> None:
    a, b, c, d = ranking.order_shown
    label = ranked(
        ranking,
        groups=[[c], [a, d], [b]],
        strength=2,
        ratings={c: 7},
        flags={b: ["wrong", "rude", "wrong"], d: []},
        reason=" c is right ",
    )
    label.refresh_from_db()
    assert label.groups == [[c], [a, d], [b]]
    assert label.order_shown == [a, b, c, d]
    assert (label.strength, label.ratings, label.flags) == (2.0, {str(c): 7}, {str(b): ["rude", "wrong"]})
    assert label.reason == "c is right"


def test_a_ranking_that_leaves_a_reply_out_says_how_many_are_missing(ranking: Lease) -> None:
    a, *_ = ranking.order_shown
    with pytest.raises(BadInput, match="3 of the 4 replies have no rank yet"):
        ranked(ranking, groups=[[a]])


@pytest.mark.parametrize("wrong", ["twice", "foreign"])
def test_a_ranking_names_each_reply_shown_once_and_no_other(ranking: Lease, project: Project, wrong: str) -> None:
    extra = ranking.order_shown[0] if wrong == "twice" else factories.response(factories.prompt(project)).pk
    with pytest.raises(BadInput, match="exactly once"):
        ranked(ranking, groups=[ranking.order_shown, [extra]])


@pytest.mark.parametrize(
    "fields", [{"strength": 4}, {"strength": float("nan")}, {"ratings": {1: 8}}, {"flags": {1: ["wrong"]}}]
)
def test_figures_outside_their_range_are_refused(ranking: Lease, fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        ranked(ranking, **fields)
    assert not Ranking.objects.exists()


def test_an_unknown_flag_is_refused(ranking: Lease) -> None:
    with pytest.raises(BadInput, match="Flags are"):
        ranked(ranking, flags={ranking.order_shown[0]: ["boring"]})


def test_the_same_token_twice_is_one_label(writing: Lease) -> None:
    token = uuid.uuid4()
    first = submit_demonstration(lease=writing, token=token, text="It flies.")
    assert submit_demonstration(lease=writing, token=token, text="It flies.") == first
    assert Demonstration.objects.count() == 1


def test_a_second_label_of_one_person_on_one_task_is_refused(writing: Lease) -> None:
    submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.")
    with pytest.raises(Conflict, match="already answered"):
        submit_demonstration(lease=writing, token=uuid.uuid4(), text="It does not.")


def test_a_token_of_another_task_is_refused(project: Project, ann: User) -> None:
    token = uuid.uuid4()
    for _ in range(2):
        factories.task(project)
    submit_demonstration(lease=existing(lease_next(person=ann, project=project)), token=token, text="It flies.")
    with pytest.raises(Conflict, match="token"):
        submit_demonstration(lease=existing(lease_next(person=ann, project=project)), token=token, text="It flies.")


def test_a_ranking_is_not_an_answer_to_a_writing_task(writing: Lease) -> None:
    with pytest.raises(BadInput, match="something else"):
        ranked(writing)


def lapse(lease: Lease, ben: User, *, taken: bool) -> Lease:
    """The lease, lapsed; its place `taken` by ben or free."""
    after = timezone.now() + timedelta(minutes=lease.task.project.lease_minutes + 1)
    other = existing(lease_next(person=ben, project=lease.task.project, now=after))
    if not taken:
        release(lease=other)
    lease.refresh_from_db()
    assert lease.outcome == Lease.Outcome.LAPSED
    return other


def test_a_late_submission_takes_its_place_again_while_it_is_free(writing: Lease, ben: User) -> None:
    lapse(writing, ben, taken=False)
    submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.")
    writing.refresh_from_db()
    assert (writing.outcome, writing.seat) == (Lease.Outcome.SUBMITTED, 1)


def test_a_late_submission_after_all_places_are_taken_is_kept_in_reserve(
    project: Project, ann: User, ben: User
) -> None:
    factories.task(project, Task.Kind.RANK, overlap=1)
    late = existing(lease_next(person=ann, project=project))
    on_time = ranked(lapse(late, ben, taken=True))
    in_reserve = ranked(late)
    assert in_reserve.retracted_at is None
    assert list(usable_rankings(project)) == [on_time]


def test_a_submission_in_reserve_steps_in_when_a_place_becomes_free(project: Project, ann: User, ben: User) -> None:
    factories.task(project, Task.Kind.RANK, overlap=1)
    late = existing(lease_next(person=ann, project=project))
    on_time = ranked(lapse(late, ben, taken=True))
    in_reserve = ranked(late)
    withdraw_label(label=on_time)
    assert list(usable_rankings(project)) == [in_reserve]
    assert Task.objects.get().state == Task.State.FULL


def test_a_submission_in_reserve_steps_in_when_the_one_in_work_skips(project: Project, ann: User, ben: User) -> None:
    factories.task(project, Task.Kind.RANK, overlap=1)
    late = existing(lease_next(person=ann, project=project))
    in_work = lapse(late, ben, taken=True)
    label = ranked(late)
    assert not usable_rankings(project).exists()
    skip(lease=in_work)
    assert list(usable_rankings(project)) == [label]


def test_a_withdrawn_label_opens_its_place_to_someone_else(project: Project, ann: User, ben: User) -> None:
    task = factories.task(project, Task.Kind.RANK, overlap=1)
    withdraw_label(label=ranked(existing(lease_next(person=ann, project=project))))
    assert lease_next(person=ann, project=project) is None
    assert existing(lease_next(person=ben, project=project)).task == task


def test_work_on_a_withdrawn_task_is_still_kept(project: Project, ranking: Lease) -> None:
    withdraw_tasks(tasks=Task.objects.all())
    label = ranked(ranking)
    assert label.retracted_at is None
    assert not usable_rankings(project).exists()


def test_submitting_from_an_old_page_uses_the_lease_in_hand(project: Project, writing: Lease, ann: User) -> None:
    release(lease=writing)
    again = lease_next(person=ann, project=project)
    label = submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.")
    assert label.lease == again


def test_submitting_ends_the_draft(writing: Lease) -> None:
    save_draft(lease=writing, content={"text": "It fl"}, page=PageState())
    submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.")
    assert not Draft.objects.exists()


def test_negative_time_is_refused(writing: Lease) -> None:
    with pytest.raises(BadInput, match="seconds"):
        submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.", active_seconds=-1)


def test_a_token_that_comes_again_with_another_text_is_not_answered_as_saved(writing: Lease) -> None:
    token = uuid.uuid4()
    label = submit_demonstration(lease=writing, token=token, text="It flies.")
    assert submit_demonstration(lease=writing, token=token, text="It flies. ") == label
    with pytest.raises(Conflict, match="as you first sent it"):
        submit_demonstration(lease=writing, token=token, text="It flies. PLUS AN IMPORTANT CORRECTION")
    assert Demonstration.objects.get().response.text == "It flies."


def test_a_ranking_that_comes_again_with_other_ranks_is_not_answered_as_saved(ranking: Lease) -> None:
    token, order = uuid.uuid4(), ranking.order_shown
    label = submit_ranking(lease=ranking, token=token, groups=[order], ratings={order[0]: 3}, reason=" so ")
    assert submit_ranking(lease=ranking, token=token, groups=[order], ratings={order[0]: 3}, reason="so") == label
    with pytest.raises(Conflict, match="as you first sent it"):
        submit_ranking(lease=ranking, token=token, groups=[[r] for r in order], ratings={order[0]: 3}, reason="so")


def test_an_answer_replaces_one_whose_response_was_lost(writing: Lease, project: Project) -> None:
    lost = uuid.uuid4()
    submit_demonstration(lease=writing, token=lost, text="It flies.")
    for _ in range(2):  # and is itself sent twice
        arguments = {"token": uuid.UUID(int=7), "text": "It flies, corrected."}
        submit(lease=writing, arguments=arguments, content={}, page=PageState(), replaces=[uuid.uuid4(), lost])
    assert Demonstration.objects.get(retracted_at=None).response.text == "It flies, corrected."
    assert Demonstration.objects.count() == 2
    assert Task.objects.get(kind=Task.Kind.WRITE).state == Task.State.FULL


def test_an_answer_that_replaces_nothing_is_an_answer(writing: Lease) -> None:
    arguments = {"token": uuid.uuid4(), "text": "It flies."}
    submit(lease=writing, arguments=arguments, content={}, page=PageState(), replaces=[uuid.uuid4()])
    assert Demonstration.objects.get().response.text == "It flies."


def test_replies_that_are_all_tied_have_no_best_one(ranking: Lease) -> None:
    with pytest.raises(BadInput, match="All replies are tied"):
        submit_ranking(lease=ranking, token=uuid.uuid4(), groups=[ranking.order_shown], strength=3)
    submit_ranking(lease=ranking, token=uuid.uuid4(), groups=[ranking.order_shown], strength=0)


def test_a_label_names_the_guidelines_that_were_shown_with_the_task(writing: Lease, project: Project, mo: User) -> None:
    seen = Guidelines.objects.get()
    newer = set_guidelines(project=project, text="Be brief above all.", user=mo)
    assert submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.").guidelines == seen
    assert newer.version == 2


def test_a_label_names_newer_guidelines_once_they_were_shown(writing: Lease, project: Project, mo: User) -> None:
    newer = set_guidelines(project=project, text="Be brief above all.", user=mo)
    show_guidelines(lease=writing, guidelines=newer)
    assert submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.").guidelines == newer


def test_an_archived_project_takes_what_was_under_way(writing: Lease, project: Project) -> None:
    archive_project(project=project)
    assert submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.").retracted_at is None


def test_an_archived_project_takes_nothing_that_was_not_under_way(writing: Lease, project: Project) -> None:
    release(lease=writing)
    archive_project(project=project)
    with pytest.raises(Conflict, match="archived"):
        submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.")
    save_draft(lease=writing, content={"text": "It flies."}, page=PageState())
    assert Draft.objects.get().content == {"text": "It flies."}


def test_labels_of_an_archived_project_are_not_taken_back(writing: Lease, project: Project, ann: User) -> None:
    label = submit_demonstration(lease=writing, token=uuid.uuid4(), text="It flies.")
    archive_project(project=project)
    with pytest.raises(Conflict, match="archived"):
        undo(label=label, by=ann)


def test_a_reply_that_was_deleted_while_it_was_in_hand_needs_no_rank(ranking: Lease, project: Project) -> None:
    a, gone, c, d = ranking.order_shown
    Response.objects.get(pk=gone).delete()
    label = ranked(ranking, groups=[[d], [a, c]], ratings={d: 7})
    assert (label.groups, label.order_shown) == ([[d], [a, c]], [a, c, d])
    assert list(usable_rankings(project)) == [label]


def test_a_single_reply_that_is_left_is_not_ranked(ranking: Lease) -> None:
    last, *gone = ranking.order_shown
    Response.objects.filter(pk__in=gone).delete()
    with pytest.raises(Conflict, match="nothing to compare"):
        ranked(ranking, groups=[[last]])
