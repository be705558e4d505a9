from __future__ import annotations

from typing import Any

import pytest

from training.contract import SPECS, DeviceReport, ModelFacts, Occasion, has_proposals, propose
from training.contract.proposals import LARGE, SMALL

GPU = DeviceReport(kind="cuda", name="a GPU", memory=24 * 10**9, bf16=True)
SMOLLM = ModelFacts(
    parameters=134_515_008, layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, head_dim=64,
    vocabulary=49_152, context=8192,
)  # fmt: skip
SIZES = {"1.2M": 1_200_000, "135M": 134_515_008, "1B": 1_235_814_400, "8B": 8_030_261_248, "unknown": 0}


def values(stage: str, size: str, *, device: DeviceReport | None = None, **details: Any) -> dict[str, Any]:
    occasion = Occasion(stage, ModelFacts(parameters=SIZES[size]), device=device, **details)
    return {name: proposal.value for name, proposal in propose(occasion).items()}


def test_toys_keep_the_defaults_that_are_for_them() -> None:
    assert all(values(stage, "1.2M") == {} for stage in SPECS)


def test_the_table_of_the_documentation() -> None:
    rates = {
        (stage, size, rank): values(stage, size, chosen={"lora.rank": rank})["learning_rate"]
        for stage in SMALL
        if stage != "pretrain"
        for size in ("135M", "8B")
        for rank in (0, 32)
    }
    assert rates == {
        ("sft", "135M", 0): 2e-5, ("sft", "135M", 32): 2e-4, ("sft", "8B", 0): 5e-6, ("sft", "8B", 32): 2e-4,
        ("reward", "135M", 0): 9e-6, ("reward", "135M", 32): 9e-5,
        ("reward", "8B", 0): 9e-6, ("reward", "8B", 32): 9e-5,
        ("dpo", "135M", 0): 1e-6, ("dpo", "135M", 32): 1e-5, ("dpo", "8B", 0): 5e-7, ("dpo", "8B", 32): 5e-6,
        ("kto", "135M", 0): 1e-6, ("kto", "135M", 32): 1e-5, ("kto", "8B", 0): 5e-7, ("kto", "8B", 32): 5e-6,
        ("ppo", "135M", 0): 1e-6, ("ppo", "135M", 32): 1e-5, ("ppo", "8B", 0): 5e-7, ("ppo", "8B", 32): 5e-6,
        ("grpo", "135M", 0): 1e-6, ("grpo", "135M", 32): 1e-5, ("grpo", "8B", 0): 5e-7, ("grpo", "8B", 32): 5e-6,
    }  # fmt: skip


def test_losses_without_a_reference_have_rates_of_their_own() -> None:
    rates = {loss: values("dpo", "135M", chosen={"loss": loss})["learning_rate"] for loss in ("ipo", "simpo", "orpo")}
    assert rates == {"ipo": 1e-6, "simpo": 8e-7, "orpo": 5e-6}


@pytest.mark.parametrize("size", ["135M", "1B", "8B", "unknown"])
@pytest.mark.parametrize("stage", list(SMALL))
def test_what_is_proposed_is_a_valid_setting_and_names_its_source(stage: str, size: str) -> None:
    occasion = Occasion(stage, ModelFacts(parameters=SIZES[size]), device=GPU, tokens=9000, rows=30)
    config: dict[str, Any] = {}
    for name, proposal in propose(occasion).items():
        *path, leaf = name.split(".")
        section = config
        for key in path:
            section = section.setdefault(key, {})
        section[leaf] = proposal.value
        assert proposal.why
    SPECS[stage].settings.model_validate(config)
    assert set(SMALL) == set(LARGE) == {name for name, spec in SPECS.items() if spec.learns}


def test_large_models_and_rl_get_an_adapter_and_small_ones_learn_whole() -> None:
    assert [values("dpo", size)["lora.rank"] for size in ("135M", "1B", "8B")] == [0, 32, 32]
    assert values("ppo", "135M")["lora.rank"] == 32


def test_where_every_weight_does_not_fit_an_adapter_is_proposed_and_a_pass_that_fits() -> None:
    phone = DeviceReport(kind="cpu", name="a phone", memory=3 * 10**9)
    proposals = propose(Occasion("sft", SMOLLM, device=phone))
    assert (proposals["lora.rank"].value, proposals["learning_rate"].value) == (32, 2e-4)
    assert proposals["micro_tokens"].value == 512
    laptop = DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9)
    proposals = propose(Occasion("sft", SMOLLM, device=laptop))
    assert (proposals["lora.rank"].value, "micro_tokens" in proposals) == (0, False), "the stage's own 4,096 fit"


def test_a_gpu_gets_the_largest_pass_that_leaves_room() -> None:
    proposals = propose(Occasion("sft", SMOLLM, device=GPU))
    assert proposals["micro_tokens"].value == 8192
    assert "a fifth of 24 GB free" in proposals["micro_tokens"].why
    longest = propose(
        Occasion("dpo", SMOLLM, device=GPU.model_copy(update={"memory": 10**9}), chosen={"max_tokens": 2048})
    )
    assert longest["micro_tokens"].value == 2048, "the longest row must go through one pass"


def test_layers_are_computed_again_only_where_no_pass_fits_otherwise() -> None:
    facts = LLAMA_8B.model_copy(update={"parameters": SIZES["8B"]})
    proposals = propose(Occasion("sft", facts, device=GPU))
    assert (proposals["activation_checkpointing"].value, proposals["micro_tokens"].value) == (True, 512)
    large = GPU.model_copy(update={"memory": 80 * 10**9})
    assert "activation_checkpointing" not in propose(Occasion("sft", facts, device=large))
    small = GPU.model_copy(update={"memory": 16 * 10**9})
    assert "activation_checkpointing" not in propose(Occasion("sft", facts, device=small)), "it does not help there"
    chosen = propose(Occasion("sft", facts, device=GPU, chosen={"activation_checkpointing": False}))
    assert "activation_checkpointing" not in chosen


def test_what_a_person_chose_is_not_proposed_and_the_rest_goes_by_it() -> None:
    chosen = values("sft", "135M", chosen={"lora.rank": 16, "batch_tokens": 999})
    assert "lora.rank" not in chosen
    assert "batch_tokens" not in chosen
    assert (chosen["learning_rate"], chosen["lora.alpha"]) == (2e-4, 32.0)
    assert "learning_rate" not in values("sft", "135M", chosen={"learning_rate": 1e-3})


def test_an_adapter_goes_on_as_the_adapter_it_is() -> None:
    facts = ModelFacts(parameters=SIZES["135M"], adapter_rank=8)
    proposals = propose(Occasion("dpo", facts))
    assert (proposals["lora.rank"].value, proposals["learning_rate"].value) == (8, 1e-5)


def test_little_data_is_cut_into_batches_that_leave_steps_enough() -> None:
    few = values("sft", "135M", tokens=40_000, rows=100)  # three passes over 40,000 tokens
    assert 40_000 * 3 / few["batch_tokens"] > 40
    many = values("sft", "135M", tokens=10_000_000, rows=20_000)  # of 500 tokens each
    assert many["batch_tokens"] == 65_536  # about 128 rows


def test_a_short_run_with_an_adapter_takes_a_higher_rate() -> None:
    assert values("dpo", "8B", tokens=30_000, rows=30)["learning_rate"] == 7.5e-6
    assert values("dpo", "8B", tokens=30_000_000, rows=30_000)["learning_rate"] == 5e-6
    assert values("dpo", "8B", tokens=30_000_000, rows=30_000, chosen={"max_steps": 20})["learning_rate"] == 7.5e-6
    assert values("dpo", "135M", tokens=30_000, rows=30)["learning_rate"] == 1e-6, "every weight learns"


def test_a_gpu_gets_rollouts_of_128_replies_and_a_cpu_keeps_small_ones() -> None:
    assert values("ppo", "135M", device=GPU)["prompts_per_step"] == 128
    assert values("grpo", "135M", device=GPU)["prompts_per_step"] == 16
    assert values("grpo", "135M", device=GPU, chosen={"samples_per_prompt": 16})["prompts_per_step"] == 8
    assert "prompts_per_step" not in values("ppo", "135M")


def test_a_model_of_unknown_size_gets_the_careful_figures() -> None:
    assert has_proposals("sft", ModelFacts())
    assert values("sft", "unknown") == values("sft", "8B")


LLAMA_8B = ModelFacts(
    parameters=8_030_261_248, layers=32, hidden=4096, intermediate=14_336, heads=32, kv_heads=8, head_dim=128,
    vocabulary=128_256, context=131_072,
)  # fmt: skip


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "kto"])
def test_a_base_that_fits_only_in_4_bits_is_proposed_so_where_the_library_is(stage: str) -> None:
    with_library = GPU.model_copy(update={"bitsandbytes": True})
    proposed = {name: value for name, (value, _) in propose(Occasion(stage, LLAMA_8B, device=with_library)).items()}
    assert (proposed["lora.rank"], proposed["lora.load_in_4bit"]) == (32, True)
    assert "lora.load_in_4bit" not in propose(Occasion(stage, LLAMA_8B, device=GPU)), "it could not be loaded"
    roomy = with_library.model_copy(update={"memory": 80 * 10**9})
    assert "lora.load_in_4bit" not in propose(Occasion(stage, LLAMA_8B, device=roomy))
    assert "lora.load_in_4bit" not in propose(Occasion("ppo", LLAMA_8B, device=with_library))


def test_a_setting_of_adapters_that_somebody_chose_brings_a_rank() -> None:
    for name, value in (("use_dora", True), ("modules_to_save", "lm_head"), ("load_in_4bit", True)):
        assert values("sft", "135M", chosen={f"lora.{name}": value})["lora.rank"] == 32
    assert values("sft", "135M", chosen={"lora.use_dora": False})["lora.rank"] == 0
