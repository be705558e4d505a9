from __future__ import annotations

from typing import Any

import pytest

from training.contract import SPECS, DeviceReport, ModelFacts, count_memory, device_of_process
from training.contract.memory import positions_at_once

GPU = DeviceReport(kind="cuda", name="a GPU", memory=24 * 10**9, free=24 * 10**9, bf16=True)
ROOMY = GPU.model_copy(update={"memory": 10**13})
OLD_GPU = GPU.model_copy(update={"bf16": False})
CPU = DeviceReport(kind="cpu", name="a laptop", memory=16 * 10**9, free=16 * 10**9)
LLAMA_8B = ModelFacts(
    parameters=8_000_000_000, layers=32, hidden=4096, intermediate=14_336, heads=32, kv_heads=8, head_dim=128,
    vocabulary=128_256, context=131_072,
)  # fmt: skip
SMALL = ModelFacts(
    parameters=1_000_000, layers=2, hidden=64, intermediate=256, heads=4, kv_heads=2, head_dim=16, vocabulary=1000,
    context=512,
)  # fmt: skip
LORA = {"lora": {"rank": 16}}


def counted(stage: str, model: ModelFacts, device: DeviceReport, **settings: Any) -> dict[str, int]:
    whole = SPECS[stage].settings.model_validate(settings).model_dump()
    return count_memory(stage, whole, model, device, reward=model)


def test_every_weight_takes_16_bytes_to_learn_and_2_to_compute_in_bf16() -> None:
    parts = counted("sft", LLAMA_8B, GPU)
    learning = ("weights", "gradients", "optimizer", "casts")
    assert sum(parts[name] for name in learning) == 18 * LLAMA_8B.parameters
    assert "casts" not in counted("sft", LLAMA_8B, OLD_GPU)


def test_an_adapter_takes_16_bytes_for_each_of_its_own_parameters_only() -> None:
    parts = counted("sft", LLAMA_8B, GPU, **LORA)
    assert parts["weights"] == 2 * LLAMA_8B.parameters
    # of rank 16: q and o 4096 + 4096, k and v 4096 + 1024, three of 4096 + 14336, in 32 layers
    assert parts["adapter"] == 16 * 16 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18_432)
    assert "gradients" not in parts


def test_an_adapter_s_reference_is_its_base_and_takes_nothing() -> None:
    assert counted("dpo", LLAMA_8B, GPU)["reference"] == 2 * LLAMA_8B.parameters
    assert "reference" not in counted("dpo", LLAMA_8B, GPU, **LORA)
    assert "reference" not in counted("grpo", LLAMA_8B, GPU, beta=0)
    assert "reference" in counted("grpo", LLAMA_8B, GPU, beta=0.04)


def test_simpo_and_orpo_have_no_reference() -> None:
    for loss in ("simpo", "orpo"):
        assert "reference" not in counted("dpo", LLAMA_8B, GPU, loss=loss)


def test_a_critic_of_its_own_is_a_second_model_that_learns() -> None:
    settings = {"micro_tokens": 1024}
    assert "critic" not in counted("ppo", LLAMA_8B, GPU, **settings)
    parts = counted("ppo", LLAMA_8B, GPU, critic="own", **settings)
    assert parts["critic"] == 18 * LLAMA_8B.parameters + parts["activations"]
    adapter = counted("ppo", LLAMA_8B, GPU, critic="own", **settings, **LORA)
    assert adapter["critic"] == 2 * LLAMA_8B.parameters + adapter["adapter"] + adapter["activations"]


def test_ppo_holds_a_reward_model_a_copy_that_generates_and_its_keys_and_values() -> None:
    parts = counted("ppo", LLAMA_8B, ROOMY, prompts_per_step=32, max_prompt_tokens=200, sampling={"max_new_tokens": 56})
    assert parts["reward"] == parts["engine"] == 2 * LLAMA_8B.parameters
    assert (
        parts["cache"] == 32 * 256 * 2 * 32 * 8 * 128 * 2
    )  # replies, tokens, keys and values, layers, heads, width, bf16
    settings = {"max_prompt_tokens": 200, "sampling": {"max_new_tokens": 56}}
    more = counted("ppo", LLAMA_8B, ROOMY, prompts_per_step=1000, **settings)
    assert more["cache"] == 4 * parts["cache"], "at most 128 are sampled at the same time"


def test_keys_and_values_take_half_of_what_is_free_and_other_replies_wait() -> None:
    device = GPU.model_copy(update={"memory": 60 * 10**9})
    settings = {"prompts_per_step": 128, "max_prompt_tokens": 4096, "sampling": {"max_new_tokens": 4096}, **LORA}
    parts = counted("ppo", LLAMA_8B, device, **settings)
    standing = sum(parts[name] for name in ("weights", "adapter", "reward", "engine", "runtime"))
    assert parts["cache"] == pytest.approx((device.memory - standing) / 2, abs=10)
    assert counted("ppo", LLAMA_8B, ROOMY, **settings)["cache"] > 2 * parts["cache"]
    assert counted("ppo", LLAMA_8B, GPU, **settings)["cache"] == 2e8, "nothing is free: the least"


def test_rewards_without_a_reward_model_take_nothing() -> None:
    settings = SPECS["ppo"].settings.model_validate({"lora": {"rank": 8}}).model_dump()
    assert count_memory("ppo", settings, LLAMA_8B, GPU)["reward"] == 2 * LLAMA_8B.parameters, "as large as the policy"
    assert "reward" not in count_memory("ppo", settings | {"rewards": [{"name": "exact"}]}, LLAMA_8B, GPU)


def test_moments_in_8_bits_take_a_quarter() -> None:
    parts = counted("sft", LLAMA_8B, GPU, optimizer="adamw_8bit")
    assert parts["optimizer"] == (2 + 2 * 4 / 256) * LLAMA_8B.parameters
    adapter = counted("sft", LLAMA_8B, GPU, optimizer="adamw_8bit", **LORA)["adapter"]
    assert adapter == pytest.approx(counted("sft", LLAMA_8B, GPU, **LORA)["adapter"] * 10.03 / 16, rel=1e-3)


def test_a_base_in_4_bits_takes_half_a_byte_for_a_number_of_its_matrices() -> None:
    parts = counted("sft", LLAMA_8B, GPU, lora={"rank": 16, "load_in_4bit": True})
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336)
    others = LLAMA_8B.parameters - matrices  # embeddings and head
    assert parts["weights"] == pytest.approx(0.516 * matrices + 2 * others, rel=1e-3)
    assert parts["weights"] < 6e9
    rollouts = {"lora": {"rank": 16, "load_in_4bit": True}}
    assert "engine" not in counted("ppo", LLAMA_8B, GPU, **rollouts), "it generates by its own modules"


def test_dora_takes_a_length_for_each_output_and_more_activations() -> None:
    plain, dora = (
        counted("sft", LLAMA_8B, GPU, **LORA),
        counted("sft", LLAMA_8B, GPU, lora={"rank": 16, "use_dora": True}),
    )
    outputs = 32 * (2 * 4096 + 2 * 1024 + 2 * 14_336 + 4096)
    assert dora["adapter"] - plain["adapter"] == 16 * outputs
    assert dora["activations"] - plain["activations"] > 2 * 2 * 4096 * outputs


@pytest.mark.parametrize(("tied", "matrices"), [(True, 1), (False, 2)])
def test_modules_that_learn_whole_take_16_bytes_for_each_of_their_numbers(tied: bool, matrices: int) -> None:
    model = LLAMA_8B.model_copy(update={"tied": tied})
    whole = {"lora": {"rank": 16, "modules_to_save": "embed_tokens, lm_head"}}
    more = counted("sft", model, GPU, **whole)["adapter"] - counted("sft", model, GPU, **LORA)["adapter"]
    assert more == 16 * matrices * 128_256 * 4096


def test_sharded_over_8_devices_each_holds_an_eighth_of_what_learns() -> None:
    p = LLAMA_8B.parameters
    parts = counted("sft", LLAMA_8B, GPU, processes=8, shard=True)
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (4 * p // 8, 4 * p // 8, p)
    assert "casts" not in parts, "layers travel in bf16"
    assert parts["weights"] + parts["gradients"] + parts["gathered"] == 4 * p, "it is whole while it is saved"
    assert counted("sft", LLAMA_8B, GPU, processes=8) == counted("sft", LLAMA_8B, GPU), "each holds it all"


def test_sharded_over_2_devices_two_layers_and_the_embeddings_are_gathered_in_a_pass() -> None:
    parts = counted("sft", LLAMA_8B, GPU, processes=2, shard=True)
    ends = 2 * LLAMA_8B.vocabulary * LLAMA_8B.hidden
    assert parts["gathered"] == 2 * (LLAMA_8B.parameters - ends) * 2 // 32 + 4 * ends


def test_a_sharded_reference_and_reward_model_are_divided() -> None:
    parts = counted("ppo", LLAMA_8B, GPU, processes=8, shard=True)
    gathered = 2 * (LLAMA_8B.parameters * 2 // 32 + 2 * 128_256 * 4096)  # two layers, embeddings, output matrix
    assert parts["reference"] == parts["reward"]
    assert parts["reference"] == pytest.approx(2 * LLAMA_8B.parameters // 8 + gathered, rel=0.05)


def test_a_sharded_adapter_s_base_is_gathered_to_sample_and_to_save() -> None:
    parts = counted("sft", LLAMA_8B, GPU, processes=4, shard=True, **LORA)
    assert (parts["weights"], parts["gathered"]) == (2 * LLAMA_8B.parameters // 4, 2 * LLAMA_8B.parameters)


def test_processes_share_a_cpu_s_memory_and_a_rollout_s_replies() -> None:
    settings = {"processes": 4}
    assert device_of_process(settings, CPU).memory == CPU.memory // 4
    assert device_of_process(settings, GPU) == GPU
    alone, together = (counted("ppo", LLAMA_8B, ROOMY, prompts_per_step=32, processes=n) for n in (1, 4))
    assert together["cache"] == alone["cache"] // 4


def test_activations_grow_with_the_tokens_of_a_pass() -> None:
    one, two = (counted("sft", LLAMA_8B, GPU, micro_tokens=tokens) for tokens in (1024, 2048))
    assert two["activations"] == 2 * one["activations"]
    assert two["weights"] == one["weights"]


def test_dpo_holds_the_logits_of_a_whole_pass_and_sft_those_of_a_piece() -> None:
    assert counted("dpo", LLAMA_8B, GPU, micro_tokens=4096)["logits"] == 4 * 2 * 4096 * 128_256
    adapter = {**LORA, "micro_tokens": 4096}
    assert counted("sft", LLAMA_8B, GPU, **adapter)["logits"] < counted("dpo", LLAMA_8B, GPU, **adapter)["logits"] / 5
    assert "logits" not in counted("reward", LLAMA_8B, GPU)


@pytest.mark.parametrize(
    ("device", "settings", "width"),
    [(GPU, {}, 2), (OLD_GPU, {}, 4), (CPU, {}, 4), (CPU, {"precision": "bf16"}, 2), (GPU, {"precision": "fp32"}, 4)],
)
def test_frozen_weights_are_as_wide_as_what_is_computed_in(
    device: DeviceReport, settings: dict[str, Any], width: int
) -> None:
    assert counted("sft", LLAMA_8B, device, **settings, **LORA)["weights"] == width * LLAMA_8B.parameters


def test_narrow_models_learn_in_fp32_on_a_cpu_with_bf16() -> None:
    cpu = CPU.model_copy(update={"bf16": True})
    assert counted("sft", SMALL, cpu, **LORA)["weights"] == 4 * SMALL.parameters
    assert counted("sft", LLAMA_8B, cpu, **LORA)["weights"] == 2 * LLAMA_8B.parameters


@pytest.mark.parametrize("stage", ["evaluate", "sample"])
def test_stages_that_only_generate_count_weights_and_cache(stage: str) -> None:
    parts = counted(stage, LLAMA_8B, GPU)
    assert set(parts) == {"weights", "reward", "cache", "runtime"}


@pytest.mark.parametrize("stage", [name for name, spec in SPECS.items() if spec.learns])
def test_every_stage_that_learns_is_counted(stage: str) -> None:
    assert sum(counted(stage, SMALL, CPU).values()) > 16 * SMALL.parameters


@pytest.mark.parametrize(("vocabulary", "device", "positions"), [
    (200, "cpu", (1 << 23) // 200), (32_000, "cpu", 262), (151_936, "cpu", 256), (1 << 20, "cpu", 64),
    (32_000, "cuda", 8388), (151_936, "cuda", 1766), (1 << 22, "cuda", 256),
])  # fmt: skip
def test_pieces_of_the_output_layer_suit_vocabulary_and_device(vocabulary: int, device: str, positions: int) -> None:
    assert positions_at_once(vocabulary, device) == positions


def test_pieces_of_the_output_layer_take_a_sixteenth_of_what_a_gpu_has_free() -> None:
    free = 8 * 10**9
    positions = positions_at_once(151_936, "cuda", free)
    assert 0.9 * free / 16 < positions * 151_936 * 12 <= free / 16
    assert positions_at_once(151_936, "cuda", 10**12) == positions_at_once(151_936, "cuda")
    assert positions_at_once(151_936, "cuda", -1) == 256


def test_logits_are_counted_for_as_many_positions_as_are_held_at_once() -> None:
    vocabulary = 1 << 20
    model = LLAMA_8B.model_copy(update={"vocabulary": vocabulary})
    parts = counted("sft", model, CPU, micro_tokens=4096, precision="fp32", **LORA)
    assert parts["logits"] == 4 * positions_at_once(vocabulary, "cpu") * vocabulary


@pytest.mark.parametrize(("tokens", "positions"), [(2048, 2048), (8192, 4096 + 1024)])
def test_logits_that_stay_for_the_backward_pass_are_counted(tokens: int, positions: int) -> None:
    model = LLAMA_8B.model_copy(update={"vocabulary": 8192})
    parts = counted("sft", model, CPU, micro_tokens=tokens, precision="fp32")
    assert parts["logits"] == 4 * 8192 * (positions + model.hidden)
