"""What is known of a model from the small files beside its weights: its shape, precision, context and chat template."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from training.contract.model_cards import MAX_CARD, card_values, sampling_of

ADAPTER_CONFIG: Final = "adapter_config.json"
MAX_HEADER_BYTES: Final = 100 << 20  # of a safetensors file, as its own library limits it

# The names that transformers' configurations use for one thing, the commonest first.
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions"),
}


class ModelFacts(BaseModel):
    """The numbers of a language or reward model. 0 and "" are what its files do not say; an adapter has its base's."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    parameters: int = Field(0, description="of the whole model, an adapter's base included")
    architecture: str = Field("", description="as transformers names it, such as LlamaForCausalLM")
    layers: int = 0
    hidden: int = Field(0, description="width of the hidden states")
    intermediate: int = Field(0, description="width inside the feed-forward layers")
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocabulary: int = 0
    context: int = Field(0, description="the most tokens it was made for")
    tied: bool = Field(False, description="whether its input and output embeddings are one matrix")
    dtype: str = Field("", description="of its weights in the files, such as bfloat16")
    chat_template: bool | None = Field(None, description="whether its tokenizer has one; None: not known")
    adapter_rank: int = Field(0, description="of an adapter; 0: it is a whole model")
    license: str = Field("", description="as its card names it")
    languages: list[str] = Field([], description="as its card names them")
    tags: list[str] = []
    base_model: str = Field("", description="what its card says that it was made from")
    sampling: dict[str, float] = Field({}, description="temperature, top_p, top_k and so on that its authors advise")


def facts_of_config(config: Mapping[str, Any]) -> ModelFacts:
    """The numbers of a transformers config, whose text part counts where it has several."""
    text = config.get("text_config")
    text = {**config, **text} if isinstance(text, Mapping) else config
    numbers = {name: read_number(text, keys) for name, keys in NAMES.items()}
    numbers["kv_heads"] = numbers["kv_heads"] or numbers["heads"]
    numbers["intermediate"] = numbers["intermediate"] or 4 * numbers["hidden"]
    if not numbers["head_dim"] and numbers["heads"]:
        numbers["head_dim"] = numbers["hidden"] // numbers["heads"]
    architectures = config.get("architectures")
    return ModelFacts(
        **numbers,
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "").removeprefix("torch."),
    )


def read_number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
            return value
    return 0


def facts_of_folder(folder: Path, base: ModelFacts | None = None) -> ModelFacts | None:
    """The facts of a model folder; None if it has neither a config nor an adapter's. `base`: those of an adapter's base.

    Of weights only the headers are read. What is damaged counts as not said: loading reports it."""
    adapter, config = read_json(folder / ADAPTER_CONFIG), read_json(folder / "config.json")
    if not adapter and not config:
        return None
    facts = (base or ModelFacts()) if adapter else facts_of_config(config)
    if adapter:
        facts = facts.model_copy(update={"adapter_rank": read_number(adapter, ("r",))})
    else:
        facts = facts.model_copy(update={"parameters": parameters_of_files(sorted(folder.glob("*.safetensors")))})
    facts = facts.model_copy(update=said_by_authors(folder))
    template = has_chat_template(folder)
    return facts if template is None else facts.model_copy(update={"chat_template": template})


def said_by_authors(folder: Path) -> dict[str, Any]:
    """What the card and the generation config in the folder say, and nothing for what they do not."""
    card = card_values(read_text(folder / "README.md"))
    said = {
        "license": " ".join(card.get("license", [])[:1]),
        "languages": card.get("language", []),
        "tags": card.get("tags", []),
        "base_model": " ".join(card.get("base_model", [])[:1]),
        "sampling": sampling_of(read_json(folder / "generation_config.json")),
    }
    return {name: value for name, value in said.items() if value}


def has_chat_template(folder: Path) -> bool | None:
    """Whether the tokenizer in the folder has one; None if there is no tokenizer."""
    if (folder / "chat_template.jinja").exists():
        return True
    path = folder / "tokenizer_config.json"
    return bool(read_json(path).get("chat_template")) if path.exists() else None


def parameters_of_files(files: list[Path]) -> int:
    """Numbers in safetensors files, by their headers; 0 if one cannot be read."""
    try:
        return sum(prod(tensor["shape"]) for path in files for tensor in read_header(path).values())
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def read_header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, by name: dtype, shape and place. Raises OSError or ValueError."""
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8 or (length := struct.unpack("<Q", start)[0]) > MAX_HEADER_BYTES:
            raise ValueError(f"{path}: this is no safetensors file")
        header = json.loads(file.read(length))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def read_text(path: Path) -> str:
    """The beginning of a text file; empty if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_CARD)
    except OSError:
        return ""


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
