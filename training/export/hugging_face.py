"""A Hugging Face folder: safetensors of one precision, tokenizer, chat template, generation config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from training.contract import InputError
from training.export.templates import portable_template
from training.export.weights import CONFIG_FILE, Weights
from training.models.compute import ADAPTER
from training.models.token_rows import UNTRAINED

Step = Callable[[int], None]
"""Is told of every tensor how many numbers it has."""

MAX_SHARD_BYTES: Final = 2 << 30
DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# of config.json: what only this project reads, and paths of this machine
OURS: Final = ("reward", UNTRAINED, "_name_or_path")
TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
LEGAL: Final = ("LICENSE*", "NOTICE*", "USE_POLICY*")


def write_model(weights: Weights, target: Path, dtype: torch.dtype, step: Step) -> None:
    """config.json and model.safetensors, or shards of it with their index."""
    config = {name: value for name, value in weights.config.items() if name not in OURS}
    config.pop("torch_dtype", None)
    write_json(target / CONFIG_FILE, config | {"dtype": str(dtype).removeprefix("torch.")})
    shards = planned_shards(weights, dtype.itemsize)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file_name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for name in names:
            tensors[name] = cast(name, weights.read(name), dtype)
            step(tensors[name].numel())
        save_file(tensors, target / file_name, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file_name)
    if len(shards) > 1:
        total = weights.numbers * dtype.itemsize
        write_json(target / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def planned_shards(weights: Weights, itemsize: int) -> list[list[str]]:
    """Names of tensors by file, none of them larger than MAX_SHARD_BYTES unless one tensor is."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in weights.names:
        bytes_of_tensor = torch.Size(weights.shape(name)).numel() * itemsize
        if shards[-1] and size + bytes_of_tensor > MAX_SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += bytes_of_tensor
    return shards


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in the precision it leaves in. Raises InputError if a number is too large for it."""
    smaller = tensor.to(dtype).contiguous()
    if not tensor.isfinite().all():
        raise InputError(f"{name} has values that are no numbers; this model is broken", code="model_damaged")
    if not smaller.isfinite().all():
        raise InputError(
            f"{name} reaches {tensor.abs().max():.4g}, which fp16 cannot hold (65,504 at most); export as bf16",
            code="out_of_range",
        )
    return smaller


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, source: Path, target: Path) -> None:
    """The files as they are, but for the template, which leaves as every program can read it."""
    copied = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    for path in copied:
        shutil.copyfile(path, target / path.name)
    if not copied:  # a tokenizer that came by its hub name
        tokenizer.save_pretrained(target)
    if not tokenizer.chat_template:
        return
    template = portable_template(str(tokenizer.get_chat_template()))
    settings = target / "tokenizer_config.json"
    config = json.loads(settings.read_text()) if settings.exists() else {}
    if "chat_template" in config:
        write_json(settings, config | {"chat_template": template})
        (target / "chat_template.jinja").unlink(missing_ok=True)
    else:
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")


def write_generation_config(source: Path, target: Path, stop_ids: list[int], pad_id: int) -> None:
    """The model's own, which ends at every token at which replies end here: the complaint about models that never stop
    is of folders whose generation config names the end of the document alone."""
    try:
        values: dict[str, Any] = json.loads((source / "generation_config.json").read_text())
    except (OSError, ValueError):
        values = {}
    config = GenerationConfig(**{name: value for name, value in values.items() if not name.startswith("_")})
    own = config.eos_token_id
    others = own if isinstance(own, list) else [] if own is None else [own]
    config.eos_token_id = list(dict.fromkeys([*stop_ids, *others]))
    config.pad_token_id = pad_id if config.pad_token_id is None else config.pad_token_id
    config.save_pretrained(target)


def write_adapter(source: Path, target: Path, base_name: str) -> None:
    """The adapter alone, which names its base as others can get it."""
    shutil.copyfile(source / "adapter_model.safetensors", target / "adapter_model.safetensors")
    config = json.loads((source / ADAPTER).read_text())
    write_json(target / ADAPTER, config | {"base_model_name_or_path": base_name})


def copy_license(source: Path, target: Path) -> None:
    for pattern in LEGAL:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
