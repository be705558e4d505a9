"""Whether a run fits on the device that a training worker reported, in words and as the parts of a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from training.contract import GB, LORA_RANK, MEMORY_PARTS, DeviceReport, ModelFacts, count_memory, device_of_process
from webapp.registry.facts import facts_of
from webapp.registry.models import ModelVersion
from webapp.runs.machines import is_present, newest_machine

BAR_WIDTH: Final = 1000
COMFORTABLE: Final = 0.9  # of the memory; above, other programs and what the count leaves out may take the rest
MIN_MICRO_TOKENS: Final = 256
MIN_PROMPTS: Final = 4

Counter = Callable[[Mapping[str, Any]], int]  # bytes that a run with these settings needs


class Part(NamedTuple):
    """A stretch of the bar, in BAR_WIDTH units."""

    key: str
    label: str
    size: str
    start: float
    width: float


@dataclass(frozen=True)
class Fit:
    """`advice`: what to know or change, a sentence each. `memory`: 0 before any machine has reported."""

    needed: int
    memory: int
    parts: list[Part]
    verdict: Literal["good", "warn", "bad", ""]
    sentence: str
    advice: list[str]
    basis: str
    limit: float | None  # where the device's memory ends in the bar, if the run needs more

    @property
    def fits(self) -> bool:
        return not self.memory or self.needed <= self.memory


def fit_of(
    stage: str, settings: Mapping[str, Any], facts: ModelFacts | None, *, reward: ModelVersion | None = None
) -> Fit | None:
    """None if the size of the model is not known."""
    if facts is None or not facts.parameters or not facts.layers:
        return None
    machine = newest_machine()
    report = machine[1] if machine else DeviceReport(kind="cpu", name="", memory=0)
    device = device_of_process(settings, report)
    reward_facts = facts_of(reward) if reward else None

    def count(changed: Mapping[str, Any]) -> dict[str, int]:
        return count_memory(stage, changed, facts, device, reward=reward_facts)

    parts = count(settings)
    needed = sum(parts.values())
    whole = max(needed, device.memory)
    return Fit(
        needed=needed,
        memory=device.memory,
        parts=list(bar(parts, whole)),
        verdict=verdict_of(needed, device),
        sentence=sentence_of(needed, device.memory),
        advice=list(advice_on(settings, needed, device, lambda changed: sum(count(changed).values()))),
        basis=basis_of(
            facts, device, host=machine[0].host if machine else "", present=bool(machine and is_present(machine[0]))
        ),
        limit=BAR_WIDTH * device.memory / needed if device.memory and needed > device.memory else None,
    )


def size_words(number: float) -> str:
    """Bytes as 0.6 GB, 19 GB or 110 GB."""
    return f"{number / GB:.1f} GB" if number < 9.95 * GB else f"{number / GB:.0f} GB"


def bar(parts: Mapping[str, int], whole: int) -> Iterator[Part]:
    start = 0.0
    for key, size in parts.items():
        width = BAR_WIDTH * size / whole
        yield Part(key, MEMORY_PARTS[key], size_words(size), round(start, 1), round(width, 1))
        start += width


def verdict_of(needed: int, device: DeviceReport) -> Literal["good", "warn", "bad", ""]:
    if not device.memory:
        return ""
    if needed > device.memory:
        return "bad"
    short = needed > COMFORTABLE * device.memory or (device.kind == "cpu" and needed > device.free)
    return "warn" if short else "good"


def sentence_of(needed: int, memory: int) -> str:
    if not memory:
        return f"Needs about {size_words(needed)}."
    words = f"Needs about {size_words(needed)} of {size_words(memory)}."
    return words if needed <= memory else f"Does not fit. {words}"


def advice_on(settings: Mapping[str, Any], needed: int, device: DeviceReport, count: Counter) -> Iterator[str]:
    if not device.memory:
        yield "No training worker has said yet what it computes on."
    elif needed > device.memory:
        yield what_to_change(settings, device, count)
    elif device.kind == "cpu" and needed > device.free:
        yield f"Only {size_words(device.free)} are free now: close other programs before it starts."
    elif needed > COMFORTABLE * device.memory:
        yield f"That is close: if it runs out of memory, {smaller_pass(settings)}."


def smaller_pass(settings: Mapping[str, Any]) -> str:
    return f"lower micro tokens to {int(settings['micro_tokens']) // 2:,}"


def what_to_change(settings: Mapping[str, Any], device: DeviceReport, count: Counter) -> str:
    """The first of the usual changes, one after the other, with which it fits; counted, not guessed."""
    changed, smallest = dict(settings), 0
    steps: dict[str, str] = {}  # by the setting that they change: the last one counts
    for words, changes in reductions(settings, device):
        steps |= dict.fromkeys(changes, words)
        changed |= changes
        smallest = count(changed)
        if smallest <= COMFORTABLE * device.memory:
            return f"It fits if you {' and '.join(dict.fromkeys(steps.values()))}: about {size_words(smallest)}."
    minimum_note = f", {size_words(smallest)} at the least" if smallest else ""
    return f"No setting makes it fit{minimum_note}: choose a smaller model, or a machine with more memory."


def reductions(settings: Mapping[str, Any], device: DeviceReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(in words, settings) of what saves memory, the least harmful first."""
    lora = settings.get("lora")
    if isinstance(lora, Mapping) and not lora.get("rank"):
        yield f"set LoRA rank to {LORA_RANK}", {"lora": {**lora, "rank": LORA_RANK}}
    tokens = int(settings["micro_tokens"])
    minimum = max(MIN_MICRO_TOKENS, int(settings.get("max_tokens") or 0))
    while tokens // 2 >= minimum:
        tokens //= 2
        yield f"lower micro tokens to {tokens:,}", {"micro_tokens": tokens}
    if settings.get("activation_checkpointing") is False:
        yield "switch on activation checkpointing", {"activation_checkpointing": True}
    if can_be_sharded(settings, device):
        yield f"shard it among all {device.count} devices", {"processes": device.count, "shard": True}
    prompts = int(settings.get("prompts_per_step") or 0)
    while prompts // 2 >= MIN_PROMPTS:
        prompts //= 2
        yield f"lower prompts per step to {prompts:,}", {"prompts_per_step": prompts}


def can_be_sharded(settings: Mapping[str, Any], device: DeviceReport) -> bool:
    """Whether the run can, and the machine has the devices for it."""
    few_bits = (settings.get("lora") or {}).get("load_in_4bit") or settings.get("optimizer") == "adamw_8bit"
    takes_it = settings.get("shard") is False and not few_bits and settings.get("critic") != "own"
    return takes_it and device.kind == "cuda" and device.count > 1


def basis_of(facts: ModelFacts, device: DeviceReport, *, host: str, present: bool) -> str:
    """What the count goes by."""
    size = (
        f"{facts.parameters / 1e9:.1f} billion" if facts.parameters >= 1e9 else f"{facts.parameters / 1e6:.0f} million"
    )
    model = f"Counted for {size} parameters, {facts.layers} layers and a vocabulary of {facts.vocabulary:,}"
    if not device.memory:
        return f"{model}."
    several = f", one of {device.count}" if device.count > 1 else ""
    away = "" if present else ", whose worker does not answer now"
    return f"{model} on {device.name}{several} ({host}{away}). Allow for a quarter more or less."


def parameter_words(facts: ModelFacts) -> str:
    number = facts.parameters
    if number >= 1e9:
        return f"{number / 1e9:.1f} billion parameters"
    return f"{number / 1e6:.0f} million parameters" if number >= 1e7 else f"{number:,} parameters"


def model_words(facts: ModelFacts) -> str:
    """What a person should know of a model before training it, as "135 million parameters, context 8,192, …"."""
    words = [parameter_words(facts)] if facts.parameters else []
    words += [f"context {facts.context:,}"] if facts.context else []
    words += [facts.dtype] if facts.dtype else []
    words += [f"vocabulary {facts.vocabulary:,}"] if facts.vocabulary else []
    if facts.chat_template is not None:
        words.append("with a chat template" if facts.chat_template else "without a chat template")
    if facts.adapter_rank:
        words.append(f"an adapter of rank {facts.adapter_rank}")
    return ", ".join(words)
