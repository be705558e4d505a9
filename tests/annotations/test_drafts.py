"""Half-made labels are kept as they are typed, and none is saved over another that its writer has not seen."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from annotations.models import Draft, Lease, Task
from annotations.selectors import draft_for, unfinished
from annotations.services.drafts import AlreadyAnswered, DraftConflict, PageState, changed_elsewhere, save_draft
from annotations.services.labels import submit_demonstration, undo
from annotations.services.leases import lease_next, release, skip
from annotations.services.submissions import submit
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def lease(project: Project, ann: User) -> Lease:
    factories.task(project, overlap=2)
    return existing(lease_next(person=ann, project=project))


def page(draft: Draft | None = None, **state: Any) -> PageState:
    """A page that was made with this draft."""
    return PageState(began_from=draft.revision if draft else None, writer=uuid.uuid4(), **state)


def save(lease: Lease, text: str, state: PageState) -> Draft:
    return save_draft(lease=lease, content={"text": text}, page=state)


def test_a_draft_is_kept_for_its_author_alone(lease: Lease, project: Project, ben: User) -> None:
    save(lease, "A ki\x00te", page())
    assert existing(draft_for(lease)).content == {"text": "A kite"}
    assert draft_for(existing(lease_next(person=ben, project=project))) is None


def test_of_two_saves_of_one_page_the_later_typing_stays_whatever_arrives_last(lease: Lease) -> None:
    desktop = uuid.uuid4()
    save(lease, "A kite", PageState(writer=desktop, typed_at=20))
    save(lease, "A ki", PageState(writer=desktop, typed_at=10))
    assert existing(draft_for(lease)).content == {"text": "A kite"}


def test_a_page_goes_on_after_a_save_whose_answer_it_never_got(lease: Lease) -> None:
    desktop = uuid.uuid4()
    save(lease, "A kite", PageState(writer=desktop, typed_at=1))
    save(lease, "A kite flies", PageState(writer=desktop, typed_at=2))
    assert existing(draft_for(lease)).content == {"text": "A kite flies"}


def test_a_page_that_changes_its_answer_goes_on_over_its_own_draft(lease: Lease) -> None:
    before, after = uuid.uuid4(), uuid.uuid4()
    save(lease, "A kite", PageState(writer=before, typed_at=1))
    save(lease, "A kite flies", PageState(writer=after, earlier_writers=(before,), typed_at=2))
    assert existing(draft_for(lease)).content == {"text": "A kite flies"}


def test_an_older_page_never_overwrites_what_another_device_saved(lease: Lease) -> None:
    draft = save(lease, "A kite", page())
    desktop, phone = page(draft), page(draft)
    save(lease, "A kite, and went on by phone", phone)
    with pytest.raises(DraftConflict) as conflict:
        save(lease, "A kite flies", desktop)
    assert conflict.value.draft.content == {"text": "A kite, and went on by phone"}
    assert existing(draft_for(lease)).content == {"text": "A kite, and went on by phone"}


def test_two_devices_that_both_begin_from_nothing_do_not_overwrite_each_other(lease: Lease) -> None:
    save(lease, "By phone", page())
    with pytest.raises(DraftConflict):
        save(lease, "By desktop", page())


def test_ranks_of_two_devices_do_not_overwrite_each_other(project: Project, ann: User) -> None:
    factories.task(project, Task.Kind.RANK, replies=2)
    lease = existing(lease_next(person=ann, project=project))
    a, b = lease.order_shown
    save_draft(lease=lease, content={f"rank_{a}": "1"}, page=page())
    with pytest.raises(DraftConflict):
        save_draft(lease=lease, content={f"rank_{b}": "1"}, page=page())
    assert existing(draft_for(lease)).content == {f"rank_{a}": "1"}


def test_a_page_that_has_seen_the_newer_draft_may_replace_it(lease: Lease) -> None:
    newer = save(lease, "By phone", page(save(lease, "A kite", page())))
    save(lease, "By desktop after all", page(newer))
    assert existing(draft_for(lease)).content == {"text": "By desktop after all"}


def test_the_same_text_from_two_devices_is_no_conflict(lease: Lease) -> None:
    draft = save(lease, "A kite", page())
    assert save_draft(lease=lease, content={"text": "A kite", "comment": ""}, page=page()).revision == draft.revision


def test_a_revision_is_not_met_again_after_the_draft_was_made_anew(lease: Lease, ann: User) -> None:
    old_page = page(save(lease, "It flies.", page()))
    label = submit_demonstration(lease=lease, token=uuid.uuid4(), text="It flies.")
    again = undo(label=label, by=ann)
    save(again, "It flies high.", page(draft_for(again)))
    with pytest.raises(DraftConflict):
        save(again, "It flies low.", old_page)


def test_a_submission_does_not_drop_the_newer_draft_of_another_device(lease: Lease) -> None:
    desktop = page(save(lease, "A kite", page()))
    save(lease, "A kite, and went on by phone", page(draft_for(lease)))
    arguments = {"token": uuid.uuid4(), "text": "A kite"}
    with pytest.raises(DraftConflict):
        submit(lease=lease, arguments=arguments, content={"text": "A kite"}, page=desktop)
    assert existing(draft_for(lease)).content == {"text": "A kite, and went on by phone"}
    submit(lease=lease, arguments=arguments, content={"text": "A kite"}, page=page(draft_for(lease)))
    assert not Draft.objects.exists()


def test_a_page_hears_of_a_draft_that_another_one_saved(lease: Lease) -> None:
    desktop, phone = page(), page()
    draft = save(lease, "By phone", phone)
    assert changed_elsewhere(lease=lease, page=desktop) == draft
    assert changed_elsewhere(lease=lease, page=phone) is None
    assert changed_elsewhere(lease=lease, page=page(draft)) is None


def test_the_time_spent_never_goes_back(lease: Lease) -> None:
    desktop = uuid.uuid4()
    save(lease, "A", PageState(writer=desktop, typed_at=1, active_seconds=12.4))
    save(lease, "A kite", PageState(writer=desktop, typed_at=2, active_seconds=3.0))
    assert existing(draft_for(lease)).active_seconds == 12.4


def test_a_draft_survives_giving_the_task_back(lease: Lease, project: Project, ann: User) -> None:
    save(lease, "A kite", page())
    release(lease=lease)
    assert existing(draft_for(existing(lease_next(person=ann, project=project)))).content == {"text": "A kite"}


def test_a_draft_that_arrives_after_the_submission_is_refused(lease: Lease) -> None:
    submit_demonstration(lease=lease, token=uuid.uuid4(), text="A kite flies.")
    with pytest.raises(AlreadyAnswered):
        save(lease, "A kite", page())
    assert not Draft.objects.exists()


def test_skipping_keeps_the_draft_but_does_not_list_it_as_unfinished(lease: Lease, project: Project, ann: User) -> None:
    save(lease, "A kite", page())
    skip(lease=lease)
    assert existing(draft_for(lease)).content == {"text": "A kite"}
    assert not unfinished(ann, project)


def test_unfinished_work_is_listed_apart_from_what_is_in_hand(lease: Lease, project: Project, ann: User) -> None:
    save(lease, "A kite", page())
    assert [draft.task for draft in unfinished(ann, project)] == [lease.task]
    assert not unfinished(ann, project).exclude(task=lease.task)
    Task.objects.update(state=Task.State.WITHDRAWN)
    assert not unfinished(ann, project)
