"""What training posts to a reward's address, and what the site answers, fit: both over real HTTP."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.conf import LazySettings

from tests.api.serving import site
from tests.judges.conftest import judge_at
from tests.judges.fake import FakeEndpoint
from tests.judges.test_reward import launched
from training.contract import PromptRow, Turn
from training.contract.rewards import URLReward
from training.preferences.reward_functions import RewardBatch
from training.preferences.reward_server import RewardServer, ServerFailed
from webapp.accounts.models import Project
from webapp.judges.services import renew_reward_address

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_training_run_gets_scores_from_a_judge(
    project: Project, by_length: FakeEndpoint, settings: LazySettings
) -> None:
    judge = judge_at(by_length, project)
    rows = [
        PromptRow(id="prompt:1", messages=[Turn(role="user", content="Why?")], reference="Because."),
        PromptRow(id="prompt:2", messages=[Turn(role="user", content="Who?")]),
    ]
    with site() as address:
        settings.SITE_URL, settings.ALLOWED_HOSTS = address, ["127.0.0.1"]
        launched(judge)
        hosts = {"TUTELAGE_REWARD_HOSTS": urlsplit(address).netloc}
        server = RewardServer(URLReward(url=judge.reward_address, timeout=30), hosts)
        assert server.score(RewardBatch.of(rows, ["Because it is so.", "I."])) == [1.0, None]
        renew_reward_address(judge=judge)
        with pytest.raises(ServerFailed, match="may have been renewed"):
            server.score(RewardBatch.of(rows, ["No.", "I."]))
