from __future__ import annotations

import uuid
from typing import Any

import pytest

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Task
from annotations.selectors import usable_rankings
from annotations.services.prompts import withdraw_prompts
from tests.chat.conftest import answer
from webapp.accounts.models import Project, User
from webapp.chat.models import Feedback
from webapp.chat.services import conversations, feedback
from webapp.errors import BadInput


@pytest.fixture
def consenting(tess: User, deployed: Any) -> Any:
    feedback.allow_use(user=tess, project=deployed)
    return tess


@pytest.fixture
def second(talk: Any, answered: Any) -> Any:
    conversations.regenerate(message=answered, token=uuid.uuid4())
    return answer(talk, "The first programmer.")


def open_tasks(project: Project) -> Any:
    return project.tasks.filter(state=Task.State.OPEN)


def better(reply: Any, user: Any, text: Any, **more: Any) -> Any:
    return feedback.say_more(reply=reply, user=user, reasons=[], comment="", better_answer=text, **more)


def test_without_consent_a_thumb_is_kept_and_nobody_reads_the_conversation(
    answered: Any, tess: User, deployed: Any
) -> None:
    feedback.set_thumb(reply=answered, user=tess, thumb=-1)
    better(answered, tess, "A mathematician and writer.")

    assert Feedback.objects.get().thumb == -1
    assert not Prompt.objects.exists()
    assert not Task.objects.exists()


def test_a_thumb_down_asks_for_a_better_reply_once(answered: Any, consenting: Any, deployed: Any) -> None:
    for _ in range(3):
        feedback.set_thumb(reply=answered, user=consenting, thumb=-1)

    task = Task.objects.get()
    assert (task.kind, task.state, task.priority) == (Task.Kind.WRITE, Task.State.OPEN, feedback.PRIORITY)
    assert task.prompt.messages == [{"role": "user", "content": "Who was Ada Lovelace?"}]
    assert task.prompt.source == Prompt.Source.CHAT
    assert Feedback.objects.get().task == task


def test_a_thumb_down_among_several_replies_asks_for_a_ranking(answered: Any, second: Any, consenting: Any) -> None:
    feedback.set_thumb(reply=second, user=consenting, thumb=-1)

    task = Task.objects.get()
    assert task.kind == Task.Kind.RANK
    assert {r.text for r in task.responses.all()} == {"A mathematician.", "The first programmer."}
    assert all(r.model == answered.model for r in task.responses.all())


@pytest.mark.parametrize("text", ["    A mathematician.", "A mathematician. ", "A mathematician.\n"])
def test_replies_that_differ_in_white_space_are_different(talk: Any, answered: Any, consenting: Any, text: Any) -> None:
    conversations.regenerate(message=answered, token=uuid.uuid4())
    other = answer(talk, text)
    feedback.set_thumb(reply=other, user=consenting, thumb=-1)

    assert {reply.text for reply in Task.objects.get().responses.all()} == {"A mathematician.", text}


def test_a_reply_with_the_same_text_is_not_compared_with_itself(talk: Any, answered: Any, consenting: Any) -> None:
    conversations.regenerate(message=answered, token=uuid.uuid4())
    feedback.set_thumb(reply=answer(talk, answered.text), user=consenting, thumb=-1)

    assert Task.objects.get().kind == Task.Kind.WRITE


def test_a_change_of_mind_takes_the_work_back(answered: Any, consenting: Any, deployed: Any) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    feedback.set_thumb(reply=answered, user=consenting, thumb=1)
    assert not open_tasks(deployed)

    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    assert open_tasks(deployed).count() == 1


def test_a_better_answer_is_a_demonstration_to_review_once(answered: Any, consenting: Any, deployed: Any) -> None:
    for _ in range(2):
        better(answered, consenting, "A mathematician and writer.")

    demonstration = Demonstration.objects.get()
    assert (demonstration.author, demonstration.response.text) == (consenting, "A mathematician and writer.")
    assert demonstration.state == Demonstration.State.PENDING
    assert open_tasks(deployed).get().kind == Task.Kind.REVIEW


def test_a_better_answer_keeps_its_indentation_and_its_last_line_break(
    answered: Any, consenting: Any, deployed: Any
) -> None:
    code = "    y = x\n    return y\n"
    assert better(answered, consenting, code).better_answer == code
    assert better(answered, consenting, " \n").better_answer == ""


def test_a_better_answer_takes_the_place_of_the_request_for_one(answered: Any, consenting: Any, deployed: Any) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    better(answered, consenting, "A mathematician and writer.")

    assert [task.kind for task in open_tasks(deployed)] == [Task.Kind.REVIEW]


def test_a_reworded_better_answer_replaces_the_first(answered: Any, consenting: Any, deployed: Any) -> None:
    better(answered, consenting, "First words.")
    better(answered, consenting, "Second words.")

    assert [d.response.text for d in Demonstration.objects.filter(retracted_at=None)] == ["Second words."]
    assert open_tasks(deployed).count() == 1
    better(answered, consenting, "")
    assert not Demonstration.objects.filter(retracted_at=None).exists()
    assert not open_tasks(deployed)


def test_a_pick_is_a_ranking_once_and_can_be_turned_round(
    answered: Any, second: Any, consenting: Any, deployed: Any
) -> None:
    for _ in range(2):
        feedback.pick(winner=second, loser=answered, user=consenting)
    ranking = Ranking.objects.get()
    texts = {r.pk: r.text for r in ranking.prompt.responses.all()}
    assert [[texts[i] for i in group] for group in ranking.groups] == [["The first programmer."], ["A mathematician."]]
    assert [texts[i] for i in ranking.order_shown] == ["A mathematician.", "The first programmer."]

    feedback.pick(winner=answered, loser=second, user=consenting)
    standing = Ranking.objects.get(retracted_at=None)
    assert [[texts[i] for i in group] for group in standing.groups] == [["A mathematician."], ["The first programmer."]]

    feedback.unpick(reply=answered, user=consenting)
    assert not usable_rankings(deployed).exists()


def test_only_siblings_are_compared(talk: Any, answered: Any, consenting: Any) -> None:
    conversations.send(conversation=talk, text="And then?", token=uuid.uuid4())
    later = answer(talk, "Nothing.")

    with pytest.raises(BadInput, match="same message"):
        feedback.pick(winner=later, loser=answered, user=consenting)


def test_consent_given_with_the_feedback_counts_at_once(answered: Any, tess: User) -> None:
    better(answered, tess, "A mathematician and writer.", consent=True)

    assert Demonstration.objects.get().response.text == "A mathematician and writer."


def test_consent_given_later_brings_in_what_was_said_before(answered: Any, tess: User, deployed: Any) -> None:
    feedback.set_thumb(reply=answered, user=tess, thumb=-1)
    feedback.allow_use(user=tess, project=deployed)

    assert open_tasks(deployed).count() == 1


def test_consent_taken_back_takes_everything_out_of_queue_and_training(
    answered: Any, second: Any, consenting: Any, deployed: Any
) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    better(second, consenting, "Words.")
    feedback.pick(winner=second, loser=answered, user=consenting)

    feedback.forbid_use(user=consenting, project=deployed)

    assert not open_tasks(deployed)
    assert not Demonstration.objects.filter(retracted_at=None).exists()
    assert not Ranking.objects.filter(retracted_at=None).exists()
    assert Prompt.objects.get().erased_at is not None
    assert Feedback.objects.filter(better_answer="Words.").exists()


def test_a_conversation_that_others_allowed_too_stays_when_one_takes_it_back(
    answered: Any, consenting: Any, ann: User, deployed: Any
) -> None:
    theirs = conversations.begin_conversation(
        user=ann, project=deployed, text="Who was Ada Lovelace?", token=uuid.uuid4()
    )
    reply = answer(theirs, "A poet.")
    feedback.allow_use(user=ann, project=deployed)
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    feedback.set_thumb(reply=reply, user=ann, thumb=-1)
    assert Prompt.objects.count() == 1

    feedback.forbid_use(user=consenting, project=deployed)

    assert Prompt.objects.get().withdrawn_at is None
    assert open_tasks(deployed).count() == 1


def test_what_is_withdrawn_by_the_project_is_not_opened_again(answered: Any, consenting: Any, deployed: Any) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    withdraw_prompts(prompts=Prompt.objects.all())
    feedback.allow_use(user=consenting, project=deployed)

    assert not open_tasks(deployed)


def test_what_its_author_withdrew_comes_back_only_with_a_new_consent(
    answered: Any, consenting: Any, deployed: Any
) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    feedback.forbid_use(user=consenting, project=deployed)
    assert not open_tasks(deployed)

    feedback.allow_use(user=consenting, project=deployed)

    assert open_tasks(deployed).get().prompt.text == "Who was Ada Lovelace?"


def test_reasons_of_the_other_thumb_go(answered: Any, tess: User) -> None:
    feedback.set_thumb(reply=answered, user=tess, thumb=-1)
    feedback.say_more(reply=answered, user=tess, reasons=["long", "incorrect"], comment="No.", better_answer="")
    assert Feedback.objects.get().reasons == ["long", "incorrect"]

    feedback.set_thumb(reply=answered, user=tess, thumb=1)
    assert Feedback.objects.get().reasons == []


def test_an_unknown_reason_is_refused(answered: Any, tess: User) -> None:
    with pytest.raises(BadInput, match="no reason called boring"):
        feedback.say_more(reply=answered, user=tess, reasons=["boring"], comment="", better_answer="")


def test_two_replies_that_are_equally_good_are_a_ranking_with_one_group(
    answered: Any, second: Any, consenting: Any, deployed: Any
) -> None:
    for _ in range(2):
        feedback.compare(reply=second, rival=answered, verdict="tie", user=consenting)

    ranking = usable_rankings(deployed).get()
    assert [len(group) for group in ranking.groups] == [2]

    feedback.pick(winner=answered, loser=second, user=consenting)
    assert [len(group) for group in usable_rankings(deployed).get().groups] == [1, 1]


def test_two_bad_replies_are_judged_bad_each(answered: Any, second: Any, consenting: Any, deployed: Any) -> None:
    feedback.pick(winner=second, loser=answered, user=consenting)
    for _ in range(2):
        feedback.compare(reply=second, rival=answered, verdict="bad", user=consenting)

    standing = Judgment.objects.filter(retracted_at=None)
    assert {(j.response.text, j.good) for j in standing} == {
        ("A mathematician.", False), ("The first programmer.", False),
    }  # fmt: skip
    assert standing.count() == 2
    assert not usable_rankings(deployed).exists()

    feedback.drop_verdicts(answered, second, consenting)
    assert not Judgment.objects.filter(retracted_at=None).exists()


def test_a_tie_said_the_other_way_round_replaces_the_first(
    answered: Any, second: Any, consenting: Any, deployed: Any
) -> None:
    feedback.compare(reply=second, rival=answered, verdict="tie", user=consenting)
    feedback.compare(reply=answered, rival=second, verdict="bad", user=consenting)

    assert not usable_rankings(deployed).exists()
    assert Judgment.objects.filter(retracted_at=None).count() == 2


def test_a_deleted_conversation_is_out_of_the_queue_until_it_is_restored(
    talk: Any, answered: Any, consenting: Any, deployed: Any
) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    conversations.delete(conversation=talk)
    assert not open_tasks(deployed)
    assert Prompt.objects.get().withdrawn_at is not None

    conversations.restore(conversation=talk)
    assert open_tasks(deployed).count() == 1
    assert Prompt.objects.get().withdrawn_at is None


def test_what_the_project_withdrew_stays_withdrawn_when_the_conversation_is_restored(
    talk: Any, answered: Any, consenting: Any
) -> None:
    feedback.set_thumb(reply=answered, user=consenting, thumb=-1)
    withdraw_prompts(prompts=Prompt.objects.all())
    conversations.delete(conversation=talk)
    conversations.restore(conversation=talk)

    assert Prompt.objects.get().withdrawn_at is not None
