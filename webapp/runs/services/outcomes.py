"""What a run that succeeded leaves: a model in the registry, figures, replies to rank."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from annotations.models import Prompt, Response
from annotations.services.prompts import add_responses
from annotations.services.tasks import open_rank_tasks
from training.contract import MODEL, OUTPUT, RESULT, SPECS, Result, SampleRow
from webapp.errors import Conflict, TutelageError
from webapp.jobs import ClaimLost
from webapp.registry.addresses import stored
from webapp.registry.artefacts import publish_folder
from webapp.registry.facts import facts_of_output
from webapp.registry.models import ModelVersion
from webapp.registry.services import add_model_version
from webapp.runs.models import Evaluation, Run
from webapp.runs.selectors import run_samples
from webapp.runs.services.claims import IMPORT_REPLIES, RUNS
from webapp.wake import send_task

log = logging.getLogger(__name__)


def succeed(run: Run, folder: Path) -> None:
    """Keep what the run made and end it. The files are in the store before the database says so, and both can be done
    again where this is cut off. Raises ClaimLost, and TutelageError where a file is not what the result says."""
    result = read_result(folder)
    models, outputs = part(result, MODEL), part(result, OUTPUT)
    # drop_copies deletes model/ as soon as the run has ended; output/ stays in some run folders
    artefact = publish_folder(folder / MODEL, folder_name="models", files=models, given=True) if models else ""
    address = publish_folder(folder / OUTPUT, folder_name="outputs", files=outputs) if outputs else ""
    facts = facts_of_output(folder / MODEL, result.model, run.base) if models else {}
    with transaction.atomic():
        locked = RUNS.held(run).select_for_update().first()
        if locked is None:
            raise ClaimLost
        if models:
            locked.output = add_output(locked, result, artefact, models, facts)
        locked.result = portable(locked, result)
        locked.outputs = {name: f"{address}/{name}" for name in outputs}
        locked.state, locked.finished_at, locked.eta, locked.claim = Run.State.SUCCEEDED, timezone.now(), 0.0, None
        locked.save(update_fields=["output", "result", "outputs", "state", "finished_at", "eta", "claim"])
        record_figures(locked, result)
        if locked.rank_replies:
            transaction.on_commit(lambda: send_task(IMPORT_REPLIES, run.pk))
    log.info("run %s succeeded", run.pk)


def portable(run: Run, result: Result) -> dict[str, Any]:
    """What the database keeps of a result: the base by a name that outlives a move of the data folder."""
    document: dict[str, Any] = result.model_dump(mode="json")
    if document["model"].get("base") and run.from_file:
        document["model"]["base"] = run.source_name
    elif base := document["model"].get("base"):
        document["model"]["base"] = stored(base, settings.HOME)
    return document


def read_result(folder: Path) -> Result:
    try:
        return Result.model_validate_json((folder / RESULT).read_bytes())
    except (OSError, ValueError) as error:
        raise TutelageError(
            f"The run ended well but {folder / RESULT} cannot be read: {error}. Delete that file and resume the run.",
            code="result_unreadable",
        ) from error


def part(result: Result, top: str) -> dict[str, str]:
    """The hashes of the files under model/ or output/, by path in there."""
    return {path.removeprefix(f"{top}/"): sha for path, sha in result.files.items() if path.startswith(f"{top}/")}


def add_output(run: Run, result: Result, artefact: str, files: dict[str, str], facts: dict[str, Any]) -> ModelVersion:
    about = result.model
    return add_model_version(
        project=run.project,
        name=run.name,
        kind=about.get("kind") or ModelVersion.Kind.FULL,
        stage=run.stage,
        by=run.created_by,
        artefact=artefact,
        files=files,
        parent=run.base,
        parameters=about.get("parameters"),
        context=about.get("context"),
        facts=facts,
        metrics=result.metrics,
        note=origin_of(run, about),
    )


def origin_of(run: Run, about: dict[str, Any]) -> str:
    """Where a model from elsewhere is from, and its license; empty for one that was trained here."""
    if not SPECS[run.stage].names_base:
        return ""
    stated = str(about.get("license") or "")[:200]
    source = f"the uploaded file {run.source_name}" if run.from_file else run.base_name
    return f"From {source}. License: {stated or 'its files name none'}."


OF_THE_RUN = {"grad_norm", "learning_rate", "lr", "saved_step", "skipped", "steps", "tokens_per_second"}


def record_figures(run: Run, result: Result) -> None:
    """Each final metric that says something of a model, and not of how the run went, as a figure of that model."""
    rows = []
    for name, value in result.metrics.items():
        if name in OF_THE_RUN or name.startswith("time/"):
            continue
        model = run.output or subject(run, name)
        if model is not None:
            low, high, n = result.intervals.get(name, (None, None, 0))
            rows.append(Evaluation(run=run, model=model, name=name[:80], value=value, low=low, high=high, n=n))
    Evaluation.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["run", "model", "name"],
        update_fields=["value", "low", "high", "n"],
    )


def subject(run: Run, name: str) -> ModelVersion | None:
    """Whom a figure of an evaluation is about, which its name begins with; the policy where it says nothing."""
    if name.startswith("baseline_"):
        return run.baseline
    return run.reward if run.base is None or name.startswith("reward_") else run.base


@transaction.atomic
def import_samples(*, run: Run) -> int:
    """Make responses and rank tasks of a sample run's replies, exactly once; how many tasks were opened."""
    run = Run.objects.select_for_update().get(pk=run.pk)
    if run.imported_at is not None:
        return 0
    if run.stage != "sample" or run.state != Run.State.SUCCEEDED:
        raise Conflict(f"{run.name} is not a sample run that has succeeded, so it has no replies to rank.")
    replies: dict[int, list[SampleRow]] = defaultdict(list)
    for sample in run_samples(run):
        replies[int(sample.prompt_id.rpartition(":")[2])].append(sample)
    prompts = Prompt.objects.filter(project=run.project, withdrawn_at=None).in_bulk(list(replies))
    sampled = [(prompts[key], rows) for key, rows in replies.items() if key in prompts]
    saved = iter(
        add_responses(responses=[response(run, prompt, sample) for prompt, rows in sampled for sample in rows])
    )
    sets = [[next(saved) for _ in rows] for _, rows in sampled]
    rankable = [distinct(responses) for responses in sets]
    tasks = open_rank_tasks(
        sets=[reply_set for reply_set in rankable if len(reply_set) > 1], source_ref=f"run:{run.pk}"
    )
    run.imported_at = timezone.now()
    run.save(update_fields=["imported_at"])
    return len(tasks)


def response(run: Run, prompt: Prompt, sample: SampleRow) -> Response:
    sampling = run.config.get("sampling", {}) | {"finish": sample.finish, "run": run.pk}
    if sample.reward is not None:
        sampling["reward"] = sample.reward
    return Response(
        prompt=prompt,
        text=sample.reply,
        model=run.base,
        sampling=sampling,
        logprob=sample.logprob,
        tokens=sample.tokens,
    )


def distinct(responses: list[Response]) -> list[Response]:
    """One of each text: equal replies cannot be told apart by who ranks them. See docs/decisions/equal-replies.md."""
    return list({response.text: response for response in responses}.values())
