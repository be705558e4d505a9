"""Models on disk and in memory: made from scratch, loaded, given an adapter, saved. Safetensors only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_utils,
)

from training.contract import LoraSettings, PretrainSettings, facts_of_config
from training.models.adapters import add_adapter, merged, read_adapter
from training.models.checkpointing import checkpoint_activations
from training.models.checks import DAMAGE, check_causal, check_source, check_weights, damaged_folder
from training.models.compute import Compute, adapter_base
from training.models.memory import check_fits, check_holds
from training.models.quantization import four_bit_config, numbers_in
from training.models.token_rows import forget_untrained
from training.run.run import Run

OPENING: Final = threading.Lock()

CausalModel: TypeAlias = PreTrainedModel | PeftModel


# ------------------------------------------------------------------------------------------------------------- loading


def load_tokenizer(source: str, run: Run[Any] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name; where it has no pad token its end-of-text token pads, which `run` is told.
    Raises InputError."""
    check_source(source, "tokenizer")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the tokenizers library raises no narrower one on a damaged file
        raise damaged_folder(source, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
        if run is not None:
            run.warn(f"{source}: its tokenizer has no pad token; its end-of-text token {tokenizer.eos_token} pads")
    return tokenizer


def load_causal(
    source: str,
    compute: Compute,
    *,
    lora: LoraSettings | None = None,
    trainable: bool = False,
    checkpointing: bool = False,
) -> CausalModel:
    """The language model of a folder, adapter folder or hub name, on the device, in eval mode, dropout off.

    trainable: weights in fp32. With `lora.rank`, only a new adapter learns, over the frozen model; where `source` is
    itself an adapter, that adapter goes on learning. Without, an adapter is merged into its base and all weights learn.
    checkpointing: layers are computed again for the backward pass. Raises InputError if the folder is missing, damaged
    or no causal language model, or there is no memory for its weights.
    """
    adapter_only = trainable and lora is not None and lora.rank > 0
    dtype = torch.float32 if trainable and not adapter_only else compute.dtype
    base = adapter_base(source)
    check_source(base or source, "model")
    check_weights(base or source, "model")
    check_causal(base or source)
    quantized = adapter_only and lora is not None and lora.load_in_4bit
    # In 4 bits half a byte, and the embeddings, which stay as they are.
    check_holds(base or source, device=compute.device, dtype=torch.int8 if quantized else dtype)
    model: CausalModel = read_weights(base or source, dtype, compute.device if quantized else None)
    if base:
        model = read_adapter(model, source, lora if adapter_only else None)
        if not adapter_only:
            model = merged(model)
    elif adapter_only and lora is not None:
        model = add_adapter(model, lora)
    if trainable and not adapter_only and lora is not None:  # pretraining reads no conversations
        forget_untrained(unwrap(model))
    for parameter in model.parameters():
        parameter.requires_grad_(trainable and (parameter.requires_grad or not adapter_only))
    if checkpointing:
        checkpoint_activations(unwrap(model))
    return model.to(compute.device).eval()


def read_weights(source: str, dtype: torch.dtype, quantize_on: torch.device | None = None) -> PreTrainedModel:
    """Every weight must be in the files: transformers alone would fill gaps with random numbers and go on.

    quantize_on: the device on which the matrices are brought to 4 bits as they are read.
    """
    options: dict[str, Any] = {}
    if quantize_on is not None:
        options = {"quantization_config": four_bit_config(dtype), "device_map": {"": quantize_on}}
    try:
        with read_not_mapped():
            model, report = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
    except DAMAGE as error:
        raise damaged_folder(source, "model", error) from error
    if missing := sorted(report["missing_keys"]):
        raise damaged_folder(
            source, "model", ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
        )
    model.config._name_or_path = str(Path(source).resolve()) if Path(source).exists() else source
    return model


@contextmanager
def read_not_mapped() -> Iterator[None]:
    """Weights that are loaded meanwhile are read from their files one by one.

    transformers maps the files into memory, and a process that uses a model whose file was overwritten or cut short
    dies of SIGBUS, with everything else it does. On Windows and MPS it reads them as is done here, by the same argument
    of `safe_open`; its own `disable_mmap` holds a file's bytes twice.
    """

    def open_to_read(path: str, **options: Any) -> Any:
        return safe_open(path, **{**options, "backend": "pread"})

    with OPENING:
        modeling_utils.safe_open = open_to_read
        try:
            yield
        finally:
            modeling_utils.safe_open = safe_open


# ---------------------------------------------------------------------------------------------------- making and saving


def new_causal(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase, compute: Compute) -> LlamaForCausalLM:
    """A Llama-shaped model with random weights and tied embeddings, on the device. Raises InputError if the run
    does not fit."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=-(-settings.hidden * 8 // 3 // 32) * 32,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads or settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        parameters = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    facts = facts_of_config(config.to_dict()).model_copy(update={"parameters": parameters})
    check_fits(settings, facts, device=compute.device, dtype=compute.dtype)
    model = LlamaForCausalLM(config).to(compute.device)
    if settings.activation_checkpointing:
        checkpoint_activations(model)
    return model


def save_model(model: CausalModel, tokenizer: PreTrainedTokenizerBase, folder: Path, stop_ids: list[int]) -> None:
    """Weights, tokenizer with its chat template, and a generation config that ends at `stop_ids` and at whatever else
    the model's own one ended at.

    Full models are saved in fp32; an adapter as PEFT does, naming its base by absolute path.
    """
    generation = unwrap(model).generation_config
    own_stop = generation.eos_token_id
    others = own_stop if isinstance(own_stop, list) else [] if own_stop is None else [own_stop]
    generation.eos_token_id = list(dict.fromkeys([*stop_ids, *others]))
    generation.pad_token_id = tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.bos_token_id
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            if isinstance(config.target_modules, set):  # whose order is another in every process
                config.target_modules = sorted(config.target_modules)
        # embeddings do not change with an adapter, and "auto" would ask the hub whether they did
        model.save_pretrained(str(folder), save_embedding_layers=False)
        generation.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model_info(model: CausalModel, kind: str = "") -> dict[str, Any]:
    """The `model` part of result.json."""
    inner = unwrap(model)
    config = inner.config.get_text_config()
    adapter = isinstance(model, PeftModel)
    return {
        "kind": kind or ("adapter" if adapter else "full"),
        "parameters": sum(map(numbers_in, model.parameters())),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "context": context_of(model),
        "vocabulary": config.vocab_size,
        "base": inner.config._name_or_path,
        "facts": facts_of_config(inner.config.to_dict()).model_dump(),
    }


def context_of(model: CausalModel) -> int:
    """The most tokens the model was made for."""
    return int(getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", 1 << 30))


def state_width(model: CausalModel) -> int:
    """H, the length of the last hidden states; OPT's may be another than its layers'."""
    return int(unwrap(model).get_output_embeddings().weight.shape[1])


def context_named(source: str) -> int:
    """The same of a folder or hub name, from its config alone. Raises InputError."""
    base = adapter_base(source) or source
    check_source(base, "model")
    try:
        config = AutoConfig.from_pretrained(base)
    except DAMAGE as error:
        raise damaged_folder(base, "model", error) from error
    return int(getattr(config.get_text_config(), "max_position_embeddings", 1 << 30))


def unwrap(model: CausalModel) -> PreTrainedModel:
    """The transformers model; an adapter's layers stay inside it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
