"""Starting, stopping, resuming and repeating runs: what people ask for, and workers then do."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from training.contract import MODEL_FILES, SPECS, Need, Settings, StageSpec
from webapp.accounts.hub import hub_token
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.datasets.services.snapshots import WHAT_TO_DO, count_rows, create_snapshot
from webapp.errors import BadInput, Conflict
from webapp.model_names import check_model_name
from webapp.registry.models import ModelVersion
from webapp.runs.machines import device_count, missing_trackers
from webapp.runs.models import UPLOADED, ModelUpload, Run
from webapp.runs.proposals import base_facts, learned_amount, proposals_for, recorded, with_proposals
from webapp.runs.selectors import flattened
from webapp.runs.services.claims import RUNS
from webapp.runs.services.redaction import unredacted_runs
from webapp.runs.stages import check_stage_name, settings_of, validated
from webapp.runs.uploads import check_upload, kept_upload

log = logging.getLogger(__name__)
Kind = ModelVersion.Kind
State = Run.State
POLICIES = (Kind.FULL, Kind.ADAPTER)
SPLITS = {"train": ("train",), "heldout": ("heldout",), "all": ("train", "heldout")}


@transaction.atomic
def launch_run(
    *,
    project: Project,
    stage: str,
    by: User,
    name: str = "",
    config: dict[str, Any] | None = None,
    snapshots: Iterable[Snapshot] = (),
    freeze: Iterable[str] = (),
    base: ModelVersion | None = None,
    base_name: str = "",
    upload: ModelUpload | None = None,
    tokenizer: ModelVersion | None = None,
    reward: ModelVersion | None = None,
    baseline: ModelVersion | None = None,
    corpus_run: Run | None = None,
    rank_replies: bool = False,
    recipe: str = "",
    proposed: Mapping[str, str] | None = None,
) -> Run:
    """Put a run in the queue. `config` holds what differs from what is proposed for the model, or from the stage's
    defaults. `freeze` names kinds of which a new snapshot of all current rows is made for the run; if the stage learns
    from any of several kinds, one without rows is passed over. `proposed`: why settings of a complete `config` that
    nobody chose have their values; without it, what `config` lacks is taken from the `recipe` or proposed here.

    Raises BadInput that names the field: an unknown recipe, a setting that does not fit, an input that is missing, not
    taken by the stage, of another kind or another project, or a snapshot with too few rows. Raises Conflict if there is
    nothing to freeze.
    A refused launch leaves no snapshot behind.
    """
    check_stage_name(stage)
    config, freeze = config or {}, list(freeze)
    spec, settings, chosen = SPECS[stage], validated(stage, config), list(snapshots)
    if upload is not None:
        base_name = name_of_upload(project, spec, base_name, upload)
    else:
        check_model_name(base_name.strip(), files=spec.names_base)
    models = {"base": base, "tokenizer": tokenizer, "reward": reward, "baseline": baseline}
    current = current_rows(project, spec, settings, freeze)
    check_inputs(project, spec, models, base_name, corpus_run, chosen, list(current))
    check_scores(spec, settings, reward)
    check_trackers(settings)
    check_push(settings, by)
    check_devices(settings)
    rows_by_kind = [(snapshot.kind, rows_given(spec, snapshot)) for snapshot in chosen]
    check_rows(spec, settings, [*rows_by_kind, *current.items()])
    if proposed is None:
        facts = base_facts(stage, base, base_name)
        proposals = proposals_for(
            stage,
            facts,
            lambda: learned_amount(project, stage, snapshots=chosen, freeze=current, corpus_run=corpus_run),
            flattened(config),
            recipe=recipe,
        )
        config, proposed = with_proposals(config, proposals), recorded(proposals)
    Project.objects.select_for_update().get(pk=project.pk)
    number = (Run.objects.filter(project=project).aggregate(last=Max("number"))["last"] or 0) + 1
    run = Run(
        project=project,
        number=number,
        name=name.strip() or (last_part(base_name) if spec.names_base else "") or f"{stage} {number}",
        stage=stage,
        config=settings_of(stage, config),
        proposed=dict(proposed),
        corpus_run=corpus_run,
        base_name=base_name.strip(),
        upload=upload,
        rank_replies=rank_replies and stage == "sample",
        created_by=by,
        **models,
    )
    run.full_clean()
    chosen += [create_snapshot(project=project, kind=kind, by=by) for kind in current]  # last: it writes files
    run.save()
    run.snapshots.set(chosen)
    RUNS.wake(run)
    return run


def check_devices(settings: Settings) -> None:
    """Raises BadInput if the run asks for more processes than a training machine has devices."""
    processes, devices = getattr(settings, "processes", 1), device_count()
    if devices and processes > devices:
        have = "one device" if devices == 1 else f"{devices} devices"
        raise BadInput(
            f"processes: {processes} are asked for, and the training machine has {have}. Set it to {devices} or less.",
            field="processes",
        )


def last_part(name: str) -> str:
    """What a hub name, folder or file calls the model itself."""
    last = name.strip().removeprefix(UPLOADED).rstrip("/").rpartition("/")[2]
    ending = next((ending for ending in MODEL_FILES if last.lower().endswith(ending)), "")
    return last[: len(last) - len(ending)][:100]


def name_of_upload(project: Project, spec: StageSpec, base_name: str, upload: ModelUpload) -> str:
    """What stands in place of a base's name. Raises BadInput if the stage takes no file, or if it is not this one's."""
    if not spec.names_base:
        raise BadInput(f"upload: {spec.name} does not take one. Add the model first.", field="upload")
    if base_name.strip():
        raise BadInput("upload: name a model or send a file, not both.", field="upload")
    check_upload(project, upload)
    return f"{UPLOADED}{upload.name}"


def check_inputs(
    project: Project,
    spec: StageSpec,
    models: dict[str, ModelVersion | None],
    base_name: str,
    corpus_run: Run | None,
    snapshots: list[Snapshot],
    frozen: list[str],
) -> None:
    for field, kinds in (
        ("base", (*POLICIES, Kind.REWARD) if spec.exports else POLICIES),
        ("tokenizer", (Kind.TOKENIZER,)),
        ("reward", (Kind.REWARD,)),
        ("baseline", POLICIES),
    ):
        is_given = models[field] is not None or (field == "base" and bool(base_name.strip()))
        check_given(spec, field, getattr(spec, field), is_given)
        check_model(project, field, models[field], kinds)
    if models["base"] and spec.names_base:
        raise BadInput(
            f"base: {models['base'].name} is in the project already. Name a model from elsewhere.", field="base"
        )
    if models["base"] and base_name.strip():
        raise BadInput("base: choose a model of the project or name one, not both.", field="base")
    check_given(spec, "corpus_run", spec.corpus_run, corpus_run is not None)
    if corpus_run and (corpus_run.stage != "corpus" or corpus_run.state != State.SUCCEEDED):
        raise BadInput("corpus_run: choose a corpus run that has succeeded.", field="corpus_run")
    if corpus_run and corpus_run.project_id != project.pk:
        raise BadInput("corpus_run: this run belongs to another project.", field="corpus_run")
    check_snapshots(project, spec, snapshots, frozen)
    check_together(spec, models, base_name, corpus_run, bool(snapshots or frozen))


def check_scores(spec: StageSpec, settings: Settings, reward: ModelVersion | None) -> None:
    if spec.needs_scores and reward is None and not getattr(settings, "rewards", None):
        raise BadInput(
            f"reward: {spec.name} cannot start without scores. Choose a reward model, which a reward run makes from "
            "rankings, or computed rewards.",
            field="reward",
        )


def check_trackers(settings: Settings) -> None:
    if missing := missing_trackers(getattr(settings, "report_to", [])):
        raise BadInput(
            f"report_to: {' and '.join(missing)} cannot be imported on the training machine. Install it there with pip "
            f"install {' '.join(missing)} and restart the training worker, or leave it out.",
            field="report_to",
        )


def check_push(settings: Settings, by: User) -> None:
    if getattr(settings, "push_to", "") and not hub_token(by):
        raise BadInput(
            "push_to: you have no token of the Hugging Face hub here. Store one with write access on your profile "
            "page, or leave this empty.",
            field="push_to",
        )


def check_given(spec: StageSpec, field: str, need: Need, is_given: bool) -> None:
    if need is Need.REQUIRED and not is_given:
        raise BadInput(f"{field}: {spec.name} cannot start without it. {HOW_TO_GET[field]}", field=field)
    if need is Need.NO and is_given:
        raise BadInput(f"{field}: {spec.name} does not take one.", field=field)


HOW_TO_GET = {
    "base": "Choose a model of the project, or name one on the Hugging Face hub in base_name.",
    "tokenizer": "A tokenizer run makes one.",
    "reward": "A reward run makes one from rankings.",
    "baseline": "Choose a model to compare with.",
    "corpus_run": "A corpus run cleans the collected text first.",
    "demonstrations": "Make a snapshot of demonstrations first.",
    "rankings": "Make a snapshot of rankings first.",
    "judgments": "Make a snapshot of judgments first.",
    "prompts": "Make a snapshot of prompts first.",
    "documents": "Make a snapshot of text first.",
}


def check_model(project: Project, field: str, model: ModelVersion | None, kinds: tuple[Kind, ...]) -> None:
    if model is None:
        return
    if model.project_id != project.pk:
        raise BadInput(f"{field}: {model.name} belongs to another project.", field=field)
    if model.kind not in kinds:
        kind_names = " or ".join(str(kind.label).lower() for kind in kinds)
        raise BadInput(
            f"{field}: {model.name} is a {model.get_kind_display().lower()}; a {kind_names} is needed.", field=field
        )


def check_snapshots(project: Project, spec: StageSpec, snapshots: list[Snapshot], frozen: list[str]) -> None:
    for snapshot in snapshots:
        if snapshot.project_id != project.pk:
            raise BadInput(f"{snapshot.kind}: {snapshot.name} belongs to another project.", field=snapshot.kind)
    kinds = [*(snapshot.kind for snapshot in snapshots), *frozen]
    for kind in kinds:
        check_taken(spec, kind)
        if kinds.count(kind) > 1:
            raise BadInput(f"{kind}: choose one snapshot, not several.", field=kind)
    for kind, need in spec.snapshots.items():
        check_given(spec, kind, need, kind in kinds)


def check_taken(spec: StageSpec, kind: str) -> None:
    if kind not in spec.snapshots:
        raise BadInput(f"{kind}: {spec.name} does not take a snapshot of {kind}.", field=kind)


def check_together(
    spec: StageSpec,
    models: dict[str, ModelVersion | None],
    base_name: str,
    corpus_run: Run | None,
    has_snapshots: bool,
) -> None:
    """What no single field can say."""
    base = models["base"] or base_name.strip()
    if spec.name == "pretrain" and not base and not models["tokenizer"]:
        raise BadInput("tokenizer: choose a tokenizer, or a model to go on from.", field="tokenizer")
    if spec.any_snapshot and not has_snapshots:
        kinds = list(spec.snapshots)
        raise BadInput(
            f"{kinds[0]}: {spec.name} learns from {' and '.join(kinds)}. Choose a snapshot of at least one of them.",
            field=kinds[0],
        )
    if spec.name == "evaluate" and not base and not models["reward"]:
        raise BadInput("base: choose a model to measure, a reward model, or both.", field="base")
    if spec.name == "evaluate" and not has_snapshots and not corpus_run:
        raise BadInput("rankings: choose at least one snapshot or corpus run to measure on.", field="rankings")


def current_rows(project: Project, spec: StageSpec, settings: Settings, kinds: Iterable[str]) -> dict[str, int]:
    """How many rows a new snapshot of each kind would give the stage, counted up to what it needs."""
    enough = min_rows(settings)
    counts = {}
    for kind in kinds:
        check_taken(spec, kind)
        splits = SPLITS[spec.data[kind].split]
        counts[kind] = sum(count_rows(project=project, kind=kind, split=split, at_most=enough) for split in splits)
        if not counts[kind] and spec.snapshots[kind] is Need.REQUIRED:
            raise Conflict(WHAT_TO_DO[Snapshot.Kind(kind)], code="no_rows")
    return {kind: count for kind, count in counts.items() if count}


def min_rows(settings: Settings) -> int:
    return max(1, getattr(settings, "min_rows", 1))


def check_rows(spec: StageSpec, settings: Settings, counts: list[tuple[str, int]]) -> None:
    """Say at once what the stage itself would say after it has started."""
    needed = min_rows(settings)
    for kind, count in counts:
        rows = sum(count for _, count in counts) if spec.any_snapshot else count
        if rows < needed:
            have = f"{rows} {kind}" if rows else f"no {kind}"
            held = " held out" if spec.data[kind].split == "heldout" else ""
            raise BadInput(
                f"{spec.name}: {have}{held} in the snapshot, at least {needed} are needed",
                code="too_few_rows",
                field=kind,
            )


def rows_given(spec: StageSpec, snapshot: Snapshot) -> int:
    """How many rows of the snapshot the stage reads."""
    return sum(snapshot.counts.get(split, 0) for split in SPLITS[spec.data[snapshot.kind].split])


@transaction.atomic
def request_stop(*, run: Run, by: User) -> None:
    """Stop at the next safe point: a queued run at once, a running one after its checkpoint."""
    run = Run.objects.select_for_update().get(pk=run.pk)
    if run.state == State.QUEUED:
        run.state, run.finished_at = State.CANCELLED, timezone.now()
    elif not run.active:
        raise Conflict(f"{run.name} has ended already ({run.get_state_display().lower()}).")
    if run.stop_requested_at is None:
        run.stop_requested_at, run.stop_requested_by = timezone.now(), by
    run.save(update_fields=["state", "finished_at", "stop_requested_at", "stop_requested_by"])


@transaction.atomic
def resume_run(*, run: Run, by: User) -> None:
    """Queue a stopped or failed run again; it goes on from its last checkpoint."""
    run = Run.objects.select_for_update().get(pk=run.pk)
    if run.state not in (State.CANCELLED, State.FAILED):
        raise Conflict(f"{run.name} is {run.get_state_display().lower()}; only a stopped or failed run can be resumed.")
    if run.from_file:
        kept_upload(run)
    if unredacted_runs().filter(pk=run.pk).exists() or run.redacted_at is not None:
        raise Conflict(
            f"Rows that {run.name} had begun to learn from were deleted by the people who wrote them, so it cannot be "
            "resumed. Retry it: it starts again without those rows."
        )
    run.state, run.attempts, run.error, run.error_code = State.QUEUED, 0, "", ""
    run.stop_requested_at = run.stop_requested_by = run.finished_at = run.claim = None
    run.save()
    log.info("run %s resumed by %s", run.pk, by.pk)
    RUNS.wake(run)


@transaction.atomic
def retry(*, run: Run, by: User) -> Run:
    """A new run of the same settings and inputs, from its start."""
    if run.active:
        raise Conflict(f"{run.name} is still {run.get_state_display().lower()}. Stop it first.")
    if run.from_file:
        kept_upload(run)
    return launch_run(
        project=run.project,
        stage=run.stage,
        by=by,
        config={key: value for key, value in run.config.items() if key != "stage"},
        snapshots=run.snapshots.all(),
        base=run.base,
        base_name="" if run.from_file else run.base_name,
        upload=run.upload,
        tokenizer=run.tokenizer,
        reward=run.reward,
        baseline=run.baseline,
        corpus_run=run.corpus_run,
        rank_replies=run.rank_replies,
        proposed=run.proposed,
    )
