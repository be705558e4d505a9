"""A judge as a reward: what a training run posts, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from tests import factories
from tests.judges.conftest import judge_at
from tests.judges.fake import FakeEndpoint, Judgment, Said, prefers, replies_in
from webapp.accounts.models import Project, User
from webapp.judges.models import Judge, JudgeCall
from webapp.judges.services import archive_judge, renew_reward_address
from webapp.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[[Judgment], FakeEndpoint]
PROMPT = [{"role": "user", "content": "Why?"}]


def launched(judge: Judge, state: str = "running") -> Run:
    """A run with the judge's address among its rewards."""
    config = {"stage": "ppo", "rewards": [{"kind": "url", "url": judge.reward_address}]}
    return factories.run(judge.project, "ppo", config=config, state=state)


def post(judge: Judge, body: Any) -> tuple[int, Any]:
    path = f"/judges/reward/{judge.reward_secret}/"
    response = Client(enforce_csrf_checks=True).post(path, body, content_type="application/json")
    return response.status_code, response.json()


def test_replies_get_scores_between_0_and_1(project: Project, endpoint_of: Start) -> None:
    endpoint = endpoint_of(lambda question, _: Said(f'{{"score": {len(replies_in(question)[0])}}}'))
    judge = judge_at(endpoint, project, mode="pointwise", price_in=1.0, price_out=1.0)
    run = launched(judge)
    replies = ["1", "1234567890", "1", "far too long for a score"]
    body = {"prompts": [PROMPT] * 4, "replies": replies, "references": [None] * 4, "data": [{}] * 4}
    status, answer = post(judge, body)
    assert (status, answer) == (200, {"scores": [0.0, 1.0, 0.0, None]})
    assert len(endpoint.asked) == 2 + 3  # the same reply once, nonsense three times
    calls = JudgeCall.objects.filter(run=run)
    assert calls.count() == 5
    assert sum(call.cost for call in calls) > 0


def test_a_pairwise_judge_compares_with_the_reference(project: Project, by_length: FakeEndpoint) -> None:
    judge = judge_at(by_length, project)
    launched(judge)
    body = {"prompts": [PROMPT] * 4, "replies": ["long one", "x", "four", "so"], "references": ["four"] * 3 + [None]}
    assert post(judge, body) == (200, {"scores": [1.0, 0.0, 0.5, None]})


def test_the_address_opens_nothing_without_an_active_run(project: Project, by_length: FakeEndpoint) -> None:
    judge = judge_at(by_length, project)
    body = {"prompts": [PROMPT], "replies": ["x"], "references": ["y"]}
    launched(judge, "succeeded")
    assert post(judge, body)[0] == 409
    launched(judge)
    assert post(judge, body)[0] == 200
    renew_reward_address(judge=judge)
    assert post(judge, body)[0] == 404
    judge.refresh_from_db()
    assert post(judge, body)[0] == 409  # the run has the old address
    archive_judge(judge=judge)
    launched(judge)
    assert post(judge, body)[0] == 409
    assert not by_length.asked[2:]


def test_chats_are_not_sent_outside(project: Project, by_length: FakeEndpoint) -> None:
    from annotations.services.prompts import digest_of

    factories.prompt(project, messages=PROMPT, digest=digest_of(PROMPT), source="chat")
    judge = judge_at(by_length, project)
    launched(judge)
    system = {"role": "system", "content": "Be kind."}
    body = {"prompts": [PROMPT, [system, *PROMPT]], "replies": ["x", "x"], "references": ["y", "y"]}
    assert post(judge, body) == (200, {"scores": [None, None]})
    assert not by_length.asked


def test_a_pause_is_waited_for_within_the_request(project: Project, endpoint_of: Start) -> None:
    def limited(question: str, number: int) -> Said:
        return Said("Slow.", 429, {"Retry-After": "0"}) if number == 1 else prefers(len)(question, number)

    judge = judge_at(endpoint_of(limited), project)
    launched(judge)
    assert post(judge, {"prompts": [PROMPT], "replies": ["xy"], "references": ["y"]}) == (200, {"scores": [1.0]})


def test_refusals_name_the_cause(project: Project, endpoint_of: Start) -> None:
    judge = judge_at(endpoint_of(lambda *_: Said("No.", 401)), project)
    launched(judge)
    status, answer = post(judge, {"prompts": [PROMPT], "replies": ["xy"], "references": ["y"]})
    assert status == 409
    assert "rejects the key" in answer["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        "[]", "{", '{"prompts": [], "replies": ["x"]}', '{"prompts": [["x"]], "replies": ["x"]}',
        '{"prompts": [[]], "replies": [1]}', '{"prompts": [[]], "replies": ["x"], "references": []}',
    ],
)  # fmt: skip
def test_a_batch_that_is_none_is_refused(project: Project, by_length: FakeEndpoint, body: str) -> None:
    judge = judge_at(by_length, project)
    launched(judge)
    assert post(judge, body)[0] == 400
    assert not by_length.asked


def test_a_run_shows_what_its_judge_costs(client: Client, project: Project, mo: User, by_length: FakeEndpoint) -> None:
    client.force_login(mo)
    judge = judge_at(by_length, project, price_in=1000.0, price_out=0.0)
    run = launched(judge)
    assert f"/runs/{run.pk}/judges/" in client.get(f"/runs/{run.pk}/").content.decode()
    assert "not been asked yet" in client.get(f"/runs/{run.pk}/judges/").content.decode()
    post(judge, {"prompts": [PROMPT], "replies": ["xy"], "references": ["y"]})
    page = " ".join(client.get(f"/runs/{run.pk}/judges/").content.decode().split())
    assert "2 calls, $0.200" in page


def test_the_launch_form_says_what_a_judge_will_cost(
    client: Client, project: Project, mo: User, by_length: FakeEndpoint
) -> None:
    client.force_login(mo)
    judge = judge_at(by_length, project, price_in=1000.0, price_out=0.0)
    form = {"base_name": "kite", "steps": "10", "prompts_per_step": "8", "samples_per_prompt": "2"}
    address = f"/projects/{project.slug}/judges/cost/ppo/"
    assert "calls" not in client.post(address, form).content.decode()
    form["rewards"] = f'[{{"kind": "url", "url": "{judge.reward_address}"}}]'
    page = client.post(address, form).content.decode()
    assert "320 calls" in page
    assert "try the judge once" in page
    launched(judge)
    post(judge, {"prompts": [PROMPT], "replies": ["xy"], "references": ["y"]})
    page = " ".join(client.post(address, form).content.decode().split())
    assert "about <strong>320 calls</strong>, about <strong>$32" in page


def test_a_judge_is_chosen_by_its_name_on_the_launch_form(
    client: Client, project: Project, mo: User, by_length: FakeEndpoint
) -> None:
    client.force_login(mo)
    judge = judge_at(by_length, project, price_in=1000.0, price_out=0.0, spending_limit=1.0)
    for number in range(3):
        factories.prompt(project, f"Question {number}?")
    base = factories.model_version(project)
    address = "/projects/kite/runs/launch/grpo/"
    page = client.get(address)
    content = " ".join(page.content.decode().split())
    assert "Judge: Big judge" in content
    assert "$1.00 of its spending limit is left" in content
    assert judge.reward_secret not in content
    blank = page.context["form"]
    shown = {name: blank[name].value() for name in blank.fields}
    body = {name: value for name, value in shown.items() if value is not None and value is not False}
    body |= {"base": base.pk, f"rewards.judge-{judge.pk}.use": "on", f"rewards.judge-{judge.pk}.weight": "0.5"}
    launched(judge)
    post(judge, {"prompts": [PROMPT], "replies": ["xy"], "references": ["y"]})
    cost = " ".join(client.post("/projects/kite/judges/cost/grpo/", body).content.decode().split())
    assert "The limit will stop this run before it ends" in cost
    advice = " ".join(client.post(f"{address}advice/", body | {"steps": "100000"}).content.decode().split())
    assert "of it for computed rewards" in advice
    assert client.post(address, body).status_code == 302
    run = Run.objects.get(stage="grpo")
    (term,) = run.config["rewards"]
    assert (term["kind"], term["url"], term["weight"], term["timeout"]) == ("url", judge.reward_address, 0.5, 600)
    copied = client.get(address, {"like": run.pk}).context["form"]
    assert copied[f"rewards.judge-{judge.pk}.use"].value() is True
    assert not copied["rewards.url.use"].value()
    archive_judge(judge=judge)
    assert "Judge: Big judge" not in client.get(address).content.decode()


def test_a_training_process_may_ask_the_site(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    from webapp.runs.execution import environment

    settings.SITE_URL = "http://127.0.0.1:8000"
    monkeypatch.setenv("TUTELAGE_REWARD_HOSTS", "gpu-box")
    assert environment()["TUTELAGE_REWARD_HOSTS"] == "gpu-box,127.0.0.1:8000"
    settings.SITE_URL = "https://kite.example.org"
    monkeypatch.delenv("TUTELAGE_REWARD_HOSTS")
    assert environment()["TUTELAGE_REWARD_HOSTS"] == "kite.example.org:443"
