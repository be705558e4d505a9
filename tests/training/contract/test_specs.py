"""The declarations of the stages: each is complete, and what is derived from it is what the stage does."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from training.contract import SPECS, Need, has_effect
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
