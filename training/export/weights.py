"""The weights of a model as it leaves: read one tensor at a time, an adapter added in float32.

A model of eight billion parameters leaves in the memory of its largest tensor, whatever its precision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from training.contract import InputError
from training.export.adapters import Adapter, adapter_of
from training.models.checks import DAMAGE, check_source, check_weights, damaged_folder
from training.models.compute import adapter_base

CONFIG_FILE: Final = "config.json"
HEAD: Final = "lm_head.weight"


class Weights:
    """The tensors of a folder by the names that transformers gives them. `names` holds those that leave; `unknown` what
    lies in the files but is no part of the model, such as the head of a value function."""

    def __init__(self, folder: Path, files: dict[str, Any], config: dict[str, Any], adapter: Adapter | None) -> None:
        self.folder, self.config, self._adapter = folder, dict(config), adapter
        known, self.tied, prefix = expected_names(folder)
        # GPT-2 as its authors published it names its tensors without the part that holds them
        keys = {key if key in known or f"{prefix}.{key}" not in known else f"{prefix}.{key}": key for key in files}
        self._places = {name: (files[key], key) for name, key in keys.items()}
        self.unknown = sorted(set(keys) - known)
        self.names = [name for name in keys if name in known]
        if adapter is not None:
            self._untie(adapter)
        if missing := sorted(known - set(self.names) - self.tied):
            raise damaged_folder(
                str(folder), "model", ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
            )
        self.names = [name for name in self.names if name not in self.tied]

    def _untie(self, adapter: Adapter) -> None:
        """Input and output embeddings that share one matrix part where the adapter changes one of them."""
        changed = adapter.targets()
        if unplaced := sorted(changed - set(self.names) - self.tied):
            raise InputError(
                f"the adapter changes {unplaced[0]}, which its base does not have; take the base it was trained on",
                code="model_damaged",
            )
        if self.tied and any(name in adapter.parted() for name in (*self.tied, *self._shared())):
            self.names += sorted(self.tied)
            self.tied = set()
            self.config["tie_word_embeddings"] = False

    def _shared(self) -> list[str]:
        """The tensors that the tied ones are copies of."""
        return [name for name in self.names if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))]

    def shape(self, name: str) -> tuple[int, ...]:
        file, key = self._place(name)
        return tuple(file.get_slice(key).get_shape())

    def read(self, name: str) -> Tensor:
        """The tensor in float32 if the adapter changes it, else as it is stored."""
        file, key = self._place(name)
        tensor: Tensor = file.get_tensor(key)
        return tensor if self._adapter is None else self._adapter.merged(name, tensor)

    def _place(self, name: str) -> tuple[Any, str]:
        return self._places.get(name) or self._places[self._shared()[0]]

    @property
    def numbers(self) -> int:
        """Parameters that are written."""
        return sum(torch.Size(self.shape(name)).numel() for name in self.names)


@contextmanager
def open_weights(source: str) -> Iterator[Weights]:
    """The weights of a model's folder, or of an adapter's with its base. Raises InputError."""
    base, folder = adapter_base(source), plain_folder(source)
    check_source(str(folder), "model")
    check_weights(str(folder), "model")
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            for path in sorted(folder.glob("*.safetensors")):
                # read, not mapped: an overwritten file then ends in an error and not in SIGBUS
                file = stack.enter_context(safe_open(path, framework="pt", backend="pread"))
                files |= dict.fromkeys(file.keys(), file)
            weights = Weights(folder, files, config, adapter_of(Path(source), stack) if base else None)
        except DAMAGE as error:
            raise damaged_folder(str(folder), "model", error) from error
        yield weights


def plain_folder(source: str) -> Path:
    """The folder of the whole model: of an adapter, its base's."""
    return local_base(adapter_base(source) or source)


def local_base(source: str) -> Path:
    """The folder of a model; a hub's name is the folder in the hub's cache, where a run has put it."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (only a base from the hub needs it)

    try:
        return Path(snapshot_download(source, allow_patterns=["*.safetensors", "*.json", "*.jinja"]))
    except Exception as error:  # the hub's library raises those of its HTTP client as they are
        raise damaged_folder(source, "model", error) from error


def expected_names(folder: Path) -> tuple[set[str], set[str], str]:
    """The tensors that the architecture has, of these the ones that are another one again, and the name of the part
    that holds all but the head."""
    config = AutoConfig.from_pretrained(folder)
    scores = any(str(kind).endswith("ForSequenceClassification") for kind in config.architectures or [])
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    if scores:
        config.num_labels = 1
    with torch.device("meta"):
        model = kind.from_config(config)
    tied = set(model.all_tied_weights_keys or {}) if config.get_text_config().tie_word_embeddings else set()
    return set(model.state_dict()), tied, str(model.base_model_prefix)
