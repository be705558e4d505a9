"""Weights in 4 bits, by the optional library bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig

from training.contract import InputError
from training.distributed.launch import is_sharded


def bitsandbytes(wanted_by: str) -> Any:
    """The library. Raises InputError, in which `wanted_by` names the setting, if it is not there or cannot start."""
    try:
        return importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"{wanted_by} needs the library bitsandbytes, which this training machine does not have ({error}); install "
            "it there (pip install bitsandbytes), or leave the setting out",
            code="no_library",
        ) from error


def four_bit_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with scales that are quantized too, as QLoRA; products in `dtype`. Raises InputError."""
    if is_sharded():
        raise InputError(
            "lora.load_in_4bit: weights in 4 bits cannot be sharded (FSDP); compute without it, or leave it out",
            code="config_invalid",
        )
    bitsandbytes("lora.load_in_4bit")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def is_quantized(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False))


def numbers_in(parameter: Tensor) -> int:
    """How many numbers a parameter holds; one in 4 bits has two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()
