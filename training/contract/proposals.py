"""Settings proposed for a model by its size, the stage, and whether an adapter or every weight learns.

The defaults of the stages suit models of a few million parameters, as the sample project trains them; they would ruin a
model of 0.1B to 8B. Every proposal names where its figure is from. docs/real-models.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log2
from typing import Any, Final, Literal, NamedTuple

from pydantic import ValidationError

from training.contract.devices import DeviceReport
from training.contract.memory import count_memory, device_of_process
from training.contract.model_facts import ModelFacts
from training.contract.settings import ADAPTER_SETTINGS
from training.contract.specs import SPECS

Setting = int | float | str | bool

MIN_REAL_PARAMETERS: Final = 50_000_000  # smaller models keep the defaults, which are for them
LARGE_PARAMETERS: Final = 1_000_000_000  # from here on the recipes for 7B and 8B hold, and LoRA is proposed
LORA_RANK: Final = 32
LORA_ALPHA: Final = 32.0
LORA_FACTOR: Final = 10  # LoRA's best learning rate over that of every weight
SHORT_LORA_FACTOR: Final = 15
SHORT_STEPS: Final = 100
FILL: Final = 0.8  # of a device's memory: other programs, and what a count leaves out, want the rest
MAX_PASS_TOKENS: Final = 16_384
MIN_PASS_TOKENS: Final = 512
RECIPE_ROWS: Final = 128
RECIPE_BATCH_TOKENS: Final = 65_536
MIN_STEPS: Final = 50  # a batch as large as the recipes' would leave fewer with the data that one team collects
MIN_BATCH_TOKENS: Final = 1024
CRITIC_RATE: Final = 9e-6

SCHULMAN: Final = "Schulman et al. 2025, “LoRA without regret”"
OUR_STEPS: Final = f"so that the data gives at least {MIN_STEPS} steps"


class Proposal(NamedTuple):
    value: Setting
    why: str  # one clause that names the source


class Rate(NamedTuple):
    """A peak learning rate for every weight, and its source; one for LoRA where a recipe gives its own."""

    full: float
    source: str
    lora: float = 0.0
    lora_source: str = ""


ZEPHYR_SFT_LORA: Final = (2e-4, "Zephyr 7B's LoRA recipe")
ZEPHYR_DPO_LORA: Final = (5e-6, "Zephyr 7B's LoRA recipe")

SMALL: Final[dict[str, Rate]] = {
    "pretrain": Rate(3e-5, "OpenRLHF's continued pretraining of 7B"),
    "sft": Rate(2e-5, "Zephyr 7B's recipe, and TRL's default", *ZEPHYR_SFT_LORA),
    "reward": Rate(9e-6, "OpenRLHF's reward model of 7B"),
    "dpo": Rate(1e-6, "SmolLM2's recipe for 135M and 360M, and TRL's default"),
    "kto": Rate(1e-6, "TRL's default"),
    "ppo": Rate(1e-6, "TRL's default for GRPO"),
    "grpo": Rate(1e-6, "TRL's default"),
}
LARGE: Final[dict[str, Rate]] = {
    "pretrain": Rate(3e-5, "OpenRLHF's continued pretraining of 7B"),
    "sft": Rate(5e-6, "Tülu 3 8B, and OpenRLHF's 7B", *ZEPHYR_SFT_LORA),
    "reward": Rate(9e-6, "OpenRLHF's reward model of 7B"),
    "dpo": Rate(5e-7, "Zephyr 7B, Tülu 3 8B and OpenRLHF's 8B", *ZEPHYR_DPO_LORA),
    "kto": Rate(5e-7, "OpenRLHF's 8B", *ZEPHYR_DPO_LORA),
    "ppo": Rate(5e-7, "OpenRLHF's 7B"),
    "grpo": Rate(5e-7, "OpenRLHF's 8B"),
}
BY_LOSS: Final[dict[str, Rate]] = {  # of dpo, at any size
    "simpo": Rate(8e-7, "SimPO's recipes for 7B to 9B, 3e-7 to 1e-6"),
    "orpo": Rate(5e-6, "ORPO's recipes for 2.7B to 7B, 5e-6 to 8e-6"),
}
ROLLOUTS: Final = ("ppo", "grpo")
QUANTIZED: Final = ("sft", "reward", "dpo", "kto")  # which generate nothing, or only a little of it


@dataclass(frozen=True)
class Occasion:
    """What a proposal goes by. `tokens` and `rows`: of the data that the run learns from; 0 is not known. `chosen`: the
    settings that a person named, by dotted name."""

    stage: str
    facts: ModelFacts  # of the model that it starts from
    device: DeviceReport | None = None
    tokens: float = 0
    rows: int = 0
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def choice(self, name: str, otherwise: Setting) -> Any:
        value = self.chosen.get(name)
        return otherwise if value is None else value

    @property
    def parameters(self) -> int:
        """Of a model whose size nobody knows yet, as of one on the hub, the careful figures for large ones hold."""
        return self.facts.parameters or LARGE_PARAMETERS

    @property
    def device_kind(self) -> Literal["cuda", "cpu"]:
        return self.device.kind if self.device else "cpu"


def has_proposals(stage: str, facts: ModelFacts) -> bool:
    """Whether the stage's defaults would not do for the model: those of the stages that take gradient steps are for
    models below MIN_REAL_PARAMETERS. A size that nobody knows counts as a large one."""
    return stage in SMALL and (not facts.parameters or facts.parameters >= MIN_REAL_PARAMETERS)


def propose(occasion: Occasion) -> dict[str, Proposal]:
    """Proposals by dotted name for what nobody chose; none where has_proposals says so."""
    if not has_proposals(occasion.stage, occasion.facts):
        return {}
    proposals = propose_adapter(occasion)
    rank = occasion.choice("lora.rank", proposals["lora.rank"].value) if proposals else 0
    if rank:
        proposals["lora.alpha"] = Proposal(LORA_ALPHA, SCHULMAN)
        proposals |= propose_quantized(occasion, rank)
    proposals |= propose_batch(occasion)
    proposals |= propose_checkpointing(occasion, proposals)
    proposals |= propose_pass(occasion, proposals)
    proposals |= propose_rates(occasion, proposals, uses_lora=bool(rank))
    return {name: proposal for name, proposal in proposals.items() if occasion.chosen.get(name) is None}


def propose_adapter(occasion: Occasion) -> dict[str, Proposal]:
    """lora.rank, 0 where every weight should learn."""
    if occasion.stage == "pretrain":
        return {}
    if occasion.facts.adapter_rank:
        return {"lora.rank": Proposal(occasion.facts.adapter_rank, "the model is an adapter, which goes on learning")}
    if any(occasion.chosen.get(f"lora.{name}") for name in ADAPTER_SETTINGS):
        return {"lora.rank": Proposal(LORA_RANK, "a setting of adapters is chosen")}
    if occasion.stage in ROLLOUTS:
        why = f"in RL a small adapter learns as much as every weight ({SCHULMAN}), and the reference needs no copy"
        return {"lora.rank": Proposal(LORA_RANK, why)}
    if occasion.parameters >= LARGE_PARAMETERS:
        why = f"LoRA on all layers learns small data sets as well as every weight does ({SCHULMAN})"
        return {"lora.rank": Proposal(LORA_RANK, why)}
    if not fits(occasion, {"lora.rank": 0, "micro_tokens": MIN_PASS_TOKENS, "activation_checkpointing": True}):
        return {"lora.rank": Proposal(LORA_RANK, "to train every weight needs more memory than the device has")}
    return {"lora.rank": Proposal(0, "at this size every weight fits, and learns more than an adapter")}


def propose_quantized(occasion: Occasion, rank: int) -> dict[str, Proposal]:
    """lora.load_in_4bit where the base fits in no other way, and the machine has the library."""
    device = occasion.device
    if occasion.stage not in QUANTIZED or device is None or not device.bitsandbytes:
        return {}
    if fits(occasion, {"lora.rank": rank, "micro_tokens": MIN_PASS_TOKENS}):
        return {}
    return {
        "lora.load_in_4bit": Proposal(True, "the base takes more memory than the device has, unless it is in 4 bits")
    }


def fits(occasion: Occasion, settings: Mapping[str, Setting]) -> bool:
    """Whether a run with these settings leaves the device some room, by count; true if nobody knows."""
    device, facts = occasion.device, occasion.facts
    if device is None or not device.memory or not facts.parameters or not facts.layers:
        return True
    try:
        whole = SPECS[occasion.stage].settings.model_validate(nested({**settings, **occasion.chosen}))
    except ValidationError:
        return True  # what a person chose does not go together, which the launch refuses
    settings = whole.model_dump()
    needed = sum(count_memory(occasion.stage, settings, facts, device).values())
    return needed <= FILL * device_of_process(settings, device).memory


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name as config.json nests them."""
    whole: dict[str, Any] = {}
    for name, value in settings.items():
        *path, leaf = name.split(".")
        section = whole
        for key in path:
            section = section.setdefault(key, {})
        section[leaf] = value
    return whole


def propose_checkpointing(occasion: Occasion, proposals: Mapping[str, Proposal]) -> dict[str, Proposal]:
    """activation_checkpointing where the smallest pass fits with it and not without."""
    settings = {name: proposal.value for name, proposal in proposals.items()} | {
        "micro_tokens": smallest_pass(occasion)
    }
    if fits(occasion, settings) or not fits(occasion, settings | {"activation_checkpointing": True}):
        return {}
    return {"activation_checkpointing": Proposal(True, "without it, not even a small pass fits, by count")}


def smallest_pass(occasion: Occasion) -> int:
    return max(MIN_PASS_TOKENS, int(occasion.choice("max_tokens", MIN_PASS_TOKENS)))


def propose_pass(occasion: Occasion, proposals: Mapping[str, Proposal]) -> dict[str, Proposal]:
    """micro_tokens: the largest pass that fits, if that is another one than the stage's own."""
    usual = int(SPECS[occasion.stage].settings.model_fields["micro_tokens"].default)
    settings = {name: proposal.value for name, proposal in proposals.items()}
    tokens = usual if occasion.device_kind == "cpu" else MAX_PASS_TOKENS
    while tokens > smallest_pass(occasion) and not fits(occasion, {**settings, "micro_tokens": tokens}):
        tokens //= 2
    if tokens == usual or occasion.device is None or not occasion.facts.layers:
        return {}
    memory = f"{occasion.device.memory / 1e9:.0f} GB"
    return {"micro_tokens": Proposal(tokens, f"the largest pass that leaves a fifth of {memory} free, by count")}


def propose_batch(occasion: Occasion) -> dict[str, Proposal]:
    if occasion.stage in ROLLOUTS:
        return propose_rollout(occasion)
    epochs: dict[str, Proposal] = {}
    if occasion.stage in ("dpo", "kto") and occasion.parameters < LARGE_PARAMETERS:
        epochs = {"epochs": Proposal(2.0, "SmolLM2's DPO recipe for 135M and 360M")}
    passes = float(occasion.choice("epochs", epochs["epochs"].value if epochs else usual_epochs(occasion.stage)))
    return epochs | {"batch_tokens": batch_proposal(occasion, passes)}


def usual_epochs(stage: str) -> float:
    return 3.0 if stage == "sft" else 1.0


def batch_proposal(occasion: Occasion, passes: float) -> Proposal:
    """As many tokens as the recipes' 128 rows have, or fewer if the data would give too few steps."""
    if not occasion.tokens or not occasion.rows:
        return Proposal(RECIPE_BATCH_TOKENS, f"about {RECIPE_ROWS} rows, as Zephyr, Tülu 3 and OpenRLHF take")
    recipe = RECIPE_ROWS * occasion.tokens / occasion.rows
    by_steps = occasion.tokens * passes / MIN_STEPS
    value = power_of_two(max(MIN_BATCH_TOKENS, min(recipe, by_steps)))
    why = f"about {RECIPE_ROWS} rows, as Zephyr, Tülu 3 and OpenRLHF take"
    return Proposal(value, why if recipe <= by_steps else f"{OUR_STEPS}; the recipes take {RECIPE_ROWS} rows")


def propose_rollout(occasion: Occasion) -> dict[str, Proposal]:
    """A CPU keeps the stage's own small rollouts, for every reply counts in seconds there."""
    if occasion.device_kind == "cpu":
        return {}
    replies = int(occasion.choice("samples_per_prompt", 8 if occasion.stage == "grpo" else 1))
    prompts = max(1, RECIPE_ROWS // max(1, replies))
    return {"prompts_per_step": Proposal(prompts, f"{RECIPE_ROWS} replies a step, OpenRLHF's train batch")}


def propose_rates(occasion: Occasion, proposals: Mapping[str, Proposal], *, uses_lora: bool) -> dict[str, Proposal]:
    rate = (LARGE if occasion.parameters >= LARGE_PARAMETERS else SMALL)[occasion.stage]
    if occasion.stage == "dpo":
        rate = BY_LOSS.get(str(occasion.choice("loss", "")), rate)
    short = is_short(occasion, proposals)
    if not uses_lora:
        proposal = Proposal(rate.full, rate.source)
    elif rate.lora and not short:
        proposal = Proposal(rate.lora, rate.lora_source)
    else:
        factor = SHORT_LORA_FACTOR if short else LORA_FACTOR
        base = rate.lora / LORA_FACTOR if rate.lora else rate.full
        length = f" in a run of under {SHORT_STEPS} steps" if short else ""
        source = rate.lora_source if rate.lora else rate.source
        proposal = Proposal(
            rounded(factor * base), f"LoRA takes {factor} times the rate{length} ({SCHULMAN}) of {source}"
        )
    rates = {"learning_rate": proposal}
    if occasion.stage == "ppo":
        critic = CRITIC_RATE * (LORA_FACTOR if uses_lora else 1)
        rates["value_learning_rate"] = Proposal(
            rounded(critic),
            "OpenRLHF's critic" + (f", {LORA_FACTOR} times for a head beside LoRA" if uses_lora else ""),
        )
    return rates


def is_short(occasion: Occasion, proposals: Mapping[str, Proposal]) -> bool:
    """Whether the data is known to give fewer than SHORT_STEPS steps."""
    if not occasion.tokens or occasion.stage in ROLLOUTS:
        return False

    def value_of(name: str, otherwise: float) -> float:
        return float(occasion.choice(name, proposals[name].value if name in proposals else otherwise))

    passes = value_of("epochs", usual_epochs(occasion.stage))
    steps = occasion.tokens * passes / value_of("batch_tokens", RECIPE_BATCH_TOKENS)
    limit = float(occasion.choice("max_steps", 0))
    return (min(steps, limit) if limit else steps) < SHORT_STEPS


def power_of_two(value: float) -> int:
    """The nearest one, on a scale of doublings."""
    return int(2 ** round(log2(max(1.0, value))))


def rounded(rate: float) -> float:
    """To two digits, without the tail that multiplication leaves."""
    return float(f"{rate:.1e}")
