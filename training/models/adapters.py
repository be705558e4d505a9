"""LoRA adapters over a model (Hu et al. 2021, arXiv:2106.09685): made from settings, read from a folder, merged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.contract import InputError, LoraSettings, LoraWithDropoutSettings, names_in
from training.models.checks import DAMAGE, damaged_folder
from training.models.token_rows import forget_untrained, has_token_rows, place_rows, token_rows

POLICY: Final = "default"  # PEFT's name of the adapter that a model begins with
PEFT_TIES: Final = frozenset({"embed_tokens", "lm_head"})  # the names by which PEFT knows shared embeddings


# ------------------------------------------------------------------------------------------------------ making, reading


def add_adapter(model: PreTrainedModel, lora: LoraSettings) -> PeftModel:
    """The model with a new adapter, which alone learns, in fp32. Raises InputError where the settings do not fit it."""
    targets: str | list[str] = lora.targets if lora.targets == "all-linear" else names_in(lora.targets)
    tied = tied_modules(model)
    if tied_targets := [name for name in targets if name.split(".")[-1] in tied] if isinstance(targets, list) else []:
        raise InputError(
            f"lora.targets: {' and '.join(sorted(tied))} share their weights in this model, so an adapter on "
            f"{' or '.join(tied_targets)} could not be merged into it; take other modules",
            code="config_invalid",
        )
    whole = names_in(lora.modules_to_save)
    check_saved_modules(model, whole, tied)
    if shared := tied & set(whole):  # one matrix learns, in both places
        whole = [*(name for name in whole if name not in shared), "embed_tokens"]
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout if isinstance(lora, LoraWithDropoutSettings) else 0.0,
        target_modules=targets,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        modules_to_save=whole or None,
        trainable_token_indices=token_rows(
            model, [*whole, *(targets if isinstance(targets, list) else [])], tied=bool(tied)
        ),
        ensure_weight_tying=bool(shared),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, settings)
    except ValueError as error:
        raise InputError(f"lora.targets: {error}", code="config_invalid") from error
    learn_in_fp32(adapted, POLICY)
    place_rows(adapted)
    return adapted


def check_saved_modules(model: PreTrainedModel, names: list[str], tied: set[str]) -> None:
    """Raises InputError for a name that is no embedding or linear layer of the model."""
    for name in names:
        modules = [module for path, module in model.named_modules() if f".{path}".endswith(f".{name}")]
        if not modules:
            raise InputError(f"lora.modules_to_save: this model has no {name}", code="config_invalid")
        if any(not module.weight.is_floating_point() for module in modules if isinstance(module, nn.Linear)):
            raise InputError(
                f"lora.modules_to_save: {name} is in 4 bits, which do not learn; leave it or load_in_4bit out",
                code="config_invalid",
            )
        if not all(isinstance(module, nn.Embedding | nn.Linear) for module in modules):
            raise InputError(
                f"lora.modules_to_save: {name} is neither an embedding nor a linear layer; only these can learn whole "
                "beside an adapter",
                code="config_invalid",
            )
    if tied & set(names) and not tied <= PEFT_TIES:
        raise InputError(
            f"lora.modules_to_save: {' and '.join(sorted(tied))} share their weights in this model, which PEFT cannot "
            "keep together; train every weight, or leave them out",
            code="config_invalid",
        )


def read_adapter(model: PreTrainedModel, source: str, lora: LoraSettings | None = None) -> PeftModel:
    """The model with the adapter of a folder, which goes on learning where `lora` is given. Raises InputError if it is
    damaged, or the settings ask for what it was made without."""
    try:
        adapted = PeftModel.from_pretrained(model, source, is_trainable=lora is not None)
        restore_saved_modules(adapted, source, POLICY)
        place_rows(adapted)
    except DAMAGE as error:
        raise damaged_folder(source, "adapter", error) from error
    if lora is not None:
        check_made_with(adapted.peft_config[POLICY], lora, source)
    return adapted


def check_made_with(made_with: Any, lora: LoraSettings, source: str) -> None:
    """Raises InputError for a setting that would do nothing: an adapter goes on learning as it was made."""
    for name in ("use_dora", "use_rslora", "modules_to_save"):
        if getattr(lora, name) and not getattr(made_with, name, None):
            raise InputError(
                f"lora.{name}: {source} is an adapter that was made without it and goes on as it was; leave it out",
                code="config_invalid",
            )


def check_copied(model: PeftModel) -> None:
    """Before the adapter gets a copy, as a reference. Raises InputError where PEFT would part what it shares."""
    if getattr(model.peft_config[POLICY], "ensure_weight_tying", False):
        raise InputError(
            "lora.modules_to_save: this model shares its embeddings between both its ends, which PEFT would part in "
            "the copy of the adapter that is the reference here; learn them by SFT and set lora.rank to 0, or leave it "
            "out",
            code="config_invalid",
        )


def restore_saved_modules(model: PeftModel, source: str, name: str) -> None:
    """The whole modules of an adapter `name` as its folder has them, in fp32; PEFT rounds them to the base's dtype."""
    if not saved_modules(model, name):
        return
    learn_in_fp32(model, name)
    with safe_open(Path(source) / "adapter_model.safetensors", framework="pt", backend="pread") as file:
        stored = {key.replace(".modules_to_save.", "."): key for key in file.keys()}  # noqa: SIM118 (no mapping)
        for path, module in saved_modules(model, name):
            for part, parameter in module.named_parameters():
                if key := stored.get(f"{path}.{part}"):
                    parameter.data.copy_(file.get_tensor(key))


def saved_modules(model: PeftModel, name: str) -> list[tuple[str, nn.Module]]:
    """The modules that learn whole with the adapter `name`, by the path of what they take the place of."""
    return [(path, wrapper.modules_to_save[name]) for path, wrapper in wrappers_of(model, name)]


def wrappers_of(model: PeftModel, name: str) -> Iterator[tuple[str, ModulesToSaveWrapper]]:
    for path, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and name in module.modules_to_save:
            yield path, module


def learn_in_fp32(model: PeftModel, name: str) -> None:
    """What learns whole keeps its numbers in fp32 and gives the base's dtype, as PEFT's LoRA layers do."""
    for _, wrapper in wrappers_of(model, name):
        module, dtype = wrapper.modules_to_save[name], wrapper.original_module.weight.dtype
        if dtype != torch.float32:
            kind = type(module)
            module.__class__ = type(f"Fp32{kind.__name__}", (GivesDtype, kind), {})
            module.given_dtype = dtype
        for parameter in module.parameters():
            parameter.data = parameter.data.float()


class GivesDtype(nn.Module):
    """Before an embedding or linear layer in the order of inheritance: it computes in its own dtype and gives another
    one."""

    given_dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x.float() if x.is_floating_point() else x)
        return output.to(self.given_dtype)


def tied_modules(model: PreTrainedModel) -> set[str]:
    """The names of input and output embeddings where both are one matrix; nothing if they are two."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is not getattr(embedding, "weight", embedding):
        return set()
    return {name.split(".")[-1] for name, module in model.named_modules() if module is embedding or module is head}


# -------------------------------------------------------------------------------------------------------------- merging


def merged(model: PeftModel, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model with its adapter's change added to its weights. Sums are made in fp32 and rounded once to what the
    weights have, or none of them if `dtype` is float32, which every weight then is.

    Embeddings that the model shares between both its ends part first where the adapter changes one of them.
    """
    inner, learned_rows = model.get_base_model(), has_token_rows(model)
    if dtype is not None:
        for parameter in inner.parameters():  # not .to(dtype), which would round the rotary frequencies, too
            parameter.data = parameter.data.to(dtype)
    ends = [inner.get_input_embeddings(), inner.get_output_embeddings()]
    embedding, head = (getattr(end, "base_layer", end) for end in ends)
    if any(hasattr(end, "base_layer") for end in ends) and embedding.weight is head.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    for module in list(adapted_layers(inner)):
        base = module.get_base_layer()
        original = base.weight.dtype
        base.float()
        module.merge()
        base.to(original)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All adapters are already merged")
        whole: PreTrainedModel = model.merge_and_unload()
    if learned_rows:
        forget_untrained(whole)
    for module in whole.modules():
        if isinstance(module, GivesDtype):
            module.__class__ = type(module).__bases__[1]  # as it was before it got one
            module.to(module.given_dtype if dtype is None else dtype)
    return whole


def adapted_layers(model: nn.Module) -> Iterator[Any]:
    """The layers with LoRA on a weight in less than fp32."""
    for module in model.modules():
        if isinstance(module, LoraLayer) and module.get_base_layer().weight.dtype in (torch.bfloat16, torch.float16):
            yield module
