"""Labels that people give in passing, in a chat, without a task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from annotations.models import Demonstration, Judgment, Prompt, Ranking, Response
from annotations.services.labels import valid_strength, whole_ranking
from annotations.services.reviews import call_for_review
from webapp.accounts.models import User
from webapp.accounts.selectors import current_guidelines
from webapp.errors import BadInput, Conflict
from webapp.text import clean_text, trim_reply


def lock(prompt: Prompt) -> None:
    """Let one label of a prompt be recorded at a time, so that a token sent twice at once is found the second time."""
    Prompt.objects.select_for_update().get(pk=prompt.pk)


@transaction.atomic
def offer_demonstration(
    *, prompt: Prompt, text: str, author: User, token: UUID, source_ref: str = "", now: datetime | None = None
) -> Demonstration:
    """A reply that someone would rather have had. Others are asked to review it where the project wants reviews."""
    lock(prompt)
    sent = Demonstration.objects.filter(author=author, token=token).first()
    if sent is not None:
        return sent
    text = trim_reply(text)
    if not text:
        raise BadInput("Write the better answer first.")
    now = now or timezone.now()
    label = Demonstration.objects.create(
        prompt=prompt,
        response=Response.objects.create(prompt=prompt, text=text, author=author, created_at=now),
        author=author,
        token=token,
        guidelines=current_guidelines(prompt.project),
        source_ref=source_ref[:300],
        created_at=now,
    )
    call_for_review(demonstration=label)
    return label


@transaction.atomic
def record_ranking(
    *,
    prompt: Prompt,
    responses: Sequence[Response],
    groups: Sequence[Sequence[int]],
    author: User,
    token: UUID,
    strength: float | None = None,
    reason: str = "",
    source_ref: str = "",
    now: datetime | None = None,
) -> Ranking:
    """An ordering that someone gave without a task, such as a pick between two replies in a chat.

    Args:
        responses: the replies in the order they were seen.
        groups: response ids, best group first.
    """
    lock(prompt)
    sent = Ranking.objects.filter(author=author, token=token).first()
    if sent is not None:
        return sent
    if any(response.prompt_id != prompt.pk for response in responses):
        raise Conflict("Replies that are ranked must all answer the same prompt.")
    order = [response.pk for response in responses]
    return Ranking.objects.create(
        prompt=prompt,
        author=author,
        token=token,
        groups=whole_ranking(groups, order),
        order_shown=order,
        strength=valid_strength(strength),
        reason=clean_text(reason).strip(),
        guidelines=current_guidelines(prompt.project),
        source_ref=source_ref[:300],
        created_at=now or timezone.now(),
    )


@transaction.atomic
def record_judgment(
    *, response: Response, good: bool, author: User, token: UUID, source_ref: str = "", now: datetime | None = None
) -> Judgment:
    """A verdict on a single reply that someone gave without a task."""
    prompt = response.prompt
    lock(prompt)
    sent = Judgment.objects.filter(author=author, token=token).first()
    return sent or Judgment.objects.create(
        prompt=prompt,
        response=response,
        good=good,
        author=author,
        token=token,
        guidelines=current_guidelines(prompt.project),
        source_ref=source_ref[:300],
        created_at=now or timezone.now(),
    )
