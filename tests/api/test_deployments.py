"""Deploying by machine does what the page does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import factories
from tests.browser.scripted import scripted_server
from webapp.accounts.models import Project, User
from webapp.registry.models import Deployment

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("live", "state", "share"), [(False, "live", 1.0), (True, "canary", 0.1)])
def test_a_share_that_is_not_given_is_the_pages(
    project: Project, mo: User, client_of: Any, settings: Any, tmp_path: Path, live: Any, state: Any, share: Any
) -> None:
    if live:
        factories.deployment(project)
    model = factories.model_version(project, artefact=tmp_path.as_uri())
    with scripted_server() as script:
        settings.MODEL_SERVER_URL = script.url
        answer = client_of(mo).post(f"/api/v1/models/{model.pk}/deploy/", {}, format="json")
    assert (answer.status_code, answer.json()["state"], answer.json()["share"]) == (201, state, share)
    assert Deployment.objects.filter(state="live").count() == 1
