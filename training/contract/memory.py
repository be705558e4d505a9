"""The memory that a run needs, counted from the numbers of its models and its settings, before anything is loaded.

Bytes by part, for one device. P is the number of parameters, c the bytes of a number in the precision that is computed
in: 2 for bf16, 4 for fp32. What learns has weights, gradients and AdamW's two moments in fp32, 16 bytes in all; with
moments in 8 bits, 10. Several processes have a device each; where the model is sharded among them (FSDP), each holds
its share of what learns and of what is frozen beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Any, Final

from training.contract.devices import DeviceReport
from training.contract.model_facts import ModelFacts
from training.contract.settings import names_in
from training.contract.specs import SPECS

GB: Final = 1e9
MIN_BF16_WIDTH: Final = 192  # hidden size; there bf16 is 2.3 times as fast as fp32 on a CPU with AMX
RUNTIME: Final = {"cuda": 1.0e9, "cpu": 0.6e9}  # Python, torch and its kernels or the CUDA context
KV_SHARE: Final = 0.5  # of the memory that is free, for keys and values of replies
MIN_CACHE: Final = 2e8  # the least with which replies are worth counting
MAX_SLOTS: Final = 128  # replies that PPO and GRPO sample at the same time
MAX_LOGITS: Final = 1 << 23  # logits held at once on a CPU: 16 MiB in bfloat16
KEPT_LOGITS: Final = 1 << 25  # for the backward pass, on a CPU
MAX_LOGITS_ON_GPU: Final = 1 << 28  # more make no product faster
LOGIT_SHARE: Final = 1 / 16  # of a GPU's free memory, for logits that are held at once,
LOGIT_BYTES: Final = 12  # each with its log-probability and its gradient, in float32
# Positions that are worth a product of their own: each adds a whole (V, H) gradient in float32.
MIN_POSITIONS: Final = 256
TRL_LOGITS: Final = 4  # copies of a pass's logits: the policy's, their gradient, a softmax, the reference's

MOMENTS: Final = {"adamw": 8.0, "adamw_8bit": 2 + 2 * 4 / 256}  # bytes a parameter; in 8 bits with a scale per 256
BITS_4: Final = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes of a weight in NF4: a scale per 64, itself in 8 bits
DORA_COPIES: Final = 2  # of what each linear layer gives: the base's part and the adapter's

MEMORY_PARTS: Final[dict[str, str]] = {
    "weights": "Weights",
    "adapter": "Adapter, its gradients and moments",
    "gradients": "Gradients",
    "optimizer": "Optimizer",
    "casts": "Weights in bf16, to compute with",
    "gathered": "Weights gathered from the other devices",
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
    lora = settings.get("lora", {}) if spec.learns else {}
    adapter, quantized = bool(lora.get("rank")), bool(lora.get("load_in_4bit"))
    full = spec.learns and not adapter
    moments = MOMENTS[settings["optimizer"]] if spec.learns else 0
    shards = shards_of(settings)
    weights = quantized_bytes(model, width) if quantized else (4 if full else width) * parameters / shards
    parts: dict[str, float] = {"runtime": RUNTIME[device.kind], "weights": weights}
    if full:
        parts |= {"gradients": 4 * parameters / shards, "optimizer": moments * parameters / shards}
        parts["casts"] = width * parameters if width == 2 and shards == 1 else 0
    elif adapter:
        parts["adapter"] = (8 + moments) * adapter_parameters(model, lora) / shards
    if shards > 1:
        parts["gathered"] = gathered_bytes(model, width, shards, full=full)
    if has_reference(stage, settings) and full:
        parts["reference"] = frozen_bytes(model, width, shards)
    if spec.generates:
        parts |= generation_parts(stage, settings, model, reward, width)
    if settings.get("critic") == "own":
        parts["critic"] = critic_bytes(settings, reward or model, width, device.kind)
    if spec.learns:
        tokens = int(settings["micro_tokens"])
        recomputed = bool(settings.get("activation_checkpointing"))
        parts["activations"] = tokens * activation_bytes(model, width, device.kind, full=full, recomputed=recomputed)
        if lora.get("use_dora"):
            parts["activations"] += dora_bytes(model, tokens, width)
        if quantized:  # the layer under way is there as it was
            parts["activations"] += width * model.hidden * model.intermediate
        free = device.memory - int(sum(parts.values())) if device.memory else None
        parts["logits"] = logit_bytes(stage, tokens, model, width, device.kind, full=full, free=free)
    if device.memory and "cache" in parts:
        parts["cache"] = bounded_cache(parts, device.memory)
    return {name: int(parts[name]) for name in MEMORY_PARTS if parts.get(name, 0) >= 1}


def bounded_cache(parts: Mapping[str, float], memory: int) -> float:
    """The engine takes no more than a share of the memory that is free between updates; other replies wait."""
    standing = sum(size for name, size in parts.items() if name not in ("cache", "activations", "logits"))
    return min(parts["cache"], max(MIN_CACHE, KV_SHARE * (memory - standing)))


def shards_of(settings: Mapping[str, Any]) -> int:
    """Among how many processes the model is sharded."""
    return int(settings.get("processes", 1)) if settings.get("shard") else 1


def device_of_process(settings: Mapping[str, Any], device: DeviceReport) -> DeviceReport:
    """What one of the run's processes has: a GPU of its own, or its share of the machine's memory."""
    processes = int(settings.get("processes", 1))
    if device.kind == "cuda" or processes == 1:
        return device
    return device.model_copy(update={"memory": device.memory // processes, "free": device.free // processes})


def gathered_bytes(model: ModelFacts, width: int, shards: int, *, full: bool) -> float:
    """The most that a process holds of the others' shards at a time. In a pass, two layers and, in fp32, the embeddings
    and the output matrix. When it samples and evaluates, all layers, and no gradients. When it loads and saves, all
    weights as they are kept."""
    if not full:
        return width * model.parameters
    ends, layers = parameters_by_place(model)
    own = 4 * model.parameters / shards  # of the weights, and as much of the gradients
    in_pass = width * layers * layers_in_pass(model) + 4 * ends
    return max(in_pass, width * layers + 4 * ends - own, 4 * model.parameters - 2 * own)


def frozen_bytes(model: ModelFacts, width: int, shards: int) -> float:
    """Of a model that does not learn. If it is sharded, with what is gathered in a pass."""
    if shards == 1:
        return width * model.parameters
    ends, layers = parameters_by_place(model)
    return width * (model.parameters / shards + layers * layers_in_pass(model) + ends)


def parameters_by_place(model: ModelFacts) -> tuple[int, int]:
    """Of embeddings and output matrix, and of all layers."""
    ends = (1 if model.tied else 2) * model.vocabulary * model.hidden
    return ends, max(0, model.parameters - ends)


def layers_in_pass(model: ModelFacts) -> float:
    """The share of the layers that is gathered at a time: the one that computes, and the next."""
    return min(1, 2 / max(1, model.layers))


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
    learns = 8 + MOMENTS[settings["optimizer"]]
    adapter = adapter_parameters(model, {"rank": rank})  # of LoRA alone, whatever the policy's is
    size = width * model.parameters + learns * adapter if rank else (learns + casts) * model.parameters
    return size + int(settings["micro_tokens"]) * activation_bytes(model, width, device, full=not rank)


def linear_shapes(model: ModelFacts) -> dict[str, tuple[int, int]]:
    """(in, out) of a layer's matrices, by the names of the Llama family."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    return {
        "q_proj": (model.hidden, queries),
        "k_proj": (model.hidden, keys),
        "v_proj": (model.hidden, keys),
        "o_proj": (queries, model.hidden),
        "gate_proj": (model.hidden, model.intermediate),
        "up_proj": (model.hidden, model.intermediate),
        "down_proj": (model.intermediate, model.hidden),
    }


def adapter_parameters(model: ModelFacts, lora: Mapping[str, Any]) -> int:
    """Of LoRA on every linear layer but the output's: rank times the two sides of each matrix; of DoRA, a length for
    each output more; and whole modules beside it."""
    rank, shapes = int(lora["rank"]), linear_shapes(model)
    whole = names_in(lora.get("modules_to_save", ""))
    adapted = [shape for name, shape in shapes.items() if name not in whole]
    lengths = sum(out for _, out in adapted) if lora.get("use_dora") else 0
    layer = rank * sum(map(sum, adapted)) + lengths + sum(prod(shapes[name]) for name in whole if name in shapes)
    ends = len({"embed_tokens", "lm_head"}.intersection(whole))
    return model.layers * layer + (min(ends, 1) if model.tied else ends) * model.vocabulary * model.hidden


def quantized_bytes(model: ModelFacts, width: int) -> float:
    """Of a model whose layers' matrices are in 4 bits, embeddings and norms in `width` bytes."""
    matrices = model.layers * sum(map(prod, linear_shapes(model).values()))
    return BITS_4 * matrices + width * max(0, model.parameters - matrices)


def dora_bytes(model: ModelFacts, tokens: int, width: int) -> float:
    """What DoRA keeps beside LoRA: two copies of what the matrices give, and for a moment three of the largest matrix,
    whose lengths it takes."""
    outputs = model.layers * sum(out for _, out in linear_shapes(model).values())
    return DORA_COPIES * width * tokens * outputs + 3 * 4 * model.hidden * model.intermediate


def generation_parts(
    stage: str, settings: Mapping[str, Any], model: ModelFacts, reward: ModelFacts | None, width: int
) -> dict[str, float]:
    sampling = settings["sampling"]
    replies = int(settings.get("prompts_per_step", 0)) * int(settings.get("samples_per_prompt", 1))
    replies = ceil(replies / int(settings.get("processes", 1)))  # of one process
    slots = min(replies, MAX_SLOTS) if SPECS[stage].learns else int(settings["slots"])
    length = int(settings.get("max_prompt_tokens", settings.get("max_tokens", 0))) + int(sampling["max_new_tokens"])
    length = min(length, model.context or length)
    parts: dict[str, float] = {
        "cache": slots * length * 2 * model.layers * model.kv_heads * model.head_dim * width,
    }
    if SPECS[stage].learns:  # its weights change, so the engine joins them anew for every rollout
        if not settings["lora"].get("load_in_4bit"):  # which generates by its own modules
            parts["engine"] = width * model.parameters
        if reward is None and not settings.get("rewards"):  # with rewards of other kinds there need be no reward model
            reward = model
        parts["reward"] = frozen_bytes(reward, width, shards_of(settings)) if reward else 0
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


def logit_bytes(
    stage: str, tokens: int, model: ModelFacts, width: int, device: str, *, full: bool, free: int | None
) -> float:
    """TRL holds the logits of a whole pass, our own losses those of some positions at a time."""
    if stage == "reward":
        return 0
    if stage in ("dpo", "kto", "grpo"):
        return TRL_LOGITS * width * tokens * model.vocabulary
    vocabulary = max(1, model.vocabulary)
    positions = min(tokens, positions_at_once(vocabulary, device, free))
    held = (LOGIT_BYTES if device == "cuda" else width) * positions * vocabulary
    if not full:
        return held
    kept = min(tokens, positions_kept(vocabulary, device, free))
    more = kept if kept < tokens else kept - positions  # the last piece is one of those that stay
    return held + (4 if device == "cuda" else width) * more * vocabulary + 4 * vocabulary * model.hidden


def positions_at_once(vocabulary: int, device: str, free: int | None = None) -> int:
    """How many positions' logits our own losses hold at once. `free`: bytes of the GPU that nothing holds."""
    if device == "cuda":
        most = MAX_LOGITS_ON_GPU
        if free is not None:
            most = min(most, max(0, int(LOGIT_SHARE * free)) // LOGIT_BYTES)
        return max(MIN_POSITIONS, most // vocabulary)
    return max(1, MAX_LOGITS // vocabulary, min(MIN_POSITIONS, 8 * MAX_LOGITS // vocabulary))


def positions_kept(vocabulary: int, device: str, free: int | None = None) -> int:
    """How many positions' logits stay from the forward pass to the backward pass where the output embeddings learn. As
    many as are held at once cost nothing in a pass that has no more: the backward pass begins with them, when all
    activations are still there."""
    return max(positions_at_once(vocabulary, device, free), 0 if device == "cuda" else KEPT_LOGITS // vocabulary)
