"""The memory that a run needs, counted from the numbers of its models and its settings, before anything is loaded.

Bytes by part, for one device. P is the number of parameters, c the bytes of a number in the precision that is computed
in: 2 for bf16, 4 for fp32. What learns has weights, gradients and AdamW's two moments in fp32, 16 bytes in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from training.contract.devices import DeviceReport
from training.contract.model_facts import ModelFacts
from training.contract.specs import SPECS

GB: Final = 1e9
MIN_BF16_WIDTH: Final = 192  # hidden size; there bf16 is 2.3 times as fast as fp32 on a CPU with AMX
RUNTIME: Final = {"cuda": 1.0e9, "cpu": 0.6e9}  # Python, torch and its kernels or the CUDA context
MAX_SLOTS: Final = 128  # replies that PPO and GRPO sample at the same time
HEAD_POSITIONS: Final = 256  # positions whose logits are held at once, at least
HEAD_NUMBERS: Final = {"cuda": 1 << 28, "cpu": 1 << 23}  # logits held at once; training/kernels/logprobs.py
TRL_LOGITS: Final = 4  # copies of a pass's logits: the policy's, their gradient, a softmax, the reference's

MEMORY_PARTS: Final[dict[str, str]] = {
    "weights": "Weights",
    "adapter": "Adapter, its gradients and moments",
    "gradients": "Gradients",
    "optimizer": "Optimizer",
    "casts": "Weights in bf16, to compute with",
    "reference": "Reference model",
    "reward": "Reward model",
    "critic": "Critic, its gradients, moments and activations",
    "engine": "Copy that generates replies",
    "cache": "Keys and values of replies under way",
    "activations": "Activations",
    "logits": "Logits",
    "runtime": "Python and libraries",
}


def count_memory(
    stage: str,
    settings: Mapping[str, Any],
    model: ModelFacts,
    device: DeviceReport,
    *,
    reward: ModelFacts | None = None,
) -> dict[str, int]:
    """Bytes by part, the names those of MEMORY_PARTS, parts of nothing left out. `settings`: all of the stage's, nested.
    `reward`: of PPO's and GRPO's reward model, which is taken to be as large as the policy where that is not known."""
    parameters, spec = model.parameters, SPECS[stage]
    width = number_bytes(settings, model, device)
    rank = int(settings.get("lora", {}).get("rank", 0)) if spec.learns else 0
    full = spec.learns and not rank
    parts: dict[str, float] = {"runtime": RUNTIME[device.kind], "weights": (4 if full else width) * parameters}
    if full:
        parts |= {"gradients": 4 * parameters, "optimizer": 8 * parameters}
        parts["casts"] = width * parameters if width == 2 else 0
    elif rank:
        parts["adapter"] = 16 * adapter_parameters(model, rank)
    if has_reference(stage, settings) and full:
        parts["reference"] = width * parameters
    if spec.generates:
        parts |= generation_parts(stage, settings, model, reward, width)
    if settings.get("critic") == "own":
        parts["critic"] = critic_bytes(settings, reward or model, width, device.kind)
    if spec.learns:
        tokens = int(settings["micro_tokens"])
        recomputed = bool(settings.get("activation_checkpointing"))
        parts["activations"] = tokens * activation_bytes(model, width, device.kind, full=full, recomputed=recomputed)
        parts["logits"] = logit_bytes(stage, tokens, model, width, device.kind, full=full)
    return {name: int(parts[name]) for name in MEMORY_PARTS if parts.get(name, 0) >= 1}


def number_bytes(settings: Mapping[str, Any], model: ModelFacts, device: DeviceReport) -> int:
    """2 where the run computes in bf16, 4 where in fp32."""
    precision = settings.get("precision", "auto")
    if precision == "auto":
        wide = device.kind == "cuda" or not model.hidden or model.hidden >= MIN_BF16_WIDTH
        return 2 if device.bf16 and wide else 4
    return 2 if precision == "bf16" else 4


def has_reference(stage: str, settings: Mapping[str, Any]) -> bool:
    if stage == "dpo":
        return settings.get("loss") not in ("simpo", "orpo")
    return stage in ("ppo", "kto") or (stage == "grpo" and float(settings.get("beta", 0)) > 0)


def critic_bytes(settings: Mapping[str, Any], model: ModelFacts, width: int, device: str) -> float:
    """Of PPO's critic that is a model of its own, shaped as the reward model: it learns as the policy does, and its
    activations are there at the same time."""
    rank = int(settings["lora"]["rank"])
    casts = width if width == 2 else 0
    size = width * model.parameters + 16 * adapter_parameters(model, rank) if rank else (16 + casts) * model.parameters
    return size + int(settings["micro_tokens"]) * activation_bytes(model, width, device, full=not rank)


def adapter_parameters(model: ModelFacts, rank: int) -> int:
    """Of LoRA on every linear layer but the output's: rank times the two sides of each matrix."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    attention = 2 * (model.hidden + queries) + 2 * (model.hidden + keys)
    return rank * model.layers * (attention + 3 * (model.hidden + model.intermediate))


def generation_parts(
    stage: str, settings: Mapping[str, Any], model: ModelFacts, reward: ModelFacts | None, width: int
) -> dict[str, float]:
    sampling = settings["sampling"]
    replies = int(settings.get("prompts_per_step", 0)) * int(settings.get("samples_per_prompt", 1))
    slots = min(replies, MAX_SLOTS) if SPECS[stage].learns else int(settings["slots"])
    length = int(settings.get("max_prompt_tokens", settings.get("max_tokens", 0))) + int(sampling["max_new_tokens"])
    length = min(length, model.context or length)
    parts: dict[str, float] = {
        "cache": slots * length * 2 * model.layers * model.kv_heads * model.head_dim * width,
    }
    if SPECS[stage].learns:  # its weights change, so the engine joins them anew for every rollout
        parts["engine"] = width * model.parameters
        if reward is None and not settings.get("rewards"):  # with rewards of other kinds there need be no reward model
            reward = model
        parts["reward"] = width * reward.parameters if reward else 0
    elif reward:
        parts["reward"] = width * reward.parameters
    return parts


def activation_bytes(model: ModelFacts, width: int, device: str, *, full: bool, recomputed: bool = False) -> float:
    """What one token leaves for the backward pass. Of a layer on a CPU where every weight learns, as
    training/models/llama_training.py keeps it; else as transformers' modules do, whose norms work in fp32. `recomputed`:
    every layer keeps its input alone, and one at a time is there as a whole."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    if device == "cpu" and full:
        per_layer = 8 * model.hidden + width * (2 * queries + 2 * keys + 2 * model.intermediate)
    else:
        norms = 2 * (8 + width) * model.hidden + 2 * 4 * model.hidden
        per_layer = norms + width * (4 * queries + 6 * keys + 4 * model.intermediate)
    if recomputed:
        return float(model.layers * (4 if full else width) * model.hidden + per_layer)
    return float(model.layers * per_layer)


def logit_bytes(stage: str, tokens: int, model: ModelFacts, width: int, device: str, *, full: bool) -> float:
    """TRL holds the logits of a whole pass, our own losses those of some positions at a time."""
    if stage == "reward":
        return 0
    if stage in ("dpo", "kto", "grpo"):
        return TRL_LOGITS * width * tokens * model.vocabulary
    positions = min(tokens, max(HEAD_POSITIONS, HEAD_NUMBERS[device] // max(1, model.vocabulary)))
    gradient = 4 * model.vocabulary * model.hidden if full else 0
    return width * positions * model.vocabulary + gradient
