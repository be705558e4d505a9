"""The declarations of the stages: each is complete, and what is derived from it is what the stage does."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from pydantic import ValidationError

from training.contract import CONFIG_FILE, SPECS, Need, describe, has_effect
from training.contract.policy_stages import PPOSettings
from training.contract.settings import SEVERAL
from webapp.datasets.models import Snapshot
from webapp.runs.models import Run


@pytest.mark.parametrize("name", SPECS)
def test_every_stage_has_a_module_and_a_name_that_the_database_can_store(name: str) -> None:
    assert find_spec(f"training.stages.{name}")
    assert len(name) <= (Run._meta.get_field("stage").max_length or 0)


@pytest.mark.parametrize("name", SPECS)
def test_every_base_that_is_proposed_and_every_snapshot_exists(name: str) -> None:
    assert set(SPECS[name].usual_bases) <= set(SPECS)
    assert set(SPECS[name].snapshots) <= set(Snapshot.Kind)


def test_what_a_stage_needs_follows_from_its_files() -> None:
    assert SPECS["sft"].snapshots == {"demonstrations": Need.REQUIRED}
    assert SPECS["kto"].snapshots == {"rankings": Need.OPTIONAL, "judgments": Need.OPTIONAL}
    assert [SPECS[name].corpus_run for name in ("pretrain", "ppo", "sft")] == [Need.REQUIRED, Need.OPTIONAL, Need.NO]
    assert SPECS["kto"].learns_from("judgments")
    assert not SPECS["evaluate"].learns_from("rankings")


def test_runs_of_earlier_versions_keep_their_setting_of_rewards() -> None:
    for name in ("normalise_rewards", "normalize_rewards"):
        assert not PPOSettings.model_validate({"stage": "ppo", name: False}).normalize_rewards


def test_a_setting_of_several_processes_has_no_effect_with_one() -> None:
    shard = SPECS["sft"].settings.model_fields["shard"].json_schema_extra
    assert isinstance(shard, dict)
    assert shard["only_with"] == {"processes": SEVERAL}
    assert [has_effect({"processes": SEVERAL}, {"processes": count}) for count in (1, 2)] == [False, True]


@pytest.mark.parametrize(
    ("stage", "name", "default", "other", "reason"),
    [
        ("corpus", "seed", 0, 1, "this stage has no random seed"),
        ("corpus", "threads", 0, 1, "this stage works in one thread"),
        ("corpus", "device", "auto", "cpu", "this stage uses the CPU alone"),
        ("tokenizer", "seed", 0, 1, "this stage has no random seed"),
        ("tokenizer", "device", "auto", "cuda", "this stage uses the CPU alone"),
        ("add", "seed", 0, 1, "this stage has no random seed"),
        ("export", "seed", 0, 1, "this stage has no random seed"),
        ("serve", "seed", 0, 1, "this stage has no random seed"),
        ("grpo", "batch_tokens", 8192, 4096, "a step takes prompts_per_step times samples_per_prompt replies"),
    ],
)
def test_a_setting_that_did_nothing_is_taken_as_earlier_versions_wrote_it_and_refused_otherwise(
    stage: str, name: str, default: object, other: object, reason: str
) -> None:
    settings = CONFIG_FILE.validate_python({"stage": stage, name: default})
    assert name not in settings.model_dump()
    with pytest.raises(ValidationError) as caught:
        SPECS[stage].settings.model_validate({name: other})
    assert describe(caught.value.errors(), SPECS[stage].settings) == f"{name}: {reason}; leave it out"
