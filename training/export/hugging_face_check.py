"""A Hugging Face folder, loaded as others load it and held against the model it was written from."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from training.contract import InputError
from training.export.answers import Answer, Questions, answer, differences
from training.export.weights import local_base
from training.models.adapters import merged
from training.models.compute import Compute, adapter_base
from training.models.loading import CausalModel, context_of, load_causal, load_tokenizer
from training.preferences.reward_model import load_reward, score
from training.run.reporting import ProgressCallback

MERGED_TOLERANCE: Final = 0.1  # nats


def check_policy(
    source: str,
    target: Path,
    dtype: torch.dtype,
    device: torch.device,
    questions: Questions,
    on_progress: ProgressCallback,
) -> list[str]:
    """Raises InputError unless the folder answers as the model does with its weights in `dtype`. Both are loaded by
    transformers and compute the same sums in the same order, so nothing is left to rounding: every token must be the
    same."""
    check_prompts(target, questions)
    model = served_model(source, dtype, device)
    questions.fit(context_of(model))
    expected = answer(model, questions, questions.stop_ids, on_progress)
    del model
    gc.collect()
    exported = AutoModelForCausalLM.from_pretrained(target, dtype=dtype, use_safetensors=True).to(device).eval()
    exported_answers = answer(exported, questions, stop_ids_of(target), on_progress)
    # PEFT may add in another order, which rounds some weights to their other neighbor
    parted = refuse_differences(exported, exported_answers, expected, MERGED_TOLERANCE if adapter_base(source) else 0.0)
    return [
        f"{len(expected) - parted} of {len(expected)} prompts were answered by the same tokens, greedily, before and "
        f"after ({name_of(dtype)} both times)."
        + (f" The others part between two tokens within {MERGED_TOLERANCE} nats of each other." if parted else "")
    ]


def check_adapter(
    source: str, target: Path, compute: Compute, questions: Questions, on_progress: ProgressCallback
) -> list[str]:
    """Raises InputError unless the exported adapter over its base answers as the adapter here does."""
    check_prompts(target, questions)
    model = load_causal(source, compute)
    questions.fit(context_of(model))
    expected = answer(model, questions, questions.stop_ids, on_progress)
    del model
    gc.collect()
    base = AutoModelForCausalLM.from_pretrained(local_base(adapter_base(source)), dtype=compute.dtype)
    exported = PeftModel.from_pretrained(base, str(target)).to(compute.device).eval()
    exported_answers = answer(exported, questions, stop_ids_of(target), on_progress)
    refuse_differences(exported, exported_answers, expected, 0.0)
    return [f"{len(expected)} of {len(expected)} prompts were answered by the same tokens, greedily, before and after."]


def check_reward(source: str, target: Path, dtype: torch.dtype, device: torch.device) -> list[str]:
    """Raises InputError unless the exported reward model gives the same scores."""
    scores: list[list[float]] = []
    for folder in (source, str(target)):
        model, tokenizer = load_reward(folder, Compute(device, dtype))
        questions = Questions(tokenizer, folder)
        replies = ["Yes.", "No, I cannot help with that. " * 3]
        conversations = [
            [*turns, turns[0].model_copy(update={"role": "assistant", "content": reply})]
            for turns in questions.conversations
            for reply in replies
        ]
        scores.append(score(model, tokenizer, conversations))
        del model
        gc.collect()
    if scores[0] != scores[1]:
        worst = max(abs(a - b) for a, b in zip(*scores, strict=True))
        raise differs(f"its scores differ by up to {worst:.3g} from those of the reward model here")
    return [f"{len(scores[0])} replies got the same scores before and after ({name_of(dtype)} both times)."]


def served_model(source: str, dtype: torch.dtype, device: torch.device) -> CausalModel:
    """The model as it is used here, its adapter merged by PEFT in float32, with its weights in `dtype`; on the GPU if
    it fits. Raises InputError if it does not fit in memory either."""
    target_dtype = torch.float32 if adapter_base(source) else dtype
    try:
        model = load_causal(source, Compute(device, target_dtype))
    except InputError as error:
        if error.code != "too_large" or device.type == "cpu":
            raise
        model = load_causal(source, Compute(torch.device("cpu"), target_dtype))
    whole: CausalModel = merged(model) if isinstance(model, PeftModel) else model
    for parameter in whole.parameters():  # not .to(dtype): that would round the rotary frequencies, too
        parameter.data = parameter.data.to(dtype)
    return whole.to(device)


def check_prompts(target: Path, questions: Questions) -> None:
    """Raises InputError unless the exported tokenizer and template make the same tokens of conversations."""
    exported = Questions(load_tokenizer(str(target)), str(target))
    for number, (ours, theirs) in enumerate(zip(questions.prompts, exported.prompts, strict=True), 1):
        if ours != theirs:
            raise differs(f"its tokenizer makes other tokens of prompt {number}")


def stop_ids_of(target: Path) -> list[int]:
    """The tokens at which the exported folder itself says that a reply ends."""
    stops: Any = GenerationConfig.from_pretrained(target).eos_token_id
    return stops if isinstance(stops, list) else [] if stops is None else [int(stops)]


def refuse_differences(model: CausalModel, given: list[Answer], expected: list[Answer], tolerance: float) -> int:
    """How many answers part where `model` finds both tokens within `tolerance` nats. Raises InputError for others."""
    parted = differences(model, given, expected)
    if wrong := [difference for difference in parted if not abs(difference.margin) < tolerance]:
        raise differs(f"it answers prompt {wrong[0].question + 1} otherwise, from token {wrong[0].place + 1} on")
    return len(parted)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def differs(what: str) -> InputError:
    return InputError(f"the export was written wrongly and is not offered: {what}", code="export_differs")
