"""How the database names files of the artifact store, so that the data folder can be moved, copied and restored.

What lies in the data folder is named by its path from there (`artefacts/models/…`), what lies anywhere else by its
whole fsspec address (`s3://…`).
"""

from __future__ import annotations

import re
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*::?//|[a-z][a-z0-9+.-]*::", re.IGNORECASE)
IN_A_STORE = re.compile(r"/(?P<root>artefacts)/(?P<rest>(?:models|snapshots|outputs)/.+)")


def stored(address: str, home: Path) -> str:
    """The name that the database keeps of an fsspec address or a local path."""
    path = local_path(address) if address else None
    if path is None:
        return address
    for form in (path, path.resolve()):
        if form.is_relative_to(home):
            return form.relative_to(home).as_posix()
    return address


def resolved(name: str, home: Path) -> str:
    """The fsspec address that a name of the database stands for."""
    return name if SCHEME.match(name) or name.startswith("/") else f"file://{home}/{name}"


def local_path(address: str) -> Path | None:
    """The path of a `file://` address or a plain one; None for other stores."""
    if SCHEME.match(address) and not address.startswith(("file://", "local://")):
        return None
    return Path(LocalFileSystem._strip_protocol(address))


def adopted(address: str, home: Path, store: str) -> str:
    """`stored` for an address written before names were relative, perhaps when the data folder was elsewhere.

    `store` is where models go now. An address of another data folder becomes one of this folder, whether the file is
    here or not: a copy must never read its original. Where models go to a store outside, only what is here is ours.
    """
    name = stored(address, home)
    match = IN_A_STORE.search(address) if name == address and local_path(address) is not None else None
    if match is None:
        return name
    here = f"{match['root']}/{match['rest']}"
    old_home = local_path(address[: match.start()]) or home
    moved = is_data_folder(old_home) or not old_home.exists()
    store_is_here = stored(store, home) != store
    return here if (home / here).exists() or (moved and store_is_here) else name


def is_data_folder(folder: Path) -> bool:
    return (folder / "secret_key").exists() or (folder / "postgres").exists()
