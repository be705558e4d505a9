"""What is checked against a model before it is used, so that what does not fit is a sentence and not an index error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from training.contract import InputError
from training.data.chat_format import ChatFormat

SPEAKS: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how the classes of such models end
ENCODERS: Final = frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
OTHER_WEIGHTS: Final = ("*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")
INSTEAD: Final = {"tokenizer": ("tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "config.json")}
DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)


def check_source(source: str, noun: str) -> None:
    if not source:
        raise InputError(f"no {noun} is named in the config", code="config_invalid")
    if source.startswith(("/", ".")) and not Path(source).is_dir():
        raise InputError(f"{source}: there is no such {noun} folder", code="no_model")
    needed = "tokenizer.json" if noun == "tokenizer" else "config.json"
    if Path(source).is_dir() and not any((Path(source) / name).exists() for name in (needed, *INSTEAD.get(noun, ()))):
        raise InputError(
            f"{source}: there is no {needed} in this {noun} folder; name the folder that holds the model's files",
            code="no_model",
        )


def damaged_folder(source: str, noun: str, error: Exception) -> InputError:
    reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
    if Path(source).is_dir():
        return InputError(
            f"{source}: this {noun} folder is damaged or incomplete ({reason}); take another, or make it anew",
            code="model_damaged",
        )
    return InputError(f"{source}: cannot get this {noun} from the hub ({reason})", code="no_model")


def check_weights(source: str, noun: str) -> None:
    """Raises InputError if a folder has weights, but none as safetensors: other kinds may run code when read."""
    folder = Path(source)
    if not folder.is_dir():
        return
    check_indexes(folder)
    if any(folder.glob("*.safetensors")):
        return
    if others := sorted(path.name for kind in OTHER_WEIGHTS for path in folder.glob(kind)):
        raise InputError(
            f"{source}: this {noun} folder has its weights as {others[0]} only; convert them to safetensors",
            code="model_unsupported",
        )


def check_indexes(folder: Path) -> None:
    """Raises InputError if an index of shards names a file that is not in the folder itself."""
    for path in folder.glob("*.index.json"):
        try:
            shards = json.loads(path.read_text())["weight_map"].values()
        except DAMAGE as error:
            raise damaged_folder(str(folder), "model", error) from error
        if outside := [
            shard for shard in shards if not isinstance(shard, str) or Path(shard).name != shard or shard == ".."
        ]:
            raise InputError(
                f"{folder}: {path.name} names {str(outside[0])[:100]!r}, which is not a file of this folder",
                code="model_damaged",
            )


def check_causal(source: str) -> None:
    """Raises InputError if the config says that this is another kind of model: transformers alone would make a
    language model of it, and go on with one that sees what it has to say, or has never learned to speak."""
    try:
        config = AutoConfig.from_pretrained(source)
    except DAMAGE as error:
        raise damaged_folder(source, "model", error) from error
    kinds = list(config.architectures or [])
    reads_all = getattr(config, "is_encoder_decoder", False) or (
        config.model_type in ENCODERS and not getattr(config, "is_decoder", False)
    )
    if any("SequenceClassification" in kind for kind in kinds):
        raise InputError(f"{source}: this is a reward model; it gives scores, not replies", code="no_model")
    if reads_all or (kinds and not any(kind.endswith(SPEAKS) for kind in kinds)):
        raise InputError(
            f"{source}: this is no causal language model but {', '.join(kinds) or config.model_type}; take one whose "
            "class ends in ForCausalLM",
            code="model_unsupported",
        )


def check_vocabulary(chat: ChatFormat, model: Any, source: str) -> None:
    """Raises InputError if the tokenizer gives tokens for which the model has no embedding. Special tokens that no
    conversation holds may be beyond: Gemma 3's has one for images, which its text models lack."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    if max(chat.reachable) >= rows:
        raise InputError(
            f"tokenizer: it has {len(chat.tokenizer)} tokens, {source} knows {rows} only; "
            "take the tokenizer that the model was trained with",
            code="vocabulary_mismatch",
        )
