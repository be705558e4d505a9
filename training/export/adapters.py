"""LoRA's change of a weight (Hu et al. 2021, arXiv:2106.09685), added one tensor at a time in float32.

PEFT merges a model that is in memory as a whole, in the precision that it is in. Here the sum is made in float32 and
rounded once, when it is written.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor

from training.contract import InputError
from training.models.compute import ADAPTER

PREFIX: Final = "base_model.model."
PART: Final = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.weight)?"
)
ROWS: Final = ".token_adapter.trainable_tokens_delta"
UNKNOWN_WAYS: Final = (  # of PEFT's settings, those that change what an adapter's numbers mean
    "target_parameters", "layer_replication", "use_qalora", "alora_invocation_tokens",
    "lora_bias", "megatron_config", "arrow_config", "monteclora_config",
)  # fmt: skip


class Adapter:
    """parts: by module, its tensors by part; replaced: whole weights that the adapter brings; rows: by weight, the
    embeddings of single tokens that it brings."""

    def __init__(self, config: dict[str, Any], file: Any) -> None:
        self._config, self._file = config, file
        self._parts: dict[str, dict[str, str]] = {}
        self._replaced: dict[str, str] = {}
        self._rows: dict[str, str] = {}
        for key in file.keys():  # noqa: SIM118 (no mapping)
            name = key.removeprefix(PREFIX)
            if match := PART.fullmatch(name):
                self._parts.setdefault(match["module"], {})[match["part"]] = key
            elif name.endswith(ROWS):
                self._rows[f"{name.removesuffix(ROWS)}.weight"] = key
            elif ".base_layer." not in name:  # PEFT saves embeddings as they were, too
                self._replaced[name.replace(".modules_to_save", "")] = key

    def targets(self) -> set[str]:
        """The names of the weights that it changes."""
        return self.parted() | set(self._rows)

    def parted(self) -> set[str]:
        """Those that are no longer shared with another one: PEFT keeps single rows the same at both ends."""
        return {f"{module}.weight" for module in self._parts} | set(self._replaced)

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """The weight with the adapter's change, float32; as it is where there is none."""
        if key := self._replaced.get(name):
            replacing: Tensor = self._file.get_tensor(key)
            return replacing.float()
        if key := self._rows.get(name):
            ids = torch.tensor(self._token_ids(name))
            return weight.float().index_copy(0, ids, self._file.get_tensor(key).float())
        module = name.removesuffix(".weight")
        if module not in self._parts or not name.endswith(".weight"):
            return weight
        parts = {part: self._file.get_tensor(key).float() for part, key in self._parts[module].items()}
        if "lora_embedding_A" in parts:
            delta = (parts["lora_embedding_B"] @ parts["lora_embedding_A"]).T
        else:
            delta = parts["lora_B"] @ parts["lora_A"]
        delta *= self._scale(module)
        if self._config.get("fan_in_fan_out"):
            delta = delta.T
        total: Tensor = weight.float() + delta
        magnitude = parts.get("lora_magnitude_vector")
        if magnitude is None:
            return total
        # DoRA (Liu et al. 2024, arXiv:2402.09353, equation 5): every output's weights have a length of their own
        scaled: Tensor = magnitude.view(-1, 1) * total / torch.linalg.norm(total, dim=1, keepdim=True)
        return scaled

    def _token_ids(self, name: str) -> list[int]:
        """Of which tokens it brings rows for the weight: by module, or a list for the input embeddings alone."""
        named = self._config["trainable_token_indices"]
        if isinstance(named, list):
            return named
        module = name.removesuffix(".weight")
        return next(ids for key, ids in named.items() if f".{module}".endswith(f".{key}"))

    def _scale(self, module: str) -> float:
        rank = int(pattern_value(self._config.get("rank_pattern"), module, self._config["r"]))
        alpha = float(pattern_value(self._config.get("alpha_pattern"), module, self._config["lora_alpha"]))
        # rsLoRA divides by the root of the rank (Kalajdzievski 2023, arXiv:2312.03732)
        return alpha / (rank**0.5 if self._config.get("use_rslora") else rank)


def pattern_value(patterns: dict[str, float] | None, module: str, default: float) -> float:
    """What PEFT's rank_pattern or alpha_pattern says of a module: its keys match the end of the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def adapter_of(folder: Path, stack: ExitStack) -> Adapter:
    """Raises InputError for an adapter whose change this cannot compute for certain."""
    config = json.loads((folder / ADAPTER).read_text())
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"{folder}: adapters of the kind {config.get('peft_type')} cannot be merged here; export the adapter alone",
            code="model_unsupported",
        )
    if ways := [name for name in UNKNOWN_WAYS if config.get(name)]:
        raise InputError(
            f"{folder}: this adapter uses {ways[0]}, which cannot be merged here; export the adapter alone",
            code="model_unsupported",
        )
    if config.get("bias", "none") != "none" or (config.get("use_dora") and config.get("fan_in_fan_out")):
        raise InputError(
            f"{folder}: this adapter changes more than matrices and cannot be merged here; export the adapter alone",
            code="model_unsupported",
        )
    file = stack.enter_context(safe_open(folder / "adapter_model.safetensors", framework="pt", backend="pread"))
    return Adapter(config, file)
