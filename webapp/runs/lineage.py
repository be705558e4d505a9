"""Lines of descent: which labels a model learned from, and which models learned from a label."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from django.db.models import F, Q, QuerySet
from django.urls import reverse

from webapp.datasets.models import Snapshot, SnapshotItem
from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run

ROW_KINDS = {
    "document": Snapshot.Kind.DOCUMENTS,
    "demonstration": Snapshot.Kind.DEMONSTRATIONS,
    "ranking": Snapshot.Kind.RANKINGS,
    "judgment": Snapshot.Kind.JUDGMENTS,
    "prompt": Snapshot.Kind.PROMPTS,
}


COLUMNS = {"labels": 0, "snapshot": 1, "run": 2, "model": 3, "deployment": 4}


class Node(NamedTuple):
    key: str  # e.g. run:7
    kind: str  # labels, snapshot, run, model or deployment
    title: str
    detail: str
    url: str
    row: int = 0  # from the oldest ancestor at the top
    current: bool = False

    @property
    def column(self) -> int:
        return COLUMNS[self.kind]


class Edge(NamedTuple):
    source: str
    target: str


class Lineage(NamedTuple):
    nodes: list[Node]
    edges: list[Edge]


def lineage(model: ModelVersion) -> Lineage:
    """What a model descends from and where it was deployed: labels → snapshot → run → model → deployment.

    A run has a row of its own with what it read and made; rows go from the oldest to the newest.
    """
    graph = Graph(model)
    return graph.laid_out()


class Graph:
    def __init__(self, model: ModelVersion) -> None:
        self.current = model
        self.runs: dict[int, Run] = {}
        self.models: dict[int, ModelVersion] = {}
        self.edges: list[Edge] = []
        self.follow_model(model)

    def follow_model(self, model: ModelVersion) -> str:
        key = f"model:{model.pk}"
        if model.pk not in self.models:
            self.models[model.pk] = model
            if run := Run.objects.filter(output=model).first():
                self.edges.append(Edge(self.follow_run(run), key))
        return key

    def follow_run(self, run: Run) -> str:
        key = f"run:{run.pk}"
        if run.pk not in self.runs:
            self.runs[run.pk] = run
            for model in (run.base, run.tokenizer, run.reward):
                if model:
                    self.edges.append(Edge(self.follow_model(model), key))
            if run.corpus_run:
                self.edges.append(Edge(self.follow_run(run.corpus_run), key))
        return key

    def laid_out(self) -> Lineage:
        """Rows in the order in which runs were launched, which no input of a run can come after."""
        nodes: dict[str, Node] = {}
        row = 0
        output_ids = {run.output_id for run in self.runs.values()}
        for model in self.models.values():
            if model.pk not in output_ids:
                nodes[f"model:{model.pk}"] = self.model_node(model, row)
                row += 1
        for pk in sorted(self.runs):
            run = self.runs[pk]
            height = self.place_snapshots(run, nodes, row)
            nodes[f"run:{pk}"] = run_node(run, row)
            if run.output_id in self.models:
                model = self.models[run.output_id]
                nodes[f"model:{model.pk}"] = self.model_node(model, row)
            row += max(1, height)
        self.place_deployments(nodes)
        return Lineage(list(nodes.values()), self.edges)

    def place_snapshots(self, run: Run, nodes: dict[str, Node], row: int) -> int:
        height = 0
        for snapshot in run.snapshots.all():
            key = f"snapshot:{snapshot.pk}"
            self.edges.append(Edge(key, f"run:{run.pk}"))
            if key not in nodes:
                url = reverse("snapshot_detail", args=[snapshot.pk])
                rows = snapshot.counts.get("train", 0) + snapshot.counts.get("heldout", 0)
                labels = Node(
                    f"labels:{snapshot.pk}", "labels", f"{rows:,} {snapshot.kind}", "", f"{url}#rows", row + height
                )
                nodes[labels.key] = labels
                nodes[key] = Node(key, "snapshot", snapshot.name, f"{snapshot.created_at:%-d %b %Y}", url, row + height)
                self.edges.append(Edge(labels.key, key))
                height += 1
        return height

    def place_deployments(self, nodes: dict[str, Node]) -> None:
        row = nodes[f"model:{self.current.pk}"].row
        for index, deployment in enumerate(self.current.deployments.order_by("since")):
            key = f"deployment:{deployment.pk}"
            url = reverse("deployment_list", args=[self.current.project.slug])
            since = f"since {deployment.since:%-d %b %Y}"
            nodes[key] = Node(key, "deployment", deployment.get_state_display(), since, url, row + index)
            self.edges.append(Edge(f"model:{self.current.pk}", key))

    def model_node(self, model: ModelVersion, row: int) -> Node:
        detail = f"{model.get_kind_display()} {model.number}"
        url = reverse("model_detail", args=[model.pk])
        return Node(f"model:{model.pk}", "model", model.name, detail, url, row, model.pk == self.current.pk)


def run_node(run: Run, row: int) -> Node:
    detail = f"{run.stage}, {run.get_state_display().lower()}"
    return Node(f"run:{run.pk}", "run", run.name, detail, reverse("run_detail", args=[run.pk]), row)


def models_that_learned_from(kind: str, row_id: int) -> QuerySet[ModelVersion]:
    """Every model with this row among what it, or a model it was made from, was trained on.

    Rows held out taught nothing. `kind`: document, demonstration, ranking, judgment or prompt.
    """
    if kind not in ROW_KINDS and kind not in Snapshot.Kind.values:
        raise BadInput(f"There is no kind of row “{kind}”. Choose one of {', '.join(ROW_KINDS)}.")
    return models_that_learned_from_rows({str(ROW_KINDS.get(kind, kind)): [row_id]})


def models_that_learned_from_rows(rows: Mapping[str, Collection[int]]) -> QuerySet[ModelVersion]:
    """The models that learned from any of these rows: ids by the kind of snapshot. A run that began after a row was
    erased has not read it."""
    runs: set[int] = set()
    for kind, ids in rows.items():
        items = SnapshotItem.objects.filter(row__in=ids, heldout=False, snapshot__kind=kind)
        learned = Q(snapshots__items__erased_at=None) | Q(started_at__lt=F("snapshots__items__erased_at"))
        readers = Run.objects.filter(learned, snapshots__items__in=items)
        runs |= set(readers.values_list("pk", flat=True))
    return models_made_from(runs)


def models_made_from(runs: set[int]) -> QuerySet[ModelVersion]:
    """The models of these runs, and of the runs that went on from those, and so on."""
    models: set[int] = set()
    while True:
        model_ids = set(ModelVersion.objects.filter(run__in=runs).values_list("pk", flat=True))
        later = set(
            Run.objects.filter(
                Q(base__in=model_ids) | Q(tokenizer__in=model_ids) | Q(reward__in=model_ids) | Q(corpus_run__in=runs)
            ).values_list("pk", flat=True)
        )
        if model_ids <= models and later <= runs:
            return ModelVersion.objects.filter(pk__in=models).order_by("project", "number")
        models |= model_ids
        runs |= later
