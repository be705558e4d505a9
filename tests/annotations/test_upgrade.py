"""What an installation holds outlives the migrations of this app."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from annotations.models import Draft, Lease
from tests import factories
from webapp.accounts.models import Guidelines, Project, User

BEFORE = ("annotations", "0003_erased_rows")


def migrate(*targets: tuple[str, str]) -> Any:
    executor = MigrationExecutor(connection)
    executor.migrate(list(targets))
    return MigrationExecutor(connection).loader.project_state(list(targets)).apps


@pytest.mark.django_db(transaction=True)
def test_drafts_stay_and_leases_learn_which_guidelines_their_labels_name(project: Project, ann: User) -> None:
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    task, other = factories.task(project), factories.task(project)
    old = migrate(BEFORE)
    until = timezone.now() + timedelta(hours=1)
    old.get_model("annotations", "Draft").objects.create(
        task_id=task.pk, person_id=ann.pk, content={"text": "A ki"}, revision=1_764_000_000_000
    )
    lease = old.get_model("annotations", "Lease").objects.create(
        task_id=other.pk, person_id=ann.pk, until=until, outcome="submitted", seat=1
    )
    reply = factories.response(other.prompt, "Because.", author=ann)
    old.get_model("annotations", "Demonstration").objects.create(
        task_id=other.pk, lease=lease, prompt_id=other.prompt_id, author_id=ann.pk, token=uuid.uuid4(),
        guidelines_id=Guidelines.objects.get().pk, response_id=reply.pk,
    )  # fmt: skip
    migrate(*newest)
    assert Draft.objects.get().content == {"text": "A ki"}
    assert Draft.objects.get().revision
    assert Lease.objects.get().guidelines == Guidelines.objects.get()
