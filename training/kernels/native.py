"""The C++ beside this as functions of tensors: compiled for this machine's processor when first wanted, and kept.

A machine without a C++ compiler, or without OpenMP, has no such functions: `library` is then None, and callers compute
with torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

HERE: Final = Path(__file__).parent
SOURCES: Final = (HERE / "kernels.cpp", HERE / "attention.cpp")
READ: Final = (*SOURCES, HERE / "numbers.h")
FLAGS: Final = (
    "-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared",
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),  # a quarter faster
)  # fmt: skip
NUMBERS: Final = {torch.float32: "float", torch.bfloat16: "uint16_t"}
SECONDS: Final = 120.0  # that a compiler may take
OFF: Final = "TUTELAGE_KERNELS"  # 0 in the environment: compute with torch

# Of each function: p a tensor, an array or None, f a number, n a whole number. The number of threads comes last.
PARAMETERS: Final = {
    "norm": "ppfnnpp",
    "add_norm": "ppppfnnppp",
    "norm_backward": "pppppnnpppp",
    "swiglu": "pnnp",
    "swiglu_backward": "ppnnp",
    "rotate": "pppnnnnf",
    "attention_backward": "pppnnnf",
    "read_logits": "ppfnnppp",
    "read_logits_backward": "ppppppfnn",
    "take": "ppfpppnnnnnpp",
    "look": "ppppfnnnnnp",
    "draw": "pppnnppp",
}
TILED: Final = {"attend": "ppnnnnnfp", "attend_backward": "ppnnnnnfp"}  # where the processor has AMX, in bfloat16
TYPES: Final = {"p": ctypes.c_void_p, "f": ctypes.c_float, "n": ctypes.c_int64}

log = logging.getLogger(__name__)


class Library:
    """The functions for activations of one dtype."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        self.functions: dict[str, Any] = {}
        self.tiles = bool(loaded.has_tiles())  # which Linux may refuse
        for name, parameters in (PARAMETERS | TILED if self.tiles else PARAMETERS).items():
            function = getattr(loaded, name)
            function.restype = None
            function.argtypes = [*(TYPES[kind] for kind in parameters), ctypes.c_int]
            self.functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function in as many threads as torch uses. The caller answers for shapes, dtypes and density."""
        self.functions[name](
            *[x.data_ptr() if isinstance(x, Tensor) else x for x in arguments], torch.get_num_threads()
        )


@lru_cache(None)
def library(dtype: torch.dtype) -> Library | None:
    """The functions for activations of `dtype`, or None where there are none."""
    if dtype not in NUMBERS or os.environ.get(OFF) == "0":
        return None
    try:
        return Library(built(NUMBERS[dtype]))
    except (OSError, subprocess.SubprocessError) as error:
        compiler_output = getattr(error, "stderr", "") or error
        log.warning("computing without compiled kernels, which takes longer: %s", compiler_output)
        return None


def built(number: str) -> Path:
    """The shared object. Raises OSError or SubprocessError where it cannot be made."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise OSError("there is no C++ compiler (c++)")
    command = [compiler, *FLAGS, f"-DNUMBER={number}", *map(str, SOURCES)]
    made_of = "\0".join([*command, *(path.read_text(encoding="utf-8") for path in READ), processor()])
    path = folder() / f"kernels-{number}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            compiled = Path(scratch) / path.name
            subprocess.run([*command, "-o", str(compiled)], check=True, capture_output=True, text=True, timeout=SECONDS)
            compiled.replace(path)  # whole or not at all, whichever process comes first
    return path


def folder() -> Path:
    """Where this user's compiled kernels are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "tutelage"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def processor() -> str:
    """What -march=native depends on: a folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
