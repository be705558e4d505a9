"""What the launch form says as it is filled in, and what becomes of it when the run is launched."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests import factories
from tests.narrowing import existing
from tests.runs.test_pages import filled
from training.contract import DeviceReport, ModelFacts
from webapp.accounts.models import Project, User
from webapp.errors import BadInput
from webapp.registry.models import ModelVersion
from webapp.runs.advice import advise
from webapp.runs.forms import LaunchForm
from webapp.runs.machines import save_report
from webapp.runs.models import Run
from webapp.runs.proposals import learned_amount
from webapp.runs.services import launch_run, retry

pytestmark = pytest.mark.django_db
SMOLLM = ModelFacts(
    parameters=134_515_008, layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64,
    vocabulary=49_152, context=8192, chat_template=True, dtype="bfloat16",
)  # fmt: skip
LAPTOP = DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9, free=12 * 10**9, cores=8)
PHONE = LAPTOP.model_copy(update={"name": "a phone", "memory": 3 * 10**9, "free": 10**9})


BOX = DeviceReport(kind="cuda", name="a GPU", memory=24 * 10**9, free=24 * 10**9, count=2, bf16=True, cores=16)


def eight_billion(project: Project) -> ModelVersion:
    facts = SMOLLM.model_copy(
        update={
            "parameters": 8_030_261_248, "layers": 32, "hidden": 4096, "intermediate": 14_336, "heads": 32,
            "kv_heads": 8, "head_dim": 128, "vocabulary": 128_256,
        }
    )  # fmt: skip
    return factories.model_version(project, name="8B", parameters=facts.parameters, facts=facts.model_dump())


@pytest.fixture
def smollm(project: Project) -> ModelVersion:
    return factories.model_version(
        project, name="SmolLM2", parameters=SMOLLM.parameters, facts=SMOLLM.model_dump(), stage="add"
    )


@pytest.fixture
def toy(project: Project) -> ModelVersion:
    facts = SMOLLM.model_copy(update={"parameters": 1_200_000, "layers": 3})
    return factories.model_version(project, name="toy", parameters=1_200_000, facts=facts.model_dump(), stage="sft")


def page_of(client: Client, project: Project, stage: str, **query: Any) -> str:
    return client.get(reverse("run_launch", args=[project.slug, stage]), query).content.decode()


def advice_page(client: Client, project: Project, stage: str, **values: Any) -> str:
    form = filled(LaunchForm(project=project, stage=stage)) | values
    return client.post(reverse("run_advice", args=[project.slug, stage]), form).content.decode()


def proposals_in(page: str) -> dict[str, Any]:
    found = existing(re.search(r'<script id="proposals" type="application/json">(.*?)</script>', page, re.DOTALL))
    return {name: float(proposal["value"]) for name, proposal in json.loads(found[1]).items()}


def test_the_form_of_a_real_model_comes_filled_in_with_what_suits_it(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    save_report(LAPTOP)
    page = page_of(client, project, "dpo", base=smollm.pk)
    assert re.search(r'name="learning_rate" value="1e-06"', page)
    assert "SmolLM2&#x27;s recipe for 135M and 360M" in page
    assert re.search(r"Needs about \d+\.\d GB of 16 GB\.", page)
    assert "135 million parameters, context 8,192, bfloat16, vocabulary 49,152, with a chat template" in page


def test_a_model_without_a_chat_template_is_pointed_out_before_the_launch(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    ModelVersion.objects.filter(pk=smollm.pk).update(facts=smollm.facts | {"chat_template": False})
    client.force_login(ada)
    assert "cannot learn from conversations" in page_of(client, project, "sft", base=smollm.pk)


def test_the_form_of_a_toy_stays_as_it_is(client: Client, ada: User, project: Project, toy: ModelVersion) -> None:
    client.force_login(ada)
    page = page_of(client, project, "dpo", base=toy.pk)
    assert re.search(r'name="learning_rate" value="2e-05"', page)
    assert proposals_in(page) == {}


def test_settings_that_nobody_set_follow_the_model(
    client: Client, ada: User, project: Project, smollm: ModelVersion, toy: ModelVersion
) -> None:
    client.force_login(ada)
    page = advice_page(client, project, "sft", base=smollm.pk, learning_rate="3e-4", epochs="7", touched="epochs")
    proposed = proposals_in(page)
    assert proposed["learning_rate"] == 2e-5
    assert "epochs" not in proposed
    assert proposals_in(advice_page(client, project, "sft", base=toy.pk)) == {}


def test_a_person_s_own_value_is_never_proposed_over(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    page = advice_page(client, project, "sft", base=smollm.pk, **{"lora.rank": "8"}, touched="lora.rank")
    proposed = proposals_in(page)
    assert "lora.rank" not in proposed
    assert proposed["learning_rate"] == 2e-4, "an adapter takes another rate"


def test_a_recipe_fills_the_form_in(client: Client, ada: User, project: Project, smollm: ModelVersion) -> None:
    client.force_login(ada)
    page = advice_page(client, project, "sft", base=smollm.pk, recipe="gpu-24gb-1b", touched="batch_tokens")
    proposed = proposals_in(page)
    assert (proposed["lora.rank"], proposed["max_tokens"], "batch_tokens" in proposed) == (32, 2048, False)
    assert "1B on one 24 GB GPU" in page


def test_a_run_that_does_not_fit_is_told_so_before_it_starts_and_what_to_change(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    save_report(PHONE)
    page = advice_page(client, project, "sft", base=smollm.pk, **{"lora.rank": "0"}, touched="lora.rank,micro_tokens")
    assert "Does not fit." in page
    assert re.search(r"It fits if you set LoRA rank to 32 and lower micro tokens to [\d,]+: about 2\.\d GB", page), page


def test_devices_are_offered_where_a_machine_has_several(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    save_report(LAPTOP)
    assert 'name="processes"' not in page_of(client, project, "sft", base=smollm.pk)
    save_report(BOX, host="box")
    page = page_of(client, project, "sft", base=smollm.pk)
    assert 'name="processes" value="1"' in page
    assert "The training machine has 2 devices." in page
    assert 'name="shard"' in page
    assert 'name="shard"' not in page_of(client, project, "dpo", base=smollm.pk), "TRL shards nothing"


def test_sharding_is_advised_where_a_machine_has_several_gpus(client: Client, ada: User, project: Project) -> None:
    client.force_login(ada)
    model = eight_billion(project)
    settings = {"base": model.pk, "lora.rank": "32", "micro_tokens": "512", "touched": "lora.rank,micro_tokens"}
    one, many = (BOX.model_copy(update={"memory": 50 * 10**9, "count": count}) for count in (1, 8))
    save_report(one)
    alone = advice_page(client, project, "ppo", **settings)
    assert "Does not fit." in alone
    assert "shard it" not in alone
    save_report(many)
    page = advice_page(client, project, "ppo", **settings)
    assert "Does not fit." in page
    assert "shard it among all 8 devices" in page


def test_a_sharded_model_is_counted_as_it_is_divided(client: Client, ada: User, project: Project) -> None:
    client.force_login(ada)
    save_report(BOX.model_copy(update={"memory": 60 * 10**9, "count": 8}))
    settings = {"base": eight_billion(project).pk, "lora.rank": "0", "micro_tokens": "512"}
    touched = "lora.rank,micro_tokens,max_tokens"
    assert "Does not fit." in advice_page(client, project, "sft", **settings, touched=touched)
    sharded = settings | {"processes": "8", "shard": "on", "touched": f"{touched},processes,shard"}
    assert "Does not fit." not in advice_page(client, project, "sft", **sharded)


def test_little_free_memory_is_said_before_it_runs_out(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    save_report(LAPTOP.model_copy(update={"free": 10**9}))
    page = page_of(client, project, "sft", base=smollm.pk)
    assert "Only 1.0 GB are free now" in page


def test_before_any_worker_has_reported_the_need_is_shown_alone(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    page = page_of(client, project, "sft", base=smollm.pk)
    assert "No training worker has said yet" in page
    assert "Does not fit" not in page


def test_rows_that_no_snapshot_holds_yet_count_for_batch_and_time(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    client.force_login(ada)
    before = page_of(client, project, "dpo", base=smollm.pk)
    assert "<strong>12 s</strong>" in before
    for _ in range(30):
        factories.ranking(project, ada)
    page = page_of(client, project, "dpo", base=smollm.pk)
    assert "<strong>12 s</strong>" not in page
    pairs = 30 * 6  # of four replies, as the project has them ranked
    tokens = 30 * 2500 / 4 * 3
    assert learned_amount(project, "dpo", freeze=["rankings"]) == (pairs, tokens)
    assert 40 < 2 * tokens / proposals_in(page)["batch_tokens"] < 80, "steps in two passes"


def test_an_incomplete_form_says_when_advice_appears(client: Client, ada: User, project: Project) -> None:
    client.force_login(ada)
    page = advice_page(client, project, "sft", batch_tokens="few")
    assert "once the form is complete" in page


def test_what_was_proposed_is_kept_with_the_run_and_shown_on_its_page(
    client: Client, ada: User, project: Project, smollm: ModelVersion
) -> None:
    demonstrations = factories.snapshot(project)
    client.force_login(ada)
    form = LaunchForm(project=project, stage="sft")
    form.start_from(smollm.pk)
    form.show(existing(advise(project, "sft", form)).proposals)
    values = filled(form) | {"base": smollm.pk, "demonstrations": demonstrations.pk, "base_name": ""}
    values |= {"batch_tokens": "2048", "touched": "batch_tokens"}
    client.post(reverse("run_launch", args=[project.slug, "sft"]), values)
    run = Run.objects.get(stage="sft")
    assert (run.config["learning_rate"], run.config["batch_tokens"]) == (2e-5, 2048)
    assert "Zephyr" in run.proposed["learning_rate"]
    assert "batch_tokens" not in run.proposed
    page = client.get(reverse("run_detail", args=[run.pk])).content.decode()
    assert "Zephyr 7B&#x27;s recipe, and TRL&#x27;s default" in page

    again = page_of(client, project, "sft", like=run.pk)
    assert 'value="2048"' in again
    assert retry_of(run).proposed == run.proposed


def retry_of(run: Run) -> Run:
    Run.objects.filter(pk=run.pk).update(state=Run.State.FAILED)
    run.refresh_from_db()
    return retry(run=run, by=run.created_by)


def test_a_launch_by_machine_gets_the_same_proposals(project: Project, smollm: ModelVersion, toy: ModelVersion) -> None:
    def launched(**details: Any) -> Run:
        rows = factories.snapshot(project)
        return launch_run(project=project, stage="sft", by=project.created_by, snapshots=[rows], **details)

    run = launched(base=smollm)
    assert (run.config["learning_rate"], "learning_rate" in run.proposed) == (2e-5, True)
    run = launched(base=smollm, config={"learning_rate": 1e-3})
    assert (run.config["learning_rate"], "learning_rate" in run.proposed) == (1e-3, False)
    run = launched(base=toy)
    assert (run.config["learning_rate"], run.proposed) == (3e-4, {})
    run = launched(base_name="org/model")
    assert (run.config["learning_rate"], run.config["lora"]["rank"]) == (3e-4, 32)
    run = launched(base=smollm, recipe="laptop-135m", config={"epochs": 9})
    assert (run.config["max_tokens"], run.config["epochs"]) == (1024, 9)
    with pytest.raises(BadInput, match="there is no recipe 'phone'"):
        launched(base=smollm, recipe="phone")
