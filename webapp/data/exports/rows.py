"""A project's own rows, with everything that is known of them; they come back whole when they are imported.

Columns are never null: -1.0 is a strength that was not given, 0 a rating that was not given, "" no text. There are no
lists that may be empty either, because a reader cannot tell their type: flags stand as text, one text a reply, and a
turn that is context only is marked in the turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.db.models import Prefetch

from annotations.export import annotator_of, turns
from annotations.models import Demonstration, Label, Prompt, Ranking, Response, Review
from webapp.accounts.models import Project
from webapp.batches import batches_of, rows_in_batches
from webapp.data.exports import selection
from webapp.data.exports.selection import Selection
from webapp.downloads import iso_time

Row = dict[str, Any]
BATCH: Final = 200  # rows of long conversations must fit in memory
NO_STRENGTH: Final = -1.0
NO_RATING: Final = 0


def exported_prompts(project: Project, chosen: Selection) -> Iterator[Row]:
    for prompt in rows_in_batches(selection.selected_prompts(project, chosen), BATCH):
        yield {
            "id": f"prompt:{prompt.pk}",
            "messages": exported_messages(prompt, project),
            **answer_columns(prompt),
            "split": prompt.split,
            "state": "withdrawn" if prompt.withdrawn_at else "live",
            "source": prompt.source,
            "source_ref": prompt.source_ref,
            "created_at": iso_time(prompt.created_at),
        }


def answer_columns(prompt: Prompt) -> Row:
    """A reference as text, or as JSON in a text if it is anything else, and the data as JSON in a text."""
    reference, data = prompt.reference, prompt.data
    is_text = isinstance(reference, str)
    return {
        "reference": reference if is_text else "",
        "reference_json": "" if is_text or reference is None else json.dumps(reference, ensure_ascii=False),
        "data": "" if data is None else json.dumps(data, ensure_ascii=False),
    }


def exported_demonstrations(project: Project, chosen: Selection) -> Iterator[Row]:
    reviews = Prefetch("reviews", Review.objects.filter(retracted_at=None).order_by("pk"), to_attr="live_reviews")
    rows = selection.selected_demonstrations(project, chosen).prefetch_related(reviews)
    for demonstration in rows_in_batches(rows, BATCH):
        review = last(demonstration.live_reviews)  # type: ignore[attr-defined]  # prefetched
        yield {
            "id": f"demonstration:{demonstration.pk}",
            "messages": weighted(demonstration, project),
            **label_columns(demonstration, project),
            "state": state_of(demonstration, demonstration.state),
            "review_verdict": review.verdict if review else "",
            "review_comment": review.comment if review else "",
        }


def weighted(demonstration: Demonstration, project: Project) -> list[Row]:
    """The conversation and its reply. Turns have a weight, as the assistant's have in OpenAI's format: 0 is context
    only. It says nothing of other turns, which have it because all turns must have the same keys."""
    before = exported_messages(demonstration.prompt, project)
    moved = len(before) - len(demonstration.prompt.messages)  # 1 where the system prompt went in front
    masked = {turn + moved for turn in demonstration.masked_turns}
    messages = [*before, {"role": "assistant", "content": demonstration.response.text}]
    return [turn | {"weight": int(number not in masked)} for number, turn in enumerate(messages)]


def exported_rankings(project: Project, chosen: Selection) -> Iterator[Row]:
    for rankings in batches_of(selection.selected_rankings(project, chosen), BATCH):
        reply_ids = {pk for ranking in rankings for pk in ranking.order_shown}
        replies = Response.objects.select_related("model").in_bulk(reply_ids)
        for ranking in rankings:
            if replies.keys() >= set(ranking.order_shown):  # else one of them was deleted for good
                yield exported_ranking(ranking, [replies[pk] for pk in ranking.order_shown], project)


def exported_ranking(ranking: Ranking, replies: list[Response], project: Project) -> Row:
    index_of = {reply.pk: number for number, reply in enumerate(replies)}
    return {
        "id": f"ranking:{ranking.pk}",
        "messages": exported_messages(ranking.prompt, project),
        "replies": [reply.text for reply in replies],
        "groups": [[index_of[pk] for pk in group] for group in ranking.groups],
        "strength": NO_STRENGTH if ranking.strength is None else float(ranking.strength),
        "ratings": [ranking.ratings.get(str(reply.pk), NO_RATING) for reply in replies],
        "flags": [",".join(ranking.flags.get(str(reply.pk), [])) for reply in replies],
        "models": [reply.model.name if reply.model else "" for reply in replies],
        "reason": ranking.reason,
        **label_columns(ranking, project),
        "state": state_of(ranking, "live"),
    }


def exported_judgments(project: Project, chosen: Selection) -> Iterator[Row]:
    for judgment in rows_in_batches(selection.selected_judgments(project, chosen), BATCH):
        yield {
            "id": f"judgment:{judgment.pk}",
            "messages": exported_messages(judgment.prompt, project),
            "reply": judgment.response.text,
            "good": judgment.good,
            **label_columns(judgment, project),
            "state": state_of(judgment, "live"),
        }


def exported_documents(project: Project, chosen: Selection) -> Iterator[Row]:
    for document in rows_in_batches(selection.selected_documents(project, chosen), BATCH):
        yield {
            "id": f"document:{document.pk}",
            "text": document.text,
            "format": document.format,
            "corpus": document.corpus.name,
            "source": document.corpus.origin,
            "source_ref": document.source_ref,
            "license": document.corpus.licence,
            "created_at": iso_time(document.created_at),
        }


def exported_messages(prompt: Prompt, project: Project) -> list[Row]:
    """The conversation as the model sees it: the project's system prompt in front, where it has none of its own."""
    return [{"role": turn.role, "content": turn.content} for turn in turns(prompt, project.system_prompt)]


def label_columns(label: Label, project: Project) -> Row:
    """What every label carries."""
    return {
        "weight": float(label.weight),
        "annotator": named_annotator(label, project),
        "split": label.prompt.split,
        "source": label.prompt.source,
        "source_ref": label.source_ref or label.prompt.source_ref,
        "guidelines": label.guidelines.version if label.guidelines else 0,
        "created_at": iso_time(label.created_at),
        "active_seconds": float(label.active_seconds),
    }


def named_annotator(label: Label, project: Project) -> str:
    """By name where the project says so; two people of one name stay two."""
    if label.annotator or not project.name_annotators:
        return annotator_of(label)
    return f"{label.author} ({annotator_of(label)})"


def state_of(label: Label, state: str) -> str:
    if label.retracted_at or label.prompt.withdrawn_at:
        return "withdrawn"
    if label.lease and label.lease.seat is None:
        return "in reserve"
    return state if label.task is None or label.task.for_training else "comparison"


def last(reviews: Iterable[Review]) -> Review | None:
    return next(reversed(list(reviews)), None)
