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

from training.kernels.signatures import read_signatures

HERE: Final = Path(__file__).parent
SOURCE: Final = HERE / "kernels.cpp"
AMX_SOURCE: Final = HERE / "amx" / "attention.cpp"
HEADER: Final = HERE / "numbers.h"
FLAGS: Final = (
    "-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared",
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),  # a quarter faster
)  # fmt: skip
NUMBERS: Final = {torch.float32: "float", torch.bfloat16: "uint16_t"}
COMPILER_TIMEOUT: Final = 120.0  # seconds
# In the environment: 0 computes with torch, no-amx leaves out amx/, as-gpu computes on a CPU the way a GPU is used.
SWITCH: Final = "TUTELAGE_KERNELS"

INDEX_OUT_OF_RANGE, BAD_SIZES, NO_MEMORY = 1, 2, 3  # Status in numbers.h

log = logging.getLogger(__name__)


class Library:
    """The functions for activations of one dtype, each checked against its declaration before it is called."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        loaded = ctypes.CDLL(str(path))
        self.dtype = dtype
        self.has_amx = hasattr(loaded, "has_amx") and bool(loaded.has_amx())  # which Linux may refuse
        self.signatures = read_signatures(SOURCE) | (read_signatures(AMX_SOURCE) if self.has_amx else {})
        self.functions: dict[str, Any] = {}
        for name, signature in self.signatures.items():
            function = getattr(loaded, name)
            function.argtypes = signature.argtypes
            self.functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function in as many threads as torch uses. Raises ValueError for a tensor of another dtype, size or
        layout than it takes and for sizes that do not go together, IndexError for an index outside what it points
        into, and MemoryError."""
        status = self.functions[name](*self.signatures[name].checked(arguments, self.dtype), torch.get_num_threads())
        if status == INDEX_OUT_OF_RANGE:
            raise IndexError(f"{name}: an index is out of range")
        if status == BAD_SIZES:
            raise ValueError(f"{name}: the sizes do not go together")
        if status == NO_MEMORY:
            raise MemoryError(f"{name}: not enough memory")


def as_on_gpu(device: str) -> bool:
    """Whether to compute the way a GPU is used: on one or, to test it, on a CPU."""
    return device == "cuda" or os.environ.get(SWITCH) == "as-gpu"


@lru_cache(None)
def library(dtype: torch.dtype) -> Library | None:
    """The functions for activations of `dtype`, or None if there are none."""
    if dtype not in NUMBERS or os.environ.get(SWITCH) in ("0", "as-gpu"):
        return None
    try:
        return Library(compiled_library(NUMBERS[dtype]), dtype)
    except (OSError, subprocess.SubprocessError) as error:
        compiler_output = getattr(error, "stderr", "") or error
        log.warning("computing without compiled kernels, which takes longer: %s", compiler_output)
        return None


def compiled_library(number: str) -> Path:
    """The shared object. Raises OSError or SubprocessError where it cannot be made."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise OSError("there is no C++ compiler (c++)")
    sources = [SOURCE] if os.environ.get(SWITCH) == "no-amx" or not AMX_SOURCE.exists() else [SOURCE, AMX_SOURCE]
    command = [*compiler.split(), *FLAGS, *os.environ.get("CXXFLAGS", "").split(), f"-DNUMBER={number}"]
    made_of = "\0".join([*command, *(path.read_text(encoding="utf-8") for path in (*sources, HEADER)), processor()])
    path = cache_folder() / f"kernels-{number}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            compiled = Path(scratch) / path.name
            subprocess.run(
                [*command, *map(str, sources), "-o", str(compiled)],
                check=True, capture_output=True, text=True, timeout=COMPILER_TIMEOUT,
            )  # fmt: skip
            compiled.replace(path)  # whole or not at all, whichever process comes first
    return path


def cache_folder() -> Path:
    """Where this user's compiled kernels are kept. Raises OSError if another user could write to it, since what is
    in it is run."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user; set XDG_CACHE_HOME to a folder of your own")
    if status.st_mode & 0o022:
        raise PermissionError(f"other users can write to {path}; run: chmod 700 {path}")
    return path


def processor() -> str:
    """What -march=native depends on: a folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
