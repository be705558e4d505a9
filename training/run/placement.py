"""Where the base of an adapter is, once both have moved.

A store keeps its models side by side, each in a folder named by its content: `models/<32 hex digits>`. So a base is
found beside its adapter, whatever absolute path the adapter was trained with; a store that was moved works, and a copy
of one never reads its original. No torch here.
"""

from __future__ import annotations

import re
from pathlib import Path

STORED = re.compile(r"(?P<root>[^,]*?/)?(?P<name>models/[0-9a-f]{32})(?=[/,]|$)")


def place_base(base: str, adapter: str) -> str:
    """The base that an adapter folder names as `base`: beside the adapter where both are in a store, relative to it
    where it is written so, else `base` as it is, a folder or the name of a hub's model."""
    folder = Path(adapter).resolve()
    if in_store(base) and in_store(str(folder)):
        return str(folder.parent / Path(base).name)
    if base.startswith(("./", "../")):
        return str((folder / base).resolve())
    return base


def in_store(path: str) -> bool:
    return bool(STORED.fullmatch(path.rstrip("/")))


def without_root(value: object) -> object:
    """A setting as it is compared after a move: models of a store without the path that led to it."""
    return STORED.sub(lambda found: found["name"], value) if isinstance(value, str) else value
