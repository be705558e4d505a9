"""Pages of snapshots: what was frozen, and what was made of it."""

from __future__ import annotations

from itertools import islice

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from webapp.accounts.access import requires
from webapp.accounts.models import Project
from webapp.accounts.requests import Request
from webapp.datasets import services
from webapp.datasets.forms import SnapshotForm
from webapp.datasets.models import Snapshot
from webapp.datasets.selectors import snapshots_of
from webapp.errors import TutelageError
from webapp.params import read_choice
from webapp.registry.artefacts import open_file
from webapp.registry.models import ModelVersion

PAGE = 25
PREVIEW = 5


@require_safe
@requires("data.view")
def snapshot_list(request: Request, project: Project) -> HttpResponse:
    kind = read_choice(request.GET, "kind", Snapshot.Kind.values)
    page = Paginator(snapshots_of(project, kind=kind), PAGE).get_page(request.GET.get("page"))
    context = {"project": project, "page": page, "kind": kind, "kinds": Snapshot.Kind.choices}
    return render(request, "datasets/snapshot_list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@requires("data.manage")
def snapshot_create(request: Request, project: Project) -> HttpResponse:
    form = SnapshotForm(request.POST or None, project=project, initial={"kind": request.GET.get("kind")})
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            snapshot = services.create_snapshot(
                project=project,
                kind=values["kind"],
                by=request.user,
                name=values["name"],
                filters=form.filters(),
            )
        except TutelageError as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, f"{snapshot.name} was created. Runs can use it now.")
            return redirect("snapshot_detail", snapshot.pk)
    return render(
        request,
        "datasets/snapshot_create.html",
        {"project": project, "form": form},
        status=400 if form.is_bound else 200,
    )


@require_safe
@requires("data.view", Snapshot.objects.select_related("project", "created_by"))
def snapshot_detail(request: Request, snapshot: Snapshot) -> HttpResponse:
    runs = snapshot.runs.select_related("output").order_by("-id")
    context = {
        "project": snapshot.project,
        "snapshot": snapshot,
        "runs": runs,
        "models": ModelVersion.objects.filter(run__in=runs),
        "rows": preview(snapshot),
        "redacted": snapshot.items.filter(erased_at__isnull=False).count(),
    }
    return render(request, "datasets/snapshot_detail.html", context)


def preview(snapshot: Snapshot) -> list[str]:
    """The first rows, as they are in the file; none if the store does not answer."""
    try:
        with open_file(snapshot.files["train"]) as file:
            return [line.decode("utf-8").strip()[:2000] for line in islice(file, PREVIEW)]
    except (TutelageError, KeyError):
        return []
