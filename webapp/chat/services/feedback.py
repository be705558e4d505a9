"""What people say of replies, and the work in the project's queue that it becomes.

A thumb down asks for a better reply, or for a ranking if there are several; a better answer is a demonstration to
be reviewed; a pick between two replies is a ranking. All of it only with the person's consent, and each exactly once:
the row of the feedback is locked, names what was made of it, and changing one's mind takes the old back.

Over 300 lines: each kind of feedback must undo what another one made.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from django.db import transaction
from django.utils import timezone

from annotations.models import Demonstration, Prompt, Ranking, Response, Task
from annotations.services.labels import withdraw_label
from annotations.services.prompts import add_prompt, add_responses
from annotations.services.records import offer_demonstration, record_judgment, record_ranking
from annotations.services.tasks import open_rank_task, open_write_task, withdraw_tasks
from webapp.accounts.models import Consent, Project, User
from webapp.accounts.services import grant_consent
from webapp.chat.models import Erasure, Feedback, Message
from webapp.chat.selectors import can_be_judged, turns_before_reply
from webapp.chat.services.erasure import SOURCE, erase_uses
from webapp.errors import BadInput
from webapp.text import clean_text

GOOD_REASONS: Final = {
    "correct": "Correct",
    "helpful": "Helpful",
    "concise": "To the point",
    "polite": "Polite",
}
BAD_REASONS: Final = {
    "incorrect": "Wrong or made up",
    "instruction": "Did not do what I asked",
    "long": "Too long",
    "short": "Too short",
    "impolite": "Rude",
    "harmful": "Harmful",
    "declined": "Refused for no good reason",
    "language": "Badly written",
}
REASONS: Final = GOOD_REASONS | BAD_REASONS
PRIORITY: Final = 5  # what real users stumbled over goes before what was sampled
MOST_TO_RANK: Final = 4


def wording(project: Project) -> str:
    return (
        f"The team of {project.name} may read the conversations in which I give feedback, and teach the assistant with "
        f"them. I can take this back at any time."
    )


def feedback_on(reply: Message, user: User) -> Feedback:
    """The person's feedback on the reply, locked; made if there is none."""
    if reply.role != "assistant" or reply.under_way:
        raise BadInput("Wait until the reply is complete before you rate it.")
    feedback, _ = Feedback.objects.get_or_create(message=reply, user=user)
    return Feedback.objects.select_for_update(of=("self",)).select_related("message__conversation__project").get(
        pk=feedback.pk
    )  # fmt: skip


@transaction.atomic
def set_thumb(*, reply: Message, user: User, thumb: int) -> Feedback:
    """Up, down or none. The reasons of the other direction go."""
    feedback = feedback_on(reply, user)
    feedback.thumb = Feedback.Thumb(thumb)
    fitting = GOOD_REASONS if thumb > 0 else BAD_REASONS if thumb < 0 else {}
    feedback.reasons = [reason for reason in feedback.reasons if reason in fitting]
    settle(feedback)
    return feedback


@transaction.atomic
def say_more(
    *, reply: Message, user: User, reasons: Sequence[str], comment: str, better_answer: str, consent: bool = False
) -> Feedback:
    """Reasons, a comment and a better answer, in place of what was said before. `consent` grants it for the project."""
    if unknown := set(reasons) - set(REASONS):
        raise BadInput(f"There is no reason called {', '.join(sorted(unknown))}.")
    feedback = feedback_on(reply, user)
    feedback.reasons = list(dict.fromkeys(reasons))
    feedback.comment = clean_text(comment).strip()
    better = clean_text(better_answer).replace("\r\n", "\n")
    feedback.better_answer = better if better.strip() else ""
    feedback.save()
    if consent:
        allow_use(user=user, project=reply.conversation.project)
        feedback.refresh_from_db()
    settle(feedback)
    return feedback


@transaction.atomic
def pick(*, winner: Message, loser: Message, user: User) -> Feedback:
    """The winner is better than its sibling. The opposite pick, if there was one, goes."""
    if (
        winner.pk == loser.pk
        or winner.parent_id != loser.parent_id
        or not (can_be_judged(winner) and can_be_judged(loser))
    ):
        raise BadInput("Only two finished replies to the same message can be compared.")
    for opposite in Feedback.objects.filter(message=loser, user=user, preferred_over=winner):
        unpick(reply=opposite.message, user=user)
    drop_verdicts(winner, loser, user)
    feedback = feedback_on(winner, user)
    feedback.preferred_over = loser
    settle(feedback)
    return feedback


@transaction.atomic
def compare(*, reply: Message, rival: Message, verdict: str, user: User) -> Feedback:
    """Neither of two replies is better: they are equally good, or both bad. Takes the place of a pick between them."""
    if (
        reply.pk == rival.pk
        or reply.parent_id != rival.parent_id
        or not (can_be_judged(reply) and can_be_judged(rival))
    ):
        raise BadInput("Only two finished replies to the same message can be compared.")
    if verdict not in Feedback.Verdict.values:
        raise BadInput("Two replies are equally good, or both bad.")
    for message, opponent in ((reply, rival), (rival, reply)):
        for picked in Feedback.objects.filter(message=message, user=user, preferred_over=opponent):
            unpick(reply=picked.message, user=user)
    drop_verdicts(reply, rival, user)
    feedback = feedback_on(reply, user)
    feedback.verdict, feedback.compared_with = verdict, rival
    settle(feedback)
    return feedback


@transaction.atomic
def drop_verdicts(reply: Message, rival: Message, user: User) -> None:
    """Forget a tie, or that both are bad, whichever of the two replies it was said about."""
    for message, opponent in ((reply, rival), (rival, reply)):
        if Feedback.objects.filter(message=message, user=user, compared_with=opponent).exists():
            feedback = feedback_on(message, user)
            feedback.verdict, feedback.compared_with = "", None
            settle(feedback)


@transaction.atomic
def unpick(*, reply: Message, user: User) -> Feedback:
    feedback = feedback_on(reply, user)
    feedback.preferred_over = None
    settle(feedback)
    return feedback


@transaction.atomic
def allow_use(*, user: User, project: Project) -> None:
    """Consent; feedback that was given before counts from now on too."""
    grant_consent(user=user, project=project, wording=wording(project))
    feedback_rows = Feedback.objects.select_for_update(of=("self",)).filter(
        user=user, message__conversation__project=project
    )
    for feedback in feedback_rows.select_related("message__conversation__project"):
        settle(feedback)


def forbid_use(*, user: User, project: Project) -> Erasure | None:
    """Consent withdrawn: what was made of the person's feedback is erased everywhere. The feedback stays theirs."""
    return erase_uses(user=user, project=project)


# ---------------------------------------------------------------------------------- what feedback becomes in the queue


def settle(feedback: Feedback) -> None:
    """Make what the queue holds of this feedback equal to what it says now."""
    project = feedback.message.conversation.project
    allowed = consent_held(user=feedback.user, project=project)
    prompt = prompt_for(feedback) if allowed and worth_work(feedback) else None
    if prompt is not None and prompt.withdrawn_at is not None:
        prompt = None  # the project does not want this conversation anymore
    feedback.prompt = prompt or feedback.prompt
    settle_demonstration(feedback, prompt)
    settle_ranking(feedback, prompt)
    settle_judgments(feedback, prompt)
    settle_task(feedback, prompt)
    feedback.updated_at = timezone.now()
    feedback.save()


def consent_held(*, user: User, project: Project) -> bool:
    """Whether the person's consent stands, and cannot be withdrawn before this transaction ends."""
    standing = Consent.objects.select_for_update(of=("self",)).filter(user=user, project=project, withdrawn_at=None)
    return standing.order_by("pk").first() is not None


def worth_work(feedback: Feedback) -> bool:
    return feedback.thumb < 0 or bool(feedback.better_answer) or bool(feedback.preferred_over_id or feedback.verdict)


def feedback_source(feedback: Feedback) -> str:
    return f"{SOURCE}{feedback.message_id}"


def prompt_for(feedback: Feedback) -> Prompt:
    """The conversation as a prompt, locked. One that is erased in this moment is made again: somebody else has deleted
    the same conversation, and this person has not."""
    prompt = feedback.prompt
    while prompt is None or Prompt.objects.select_for_update().get(pk=prompt.pk).erased_at is not None:
        prompt = add_prompt(
            project=feedback.message.conversation.project,
            messages=turns_before_reply(feedback.message),
            source=Prompt.Source.CHAT,
            by=feedback.user,
            source_ref=feedback_source(feedback),
        )
    return prompt


def settle_demonstration(feedback: Feedback, prompt: Prompt | None) -> None:
    better_answer = feedback.better_answer if prompt is not None else ""
    demonstration = feedback.demonstration
    if demonstration is not None and demonstration.response.text != better_answer:
        take_back(demonstration)
        feedback.demonstration = demonstration = None
    if better_answer and demonstration is None and prompt is not None:
        feedback.demonstration = offer_demonstration(
            prompt=prompt,
            text=better_answer,
            author=feedback.user,
            token=uuid.uuid4(),
            source_ref=feedback_source(feedback),
        )


def settle_ranking(feedback: Feedback, prompt: Prompt | None) -> None:
    """A pick ranks this reply over the other; a tie puts both into one group."""
    tied = feedback.verdict == Feedback.Verdict.TIE
    loser = (feedback.compared_with if tied else feedback.preferred_over) if prompt is not None else None
    how = f"{feedback_source(feedback)} {'ties' if tied else 'over'} {loser.pk}" if loser is not None else ""
    ranking = feedback.ranking
    if ranking is not None and ranking.source_ref != how:
        take_back(ranking)
        feedback.ranking = ranking = None
    if loser is not None and ranking is None and prompt is not None:
        this, that = responses_for(prompt, [feedback.message, loser])
        feedback.ranking = record_ranking(
            prompt=prompt,
            responses=[that, this] if loser.pk < feedback.message_id else [this, that],
            groups=[[this.pk, that.pk]] if tied else [[this.pk], [that.pk]],
            author=feedback.user,
            token=uuid.uuid4(),
            source_ref=how,
        )


def settle_judgments(feedback: Feedback, prompt: Prompt | None) -> None:
    """Both bad: a verdict on each of the two replies."""
    bad = feedback.verdict == Feedback.Verdict.BOTH_BAD and prompt is not None
    rival = feedback.compared_with if bad else None
    how = f"{feedback_source(feedback)} both bad {rival.pk}" if rival is not None else ""
    standing = feedback.judgments.filter(retracted_at=None)
    for judgment in standing.exclude(source_ref=how):
        feedback.judgments.remove(judgment)
        withdraw_label(label=judgment)
    if rival is None or prompt is None or standing.exists():
        return
    for response in responses_for(prompt, [feedback.message, rival]):
        feedback.judgments.add(
            record_judgment(response=response, good=False, author=feedback.user, token=uuid.uuid4(), source_ref=how)
        )


def settle_task(feedback: Feedback, prompt: Prompt | None) -> None:
    """A thumb down without a better answer leaves work for others."""
    needs_task = prompt is not None and feedback.thumb < 0 and not feedback.better_answer
    if feedback.task is not None and not needs_task:
        withdraw_tasks(tasks=Task.objects.filter(pk=feedback.task.pk))
        feedback.task = None
    if needs_task and feedback.task is None and prompt is not None:
        candidates = candidates_beside(feedback.message)
        if len(candidates) > 1:
            replies = responses_for(prompt, candidates)
            feedback.task = open_rank_task(
                prompt=prompt, responses=replies, priority=PRIORITY, source_ref=feedback_source(feedback)
            )
        else:
            feedback.task = open_write_task(prompt=prompt, priority=PRIORITY, source_ref=feedback_source(feedback))


def candidates_beside(reply: Message) -> list[Message]:
    """This reply and its newest different siblings, for a ranking. See docs/decisions/equal-replies.md."""
    if not can_be_judged(reply):
        return [reply]
    siblings = Message.objects.filter(conversation=reply.conversation_id, parent=reply.parent_id, role="assistant")
    different: dict[str, Message] = {}
    for sibling in siblings.order_by("-id"):
        if can_be_judged(sibling) and sibling.text != reply.text:
            different.setdefault(sibling.text, sibling)
    return [reply, *list(different.values())[: MOST_TO_RANK - 1]]


def responses_for(prompt: Prompt, messages: Sequence[Message]) -> list[Response]:
    """The replies as responses to the prompt; one that is there already is used again."""
    responses: list[Response] = []
    for message in messages:
        existing = Response.objects.filter(prompt=prompt, model=message.model, text=message.text).first()
        responses.append(
            existing or add_responses(responses=[Response(prompt=prompt, text=message.text, model=message.model)])[0]
        )
    return responses


def take_back(label: Demonstration | Ranking) -> None:
    label.refresh_from_db(fields=["retracted_at"])
    if label.retracted_at is None:
        withdraw_label(label=label)
