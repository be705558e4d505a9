"""Model cards made from the lineage: what a model comes from, what it learned from and how, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.contract import SPECS, ExportAbout
from webapp.datasets.models import Document, Snapshot, SnapshotItem
from webapp.registry.models import ModelVersion
from webapp.runs.models import Evaluation, Run

LIMITS = (
    "It makes mistakes, repeats what was wrong in its data, and may do so with confidence. The figures hold for rows "
    "like those they were measured on."
)


def about_model(model: ModelVersion) -> ExportAbout:
    """What goes with an export of the model. No words of people and no names: a card is public."""
    runs = runs_behind(model)
    origin = next((run for run in runs if run.base_name), None)
    is_public = origin is not None and not origin.from_file and not origin.base_name.startswith(("/", "."))
    base = origin.base_name if origin and is_public else ""
    return ExportAbout(name=model.name, base=base, license=license_of(origin), card=card(model, runs, base))


def runs_behind(model: ModelVersion) -> list[Run]:
    """The runs that made the model, the oldest first: its own, its base's, and so on; and its text's cleaning."""
    runs: dict[int, Run] = {}
    waiting: list[ModelVersion | None] = [model]
    while waiting:
        version = waiting.pop()
        run = Run.objects.filter(output=version).first() if version else None
        if run is None or run.pk in runs:
            continue
        runs[run.pk] = run
        if run.corpus_run:
            runs[run.corpus_run.pk] = run.corpus_run
        waiting += [run.base, run.tokenizer, run.reward]
    return [runs[pk] for pk in sorted(runs)]


def license_of(origin: Run | None) -> str:
    return str(origin.result.get("model", {}).get("license") or "") if origin else ""


def card(model: ModelVersion, runs: list[Run], base: str) -> str:
    sections = [
        f"# {model.name}",
        f"{model.get_kind_display()} of {model.parameters or 0:,} parameters"
        + (f", begun from [{base}](https://huggingface.co/{base})." if base else ", made with Tutelage."),
        "## Intended use\n\nTo be written by whoever publishes it: what it is for, and what it must not be used for.",
        "## Data\n\n" + ("\n".join(data_lines(runs)) or "Nothing is recorded of the data that it learned from."),
        "## Training\n\n" + ("\n".join(stage_lines(runs)) or "Nothing is recorded of its training."),
        "## Figures\n\n" + (figures_table(model) or "It was not measured."),
        f"## Limits\n\n{LIMITS}",
    ]
    return "\n\n".join(sections)


def data_lines(runs: list[Run]) -> Iterator[str]:
    listed_ids: set[int] = set()
    for run in runs:
        for snapshot in run.snapshots.all():
            if snapshot.pk not in listed_ids:
                listed_ids.add(snapshot.pk)
                counts = (
                    f"{snapshot.counts.get('train', 0):,} to learn from, {snapshot.counts.get('heldout', 0):,} held out"
                )
                yield f"- {snapshot.get_kind_display()}: {counts}{licenses(snapshot)}"


def licenses(snapshot: Snapshot) -> str:
    """The licenses of the corpora that text was taken from; labels have none of their own."""
    if snapshot.kind != Snapshot.Kind.DOCUMENTS:
        return ""
    rows = SnapshotItem.objects.filter(snapshot=snapshot).values("row")
    names = Document.objects.filter(pk__in=rows).order_by().values_list("corpus__licence", flat=True).distinct()
    return f"; licenses: {', '.join(sorted(name or 'not stated' for name in names)) or 'not stated'}"


def stage_lines(runs: list[Run]) -> Iterator[str]:
    """Each run with the settings that are not the stage's defaults."""
    for run in runs:
        usual = SPECS[run.stage].settings(stage=run.stage).model_dump(mode="json")
        changed = ", ".join(f"{name} {value}" for name, value in different(run.config, usual))
        yield f"- {run.stage}" + (f": {changed}" if changed else "")


def different(config: dict[str, Any], usual: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        default = usual.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            yield from different(value, default, f"{prefix}{name}.")
        elif value != default and name != "stage" and is_plain(value):
            yield f"{prefix}{name}", value


def is_plain(value: Any) -> bool:
    """Whether a setting is a number or a word: addresses and paths stay here."""
    return isinstance(value, bool | int | float) or (isinstance(value, str) and value.replace("_", "").isalnum())


def figures_table(model: ModelVersion) -> str:
    figures = Evaluation.objects.filter(model=model).order_by("name", "id")
    if not figures:
        return ""
    rows = [
        f"| {figure.name} | {figure.value:.4g} | "
        + (f"{figure.low:.4g} to {figure.high:.4g}, n = {figure.n:,} |" if figure.low is not None else "|")
        for figure in figures
    ]
    return "\n".join(["| figure | value | 95 % interval |", "|---|---|---|", *rows])
