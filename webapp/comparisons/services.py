"""Writes: beginning a comparison, handing its pairs to people, stopping and going on."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from annotations.models import Prompt, Response, Task
from annotations.selectors import live_prompts
from annotations.services.closing import close_tasks, reopen_tasks
from annotations.services.prompts import add_prompts, add_responses
from annotations.services.tasks import open_rank_tasks
from training.contract import SampleRow
from webapp.accounts.models import Project, User
from webapp.comparisons.models import Comparison, Pair
from webapp.comparisons.results import measured_of, record_figures, result_of
from webapp.comparisons.selectors import open_comparisons, state_of
from webapp.datasets.services import create_snapshot
from webapp.errors import BadInput, Conflict, TutelageError
from webapp.judges.items import BASELINE, row_number, rows_of
from webapp.registry.models import ModelVersion
from webapp.registry.services import require_deployable
from webapp.runs.models import Run
from webapp.runs.selectors import SAMPLES
from webapp.runs.services import launch_run, request_stop, resume_run

log = logging.getLogger(__name__)
State = Comparison.State
HELDOUT, PROJECT, TYPED = "heldout", "project", "typed"
MAX_PAIRS: Final = 2000
MAX_OVERLAP: Final = 20
PRIORITY: Final = 5  # a comparison is waited for, so it goes before other tasks to rank


@transaction.atomic
def start_comparison(
    *,
    model: ModelVersion,
    baseline: ModelVersion,
    by: User,
    prompts: str = HELDOUT,
    number: int = 50,
    typed: Sequence[str] = (),
    overlap: int = 1,
    for_training: bool = False,
) -> Comparison:
    """Have both models reply to prompts, and then ask people which reply is better.

    Args:
        prompts: HELDOUT or PROJECT draws `number` of the project's prompts, held out or of both kinds; TYPED takes
            `typed`, which become held-out prompts of the project, because what measures a model must not teach it.
        overlap: how many people judge each pair.
        for_training: whether training may take what they say.

    Raises BadInput that names the field.
    """
    project = model.project
    require_two(model, baseline)
    check_overlap(overlap)
    chosen = chosen_prompts(project, prompts, number, typed, by)
    snapshot = create_snapshot(
        project=project,
        kind="prompts",
        by=by,
        name=f"Prompts for {model.name} against {baseline.name}"[:100],
        filters={"ids": [prompt.pk for prompt in chosen]},
        measures_only=True,
    )
    run = launch_run(
        project=project,
        stage="evaluate",
        by=by,
        name=f"{model.name} against {baseline.name}"[:100],
        config={
            "sampling": {
                "temperature": project.temperature,
                "top_p": project.top_p,
                "max_new_tokens": project.max_new_tokens,
            }
        },
        snapshots=[snapshot],
        base=model,
        baseline=baseline,
    )
    return Comparison.objects.create(
        project=project, run=run, overlap=overlap, for_training=for_training, created_by=by
    )


@transaction.atomic
def compare_run(*, run: Run, by: User, overlap: int = 1, for_training: bool = False) -> Comparison:
    """Ask people about the replies that an evaluate run with a baseline has left. Raises BadInput, Conflict."""
    check_overlap(overlap)
    if run.state != Run.State.SUCCEEDED or not {SAMPLES, BASELINE} <= run.outputs.keys():
        raise BadInput("run: choose an evaluate run with a baseline that has succeeded.", field="run")
    if run.base is None or run.baseline is None or run.base_id == run.baseline_id:
        raise BadInput("run: it must compare two models of this project.", field="run")
    if Comparison.objects.filter(run=run).exists():
        raise Conflict(f"People compare the replies of {run.name} already.")
    comparison = Comparison.objects.create(
        project=run.project, run=run, overlap=overlap, for_training=for_training, created_by=by
    )
    open_pairs(comparison)
    comparison.refresh_from_db()
    return comparison


def require_two(model: ModelVersion, baseline: ModelVersion) -> None:
    if baseline.project_id != model.project_id:
        raise BadInput("baseline: this model belongs to another project.", field="baseline")
    if baseline.pk == model.pk:
        raise BadInput("baseline: choose another model to compare with.", field="baseline")
    for chosen in (model, baseline):
        require_deployable(chosen)


def check_overlap(overlap: int) -> None:
    if not 1 <= overlap <= MAX_OVERLAP:
        raise BadInput(f"overlap: 1 to {MAX_OVERLAP} people can judge each pair.", field="overlap")


def chosen_prompts(project: Project, source: str, number: int, typed: Sequence[str], by: User) -> list[Prompt]:
    if source == TYPED:
        if not 1 <= len(typed) <= MAX_PAIRS:
            raise BadInput(f"typed: write 1 to {MAX_PAIRS:,} prompts.", field="typed")
        prompts = add_prompts(
            project=project,
            conversations=[[{"role": "user", "content": text}] for text in typed],
            source=Prompt.Source.WRITTEN,
            by=by,
            splits=[Prompt.Split.HELDOUT] * len(typed),
        )
        if any(prompt.withdrawn_at is not None for prompt in prompts):
            raise BadInput("typed: one of these prompts was withdrawn. Restore it, or leave it out.", field="typed")
        return list({prompt.pk: prompt for prompt in prompts}.values())
    if source not in (HELDOUT, PROJECT):
        raise BadInput(f"prompts: choose one of {HELDOUT}, {PROJECT}, {TYPED}.", field="prompts")
    if not 1 <= number <= MAX_PAIRS:
        raise BadInput(f"number: 1 to {MAX_PAIRS:,} prompts can be compared.", field="number")
    rows = live_prompts(project, Prompt.Split.HELDOUT if source == HELDOUT else None)
    ids = list(rows.values_list("pk", flat=True))
    if not ids:
        noun = "held-out prompts" if source == HELDOUT else "prompts"
        raise BadInput(f"prompts: the project has no {noun} yet. Type some, or add prompts first.", field="prompts")
    drawn = random.Random(project.pk).sample(ids, min(number, len(ids)))
    return list(Prompt.objects.filter(pk__in=drawn).order_by("pk"))


@transaction.atomic
def open_pairs(comparison: Comparison) -> int:
    """Hand the pairs to people in random order, once; how many tasks were opened. Prompts that were withdrawn since
    are left out. Raises Conflict if the run has no replies."""
    comparison = Comparison.objects.select_for_update(of=("self",)).select_related("run").get(pk=comparison.pk)
    if comparison.opened_at is not None:
        return 0
    run = comparison.run
    rows, other_rows = ({row_number(row.prompt_id): row for row in rows_of(run, name)} for name in (SAMPLES, BASELINE))
    both = [number for number in rows if number is not None and number in other_rows]
    prompts = live_prompts(comparison.project).in_bulk(both)
    order = [prompts[number] for number in both if number in prompts]
    random.SystemRandom().shuffle(order)
    replies = add_responses(
        responses=[
            reply_of(comparison, prompt, row, model)
            for prompt in order
            for row, model in ((rows[prompt.pk], comparison.model), (other_rows[prompt.pk], comparison.baseline))
        ]
    )
    pairs = [
        Pair(comparison=comparison, prompt=prompt, reply=replies[2 * at], other_reply=replies[2 * at + 1])
        for at, prompt in enumerate(order)
    ]
    differing_pairs = [pair for pair in pairs if pair.reply.text != pair.other_reply.text]
    tasks = open_rank_tasks(
        sets=[(pair.reply, pair.other_reply) for pair in differing_pairs],
        priority=PRIORITY,
        overlap=comparison.overlap,
        source_ref=f"comparison:{comparison.pk}",
        for_training=comparison.for_training,
    )
    for pair, task in zip(differing_pairs, tasks, strict=True):
        pair.task = task
    Pair.objects.bulk_create(pairs)
    comparison.opened_at = timezone.now()
    comparison.save(update_fields=["opened_at"])
    if comparison.stopped_at is not None:
        close_tasks(tasks=tasks_of(comparison))
    return len(tasks)


def reply_of(comparison: Comparison, prompt: Prompt, row: SampleRow, model: ModelVersion) -> Response:
    sampling = comparison.run.config.get("sampling", {}) | {"finish": row.finish, "run": comparison.run_id}
    return Response(
        prompt=prompt, text=row.reply, model=model, sampling=sampling, logprob=row.logprob, tokens=row.tokens
    )


def tasks_of(comparison: Comparison) -> Any:
    return Task.objects.filter(compared_pair__comparison=comparison)


@transaction.atomic
def stop_comparison(*, comparison: Comparison, by: User) -> None:
    """Ask nobody anymore. What was said stays, and is the result so far."""
    comparison = Comparison.objects.select_for_update(of=("self",)).select_related("run").get(pk=comparison.pk)
    state = state_of(comparison)
    if state not in (State.SAMPLING, State.JUDGING):
        raise Conflict(f"This comparison is {state.label.lower()}, so there is nothing to stop.")
    comparison.stopped_at = timezone.now()
    comparison.save(update_fields=["stopped_at"])
    close_tasks(tasks=tasks_of(comparison))
    if comparison.run.active:
        request_stop(run=comparison.run, by=by)


@transaction.atomic
def continue_comparison(*, comparison: Comparison, by: User) -> None:
    """Go on where it stopped: with people, or with the run that samples the replies."""
    comparison = Comparison.objects.select_for_update(of=("self",)).select_related("run").get(pk=comparison.pk)
    if state_of(comparison) not in (State.STOPPED, State.FAILED):
        raise Conflict("This comparison is not stopped.")
    if comparison.run.stopping:
        raise Conflict(f"{comparison.run.name} is still stopping. Try again in a few seconds.")
    comparison.stopped_at, comparison.error = None, ""
    comparison.save(update_fields=["stopped_at", "error"])
    if comparison.run.state in (Run.State.CANCELLED, Run.State.FAILED):
        resume_run(run=comparison.run, by=by)
    reopen_tasks(tasks=tasks_of(comparison).filter(state=Task.State.CLOSED, prompt__withdrawn_at=None))


def follow_comparisons() -> dict[str, int]:
    """Hand out the pairs of runs that have succeeded, and write the figures of comparisons that ended, or of which a
    judgment changed since. Doing it again does no harm."""
    done = {"opened": 0, "measured": 0}
    for comparison in Comparison.objects.filter(
        opened_at=None, error="", run__state=Run.State.SUCCEEDED
    ).select_related("run"):
        try:
            open_pairs(comparison)
            done["opened"] += 1
        except TutelageError as error:
            Comparison.objects.filter(pk=comparison.pk).update(error=error.message)
            log.warning("comparison %s: %s", comparison.pk, error.message)
    for comparison in open_comparisons():
        if state_of(comparison) not in (State.DONE, State.STOPPED):
            continue
        measured = measured_of(comparison)
        if measured != comparison.measured:
            with transaction.atomic():
                record_figures(comparison, result_of(comparison))
                Comparison.objects.filter(pk=comparison.pk).update(measured=measured)
            done["measured"] += 1
    return done
