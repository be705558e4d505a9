"""Every address of the site that is ours, and the rows that stand behind its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from annotations.models import Lease
from tests import factories
from tests.narrowing import existing
from webapp.accounts.models import Project, User
from webapp.comparisons.models import Comparison
from webapp.data.models import Import
from webapp.judges.services import add_judge, start_try
from webapp.runs.models import ModelUpload

# What other people's packages serve, and who may see it. They bring their own checks; their views declare nothing.
THIRD_PARTY = ("accounts/", "static/")
# They would change who may do what for the addresses after them; tests of their own have them.
LEFT_OUT = {"project_archive", "member_leave", "member_remove", "chat_delete", "chat_delete_all"}


def addresses(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, route)
        else:
            yield route, pattern


def ours() -> list[tuple[str, URLPattern]]:
    return [(route, p) for route, p in addresses(get_resolver().url_patterns) if not route.startswith(THIRD_PARTY)]


def declared(pattern: URLPattern) -> str:
    view = getattr(pattern.callback, "view_class", None) or getattr(pattern.callback, "cls", None) or pattern.callback
    return existing(getattr(pattern.callback, "permission", None) or getattr(view, "permission", ""))


def rows_behind(project: Project, ann: User, ben: User, tess: User) -> dict[str, tuple[Any, str]]:
    """What stands behind each parameter: its value, and whose own it is ("": the project's).

    A key is the parameter with what comes before it in the address, or the parameter alone.
    """
    talk = factories.conversation(tess, project)
    reply = factories.message(talk, role="assistant", parent=factories.message(talk))
    task = factories.task(project)
    lease = Lease.objects.create(task=task, person=ann, until=timezone.now() + timedelta(hours=1))
    corpus = factories.corpus(project)
    model = factories.model_version(project)
    load = Import.objects.create(project=project, by=project.created_by, name="prompts.jsonl")
    label = factories.ranking(project, ann)
    judge = add_judge(
        project=project, by=project.created_by, name="Judge", address="https://example.org/v1", model="big"
    )
    upload = ModelUpload.objects.create(project=project, by=project.created_by, name="m.zip", size=9)
    job = start_try(judge=judge, by=project.created_by, prompt="Why?", replies=["So.", "Because."])
    compared = factories.run(project, "evaluate", base=model, baseline=factories.model_version(project))
    comparison = Comparison.objects.create(project=project, run=compared, overlap=1, created_by=project.created_by)
    exported = factories.export_run(project, {"README.md": b"# Kite\n"}, base=model)
    return {
        "slug": (project.slug, ""),
        "stage": ("sft", ""),
        "secret": ("unknown", "everybody"),
        "name": ("kite", "everybody"),
        "digest": ("unknown", "nobody"),
        "user_id": (ben.pk, ""),
        "invitation_id": (999_999, ""),
        "conversation_id": (talk.pk, "tess"),
        "message_id": (reply.pk, "tess"),
        "lease_id": (lease.pk, "ann"),
        "leases/pk": (lease.pk, "ann"),
        "kind": ("rank", ""),
        "label/kind": ("ranking", ""),
        "export/kind": ("rankings", ""),
        "exports/kind": ("rankings", ""),
        "data/kind": ("ranking", ""),
        "kind/pk": (label.pk, ""),
        "label_id": (label.pk, "ann"),
        "prompts/pk": (label.prompt.pk, ""),
        "corpora/pk": (corpus.pk, ""),
        "imports/pk": (load.pk, ""),
        "snapshots/pk": (factories.snapshot(project).pk, ""),
        "runs/pk": (factories.run_with_output(project, "dropped.jsonl", "{}\n", "corpus").pk, ""),
        "exports/pk": (exported.pk, ""),
        "model-exports/pk": (exported.pk, ""),
        "files/name": ("README.md", ""),
        "outputs/name": ("dropped.jsonl", ""),
        "models/pk": (model.pk, ""),
        "model-uploads/pk": (upload.pk, ""),
        "judges/pk": (judge.pk, ""),
        "judge-jobs/pk": (job.pk, ""),
        "comparisons/pk": (comparison.pk, ""),
        "reward/secret": ("unknown", "everybody"),
        "deployments/pk": (factories.deployment(project, model).pk, ""),
    }


PARAMETER = re.compile(r"([\w-]*)/?<(?:\w+:)?(\w+)>")


def filled(route: str, rows: dict[str, tuple[Any, str]]) -> tuple[str, set[str]]:
    """The address with a value for each parameter, and whose own the rows are."""
    owners: set[str] = set()
    parts = []
    before = ""
    for part in route.split("/"):
        name = match[2] if (match := PARAMETER.search(part)) else ""
        if name:
            value, whose = rows.get(f"{before}/{name}") or rows[name]
            owners.add(whose)
            part = PARAMETER.sub(str(value), part)  # noqa: PLW2901
        parts.append(part)
        before = name or part
    return "/" + "/".join(parts), owners
