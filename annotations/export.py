"""Labels as rows of training's data files (training.contract)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from annotations.models import Demonstration, Judgment, Label, Prompt, Ranking, Response
from annotations.selectors import accepted_demonstrations, live_prompts, usable_judgments, usable_rankings
from training.contract import DemonstrationRow, JudgmentRow, PromptRow, RankingRow, Turn
from webapp.accounts.models import Project
from webapp.batches import batches_of, rows_in_batches

log = logging.getLogger(__name__)


def demonstration_rows(project: Project, split: str | None = None, system: str = "") -> Iterator[DemonstrationRow]:
    for demonstration in rows_in_batches(accepted_demonstrations(project, split)):
        yield demonstration_row(demonstration, system)


def ranking_rows(project: Project, split: str | None = None, system: str = "") -> Iterator[RankingRow]:
    """Rankings of which a reply was deleted for good are left out; the log says how many."""
    incomplete = 0
    for rankings in batches_of(usable_rankings(project, split)):
        reply_ids = {pk for ranking in rankings for pk in ranking.order_shown}
        texts = dict(Response.objects.filter(pk__in=reply_ids).values_list("pk", "text"))
        for ranking in rankings:
            if texts.keys() >= set(ranking.order_shown):
                yield ranking_row(ranking, texts, system)
            else:
                incomplete += 1
    if incomplete:
        log.warning("%s: left out %d rankings of which a reply was deleted", project.slug, incomplete)


def prompt_rows(project: Project, split: str | None = None, system: str = "") -> Iterator[PromptRow]:
    for prompt in rows_in_batches(live_prompts(project, split)):
        yield prompt_row(prompt, system)


def judgment_rows(project: Project, split: str | None = None, system: str = "") -> Iterator[JudgmentRow]:
    for judgment in rows_in_batches(usable_judgments(project, split)):
        yield judgment_row(judgment, system)


def demonstration_row(demonstration: Demonstration, system: str = "") -> DemonstrationRow:
    reply = Turn(role="assistant", content=demonstration.response.text)
    messages = turns(demonstration.prompt, system)
    moved = len(messages) - len(demonstration.prompt.messages)  # 1 where the system prompt went in front
    return DemonstrationRow(
        id=f"demonstration:{demonstration.pk}",
        messages=[*messages, reply],
        masked_turns=[turn + moved for turn in demonstration.masked_turns],
        weight=demonstration.weight,
        source=demonstration.source_ref or demonstration.prompt.source,
    )


def ranking_row(ranking: Ranking, texts: Mapping[int, str], system: str = "") -> RankingRow:
    """`texts` holds the replies' texts by id; they keep the order in which the person saw them."""
    index = {pk: i for i, pk in enumerate(ranking.order_shown)}
    return RankingRow(
        id=f"ranking:{ranking.pk}",
        messages=turns(ranking.prompt, system),
        replies=[texts[pk] for pk in ranking.order_shown],
        groups=[[index[pk] for pk in group] for group in ranking.groups],
        strength=ranking.strength,
        weight=ranking.weight,
        annotator=annotator_of(ranking),
        source=ranking.source_ref or ranking.prompt.source,
    )


def judgment_row(judgment: Judgment, system: str = "") -> JudgmentRow:
    return JudgmentRow(
        id=f"judgment:{judgment.pk}",
        messages=turns(judgment.prompt, system),
        reply=judgment.response.text,
        good=judgment.good,
        weight=judgment.weight,
        annotator=annotator_of(judgment),
        source=judgment.source_ref or judgment.prompt.source,
    )


def annotator_of(label: Label) -> str:
    """Who gave the label: the name in the imported file, else a number that stays the same."""
    return label.annotator or f"person:{label.author_id}"


def prompt_row(prompt: Prompt, system: str = "") -> PromptRow:
    return PromptRow(
        id=f"prompt:{prompt.pk}", messages=turns(prompt, system), reference=prompt.reference, data=prompt.data
    )


def turns(prompt: Prompt, system: str = "") -> list[Turn]:
    """The conversation so far; `system` goes in front where it has no system turn of its own."""
    messages = [Turn.model_validate(turn) for turn in prompt.messages]
    if system and messages[0].role != "system":
        messages.insert(0, Turn(role="system", content=system))
    return messages
