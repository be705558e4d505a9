"""Lines of descent: which labels a model learned from, and which models learned from a label."""

from __future__ import annotations

from typing import NamedTuple

from django.db.models import Q, QuerySet
from django.urls import reverse

from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run, Snapshot, SnapshotItem

ROW_KINDS = {
    "document": Snapshot.Kind.DOCUMENTS,
    "demonstration": Snapshot.Kind.DEMONSTRATIONS,
    "ranking": Snapshot.Kind.RANKINGS,
    "prompt": Snapshot.Kind.PROMPTS,
}


class Node(NamedTuple):
    key: str  # e.g. run:7
    kind: str  # labels, snapshot, run, model or deployment
    title: str
    detail: str
    url: str
    column: int  # from the oldest ancestor on the left


class Edge(NamedTuple):
    source: str
    target: str


class Lineage(NamedTuple):
    nodes: list[Node]
    edges: list[Edge]


def lineage(model: ModelVersion) -> Lineage:
    """What a model descends from and where it was deployed: labels → snapshot → run → model → deployment."""
    graph = Graph()
    graph.add_model(model)
    for deployment in model.deployments.select_related("by").order_by("since"):
        key = f"deployment:{deployment.pk}"
        detail = f"{deployment.since:%-d %b %Y}, by {deployment.by}"
        label = deployment.get_state_display()
        graph.add(Node(key, "deployment", label, detail, reverse("deployment_list", args=[model.project.slug]), 0))
        graph.edges.append(Edge(f"model:{model.pk}", key))
    return graph.laid_out()


class Graph:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []

    def add(self, node: Node) -> bool:
        """False where it is there already."""
        if node.key in self.nodes:
            return False
        self.nodes[node.key] = node
        return True

    def add_model(self, model: ModelVersion) -> str:
        key = f"model:{model.pk}"
        detail = f"{model.get_kind_display()}, number {model.number}"
        if self.add(Node(key, "model", model.name, detail, reverse("model_detail", args=[model.pk]), 0)):
            run = Run.objects.filter(output=model).first()
            if run:
                self.edges.append(Edge(self.add_run(run), key))
        return key

    def add_run(self, run: Run) -> str:
        key = f"run:{run.pk}"
        detail = f"{run.stage}, {run.get_state_display().lower()}"
        if not self.add(Node(key, "run", run.name, detail, reverse("run_detail", args=[run.pk]), 0)):
            return key
        for model in (run.base, run.tokenizer, run.reward):
            if model:
                self.edges.append(Edge(self.add_model(model), key))
        if run.corpus_run:
            self.edges.append(Edge(self.add_run(run.corpus_run), key))
        for snapshot in run.snapshots.all():
            self.edges.append(Edge(self.add_snapshot(snapshot), key))
        return key

    def add_snapshot(self, snapshot: Snapshot) -> str:
        key, url = f"snapshot:{snapshot.pk}", reverse("snapshot_detail", args=[snapshot.pk])
        rows = snapshot.counts.get("train", 0) + snapshot.counts.get("heldout", 0)
        if self.add(Node(key, "snapshot", snapshot.name, f"{snapshot.created_at:%-d %b %Y}", url, 0)):
            labels = Node(f"labels:{snapshot.pk}", "labels", f"{rows:,} {snapshot.kind}", "", f"{url}#rows", 0)
            self.add(labels)
            self.edges.append(Edge(labels.key, key))
        return key

    def laid_out(self) -> Lineage:
        """Columns by the longest way from a source, so that every edge goes to the right."""
        columns: dict[str, int] = {}
        before: dict[str, list[str]] = {}
        for edge in self.edges:
            before.setdefault(edge.target, []).append(edge.source)

        def column(key: str) -> int:
            if key not in columns:
                columns[key] = 1 + max((column(source) for source in before.get(key, [])), default=-1)
            return columns[key]

        nodes = [node._replace(column=column(node.key)) for node in self.nodes.values()]
        return Lineage(sorted(nodes, key=lambda node: (node.column, node.key)), self.edges)


def models_that_learned_from(kind: str, row_id: int) -> QuerySet[ModelVersion]:
    """Every model with this row among what it, or a model it was made from, was trained on.

    Rows held out taught nothing. `kind`: document, demonstration, ranking or prompt.
    """
    if kind not in ROW_KINDS and kind not in Snapshot.Kind.values:
        raise BadInput(f"There is no kind of row “{kind}”. Choose one of {', '.join(ROW_KINDS)}.")
    items = SnapshotItem.objects.filter(row=row_id, heldout=False, snapshot__kind=ROW_KINDS.get(kind, kind))
    runs = set(Run.objects.filter(snapshots__in=items.values("snapshot")).values_list("pk", flat=True))
    models: set[int] = set()
    while True:
        found = set(ModelVersion.objects.filter(run__in=runs).values_list("pk", flat=True))
        later = set(
            Run.objects.filter(
                Q(base__in=found) | Q(tokenizer__in=found) | Q(reward__in=found) | Q(corpus_run__in=runs)
            ).values_list("pk", flat=True)
        )
        if found <= models and later <= runs:
            return ModelVersion.objects.filter(pk__in=models).order_by("project", "number")
        models |= found
        runs |= later
