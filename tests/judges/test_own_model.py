"""A model of the project judges on the project's real model server. The model is random, so nothing it says is a
verdict: what is tested is that it is loaded, asked and read."""

from __future__ import annotations

import pytest

from tests.chat.test_real_server import random_model, served, server  # noqa: F401 (fixtures)
from tests.judges.test_jobs import finish
from webapp.accounts.models import Project, User
from webapp.judges.models import JudgeAnswer, JudgeCall
from webapp.judges.services import add_judge, start_try

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_a_model_of_the_project_is_asked_on_its_model_server(served: Project, ada: User) -> None:  # noqa: F811
    model = served.models.get(kind="full")
    judge = add_judge(project=served, by=ada, name="Own", own_model=model, rubric="Be right.", max_tokens=16)
    job = finish(start_try(judge=judge, by=ada, prompt="Why?", replies=["So.", "Because."]))
    assert (job.state, job.error, job.result["unusable"]) == ("done", "", 1)
    assert JudgeCall.objects.filter(judge=judge).count() == 6  # three tries in each of the two orders
    assert all(call.tokens_in > 50 and 0 < call.tokens_out <= 16 for call in JudgeCall.objects.all())
    assert JudgeAnswer.objects.count() == 2
