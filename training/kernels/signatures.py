"""What each C++ function takes, read from its declaration, so that the source and the checks cannot disagree.

A declaration that is checked looks like

    extern "C" Status swiglu(const T *joined /* rows * 2 * width */, Int rows, Int width, T *out /* rows * width */,
                             int threads)

`T` is the dtype of activations, `Int` int64. The comment after a pointer says how many elements it points to, computed
from the Ints of the same call: exactly as many in a contiguous tensor, or "at least" as many in one with strides.
"null or" marks a pointer that may be None.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

DECLARATION: Final = re.compile(r'extern "C" Status (\w+)\((.*?)int threads\)', re.DOTALL)
PARAMETER: Final = re.compile(
    r"\s*(?:const )?(?P<type>float|Int|int8_t|T|Tensor3) (?P<pointer>\*?)(?P<name>\w+)"
    r"(?: /\* (?P<null>null or )?(?P<least>at least )?(?P<elements>[\w\s()*+/-]+?) \*/)?,"
)
DTYPES: Final = {
    "float": torch.float32,
    "Int": torch.int64,
    "int8_t": torch.int8,
}  # T is what the library is compiled for
VALUES: Final = {"float": ctypes.c_float, "Int": ctypes.c_int64}
WORDS: Final = {"Int": 1, "Tensor3": 3}  # of 64 bits in an element of an array that is no tensor
NO_BUILTINS: Final[dict[str, Any]] = {"__builtins__": {}}


class Parameter(NamedTuple):
    name: str
    type: str
    pointer: bool
    optional: bool
    strided: bool
    elements: str  # how many it points to, an expression of the Ints


class Signature:
    """Checks arguments. Short on purpose: a decoding step makes some hundred calls of 10 microseconds each."""

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        self.name, self.parameters = name, tuple(parameters)
        self.argtypes = [ctypes.c_void_p if x.pointer else VALUES[x.type] for x in parameters] + [ctypes.c_int]
        self.pointers = [(i, x, DTYPES.get(x.type)) for i, x in enumerate(parameters) if x.pointer]
        self.sizes = [i for i, x in enumerate(parameters) if x.type == "Int" and not x.pointer]
        names = ", ".join(parameters[i].name for i in self.sizes)
        counts = ", ".join(x.elements for _, x, _ in self.pointers)
        self.counts: Any = eval(f"lambda {names}: ({counts},)", NO_BUILTINS)  # noqa: S307 (of our own source)

    def checked(self, arguments: Sequence[Any], dtype: torch.dtype) -> list[Any]:
        """The arguments as ctypes takes them. Raises ValueError, naming the argument, unless every tensor is on the
        CPU, of its dtype and of its size."""
        if len(arguments) != len(self.parameters):
            raise ValueError(f"{self.name} takes {len(self.parameters)} arguments, got {len(arguments)}")
        values = list(arguments)
        sizes = [values[i] for i in self.sizes]
        if min(sizes) < 0:
            i = next(i for i in self.sizes if values[i] < 0)
            raise ValueError(f"{self.name}: {self.parameters[i].name} is {values[i]}")
        for (i, parameter, fixed), count in zip(self.pointers, self.counts(*sizes), strict=True):
            x, expected_dtype = values[i], fixed or dtype
            if x is None and parameter.optional:
                continue
            if not isinstance(x, Tensor):
                if problem := array_problem(x, count * WORDS.get(parameter.type, 1)):
                    raise ValueError(f"{self.name}: {parameter.name} {problem}")
            elif x.dtype is expected_dtype and x.is_cpu and x.numel() == count and x.is_contiguous():
                values[i] = x.data_ptr()
            elif problem := tensor_problem(x, expected_dtype, count, parameter.strided):
                raise ValueError(f"{self.name}: {parameter.name} {problem}")
            else:
                values[i] = x.data_ptr()
        return values


def array_problem(x: object, count: int) -> str:
    """Why x is not an array of `count` whole numbers, or "" if it is."""
    if x is None:
        return "is missing"
    if not isinstance(x, ctypes.Array) or x._type_ is not ctypes.c_int64:
        return f"is a {type(x).__name__}"
    return "" if len(x) == count else f"has {len(x)} numbers, not {count}"


def tensor_problem(x: Tensor, dtype: torch.dtype, count: int, strided: bool) -> str:
    """Why x is not what a function takes, or "" if it is."""
    if x.dtype is not dtype:
        return f"is {x.dtype}, not {dtype}"
    if not x.is_cpu:
        return f"is on {x.device}, not on the CPU"
    if strided:
        room = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
        return f"has room for {room} numbers, not {count}" if room < count else ""
    if x.numel() != count:
        return f"has {x.numel()} numbers, not {count}"
    return "" if x.is_contiguous() else "is not contiguous"


def read_signatures(source: Path) -> dict[str, Signature]:
    """The checked functions that a C++ file declares. Raises ValueError for a declaration that cannot be checked."""
    declarations = DECLARATION.findall(source.read_text(encoding="utf-8"))
    return {name: Signature(name, list(_parameters(name, listed))) for name, listed in declarations}


def _parameters(function: str, listed: str) -> Iterator[Parameter]:
    if unread := PARAMETER.sub("", listed).strip():
        raise ValueError(f"{function}: cannot read {unread!r}")
    matches = list(PARAMETER.finditer(listed))
    sizes = {match["name"] for match in matches if match["type"] == "Int" and not match["pointer"]}
    for match in matches:
        pointer, elements = bool(match["pointer"]), " ".join((match["elements"] or "").split())
        if pointer and not elements:
            raise ValueError(f"{function}: the declaration does not say how many numbers {match['name']} points to")
        if unknown := set(re.findall(r"[a-z_]\w*", elements)) - sizes:
            raise ValueError(f"{function}: the size of {match['name']} depends on {', '.join(sorted(unknown))}")
        yield Parameter(match["name"], match["type"], pointer, bool(match["null"]), bool(match["least"]), elements)
