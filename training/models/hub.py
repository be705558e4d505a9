"""Fetching a model from the Hugging Face hub into a folder, piece by piece: with progress, and resumed where it ended.

The hub's own library begins a file again that was not finished, and would keep every model a second time in its cache.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils._headers import build_hf_headers
from tqdm.auto import tqdm

from training.contract import GGUF, InputError, hub_place, wanted_files
from training.models.model_files import check_room, copy_file
from training.run.checkpoints import Stopped

INCOMPLETE: Final = ".incomplete"
Step = Callable[[int, int], None]  # bytes that are there, and in all; it may raise


def fetch_from_hub(name: str, revision: str, target: Path, step: Step) -> Path:
    """Fetch the files of a model below `target`; those that are there already are not fetched again. The folder, or the
    GGUF file if the name or the repository means one.

    Raises InputError if the hub, or the way there, refuses, or if there is nothing to take.
    """
    repository, file = hub_place(name) or (name, "")
    with hub_errors(name):
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
    siblings = info.siblings or []
    names = set(wanted_files(name, file, [sibling.rfilename for sibling in siblings]))
    needed_files = [sibling for sibling in siblings if sibling.rfilename in names]
    folder = target / (info.sha or "newest")
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(sibling.size or 0 for sibling in needed_files)
    present = sum(part.stat().st_size for part in folder.iterdir())
    check_room(folder, total - present, "to fetch it")
    done = 0
    for sibling in needed_files:
        with hub_errors(name):
            fetch_file(repository, info.sha, sibling, folder, after(done, total, step))
        done += sibling.size or 0
    step(done, total)
    gguf = next((sibling.rfilename for sibling in needed_files if sibling.rfilename.lower().endswith(GGUF)), "")
    return folder / gguf


def after(before: int, total: int, step: Step) -> Callable[[int], None]:
    """Told of a file's bytes, says how many there are with those of the files before it."""
    return lambda within: step(before + within, total)


def fetch_file(
    repository: str, revision: str | None, sibling: RepoSibling, folder: Path, step: Callable[[int], None]
) -> None:
    """Fetch one file, from the byte where an earlier process stopped. Its sha256 is checked where the hub says it."""
    target = folder / sibling.rfilename
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    cached = try_to_load_from_cache(repository, sibling.rfilename, revision=revision)
    if isinstance(cached, str):
        partial = target.with_name(target.name + INCOMPLETE)
        copy_file(Path(cached), partial, lambda _: step(0))
        partial.rename(target)
        return
    partial = target.with_name(target.name + INCOMPLETE)
    with partial.open("ab") as content:
        present = content.tell()
        if sibling.size is not None and present > sibling.size:
            content.truncate(present := 0)
        http_get(
            hf_hub_url(repository, sibling.rfilename, revision=revision),
            content,
            resume_size=present,
            headers=build_hf_headers(),
            expected_size=sibling.size,
            tqdm_class=reporting_bar(present, step),
        )
    check_hash(partial, sibling)
    partial.rename(target)


def check_hash(path: Path, sibling: RepoSibling) -> None:
    """Raises OSError, and forgets the file, if it is not what the hub says."""
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    if not sha256:
        return
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != sha256:
        path.unlink()
        raise OSError(f"{sibling.rfilename} was damaged on its way; resume the run to fetch it again")


def reporting_bar(present: int, step: Callable[[int], None]) -> type[Any]:
    """A progress bar, as the hub's library wants one, that draws nothing."""

    class Bar(tqdm):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(disable=True)
            self.bytes_there = present

        def update(self, n: float | None = 1) -> None:
            self.bytes_there += int(n or 0)
            step(self.bytes_there)

    return Bar


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turns what the hub, or the way there, refuses into an InputError. What `step` raises passes through."""
    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{name}: its authors let only people who accepted its license download it; accept it on the hub, and "
            "store a token of yours on your profile page (or give the training worker one in HF_TOKEN)",
            code="no_model",
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{name}: the hub has no such model", code="no_model") from error
    except Exception as error:  # the hub's library raises those of its HTTP client as they are
        if is_own(error):
            raise
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise InputError(f"{name}: the hub cannot be reached or refuses ({reason})", code="no_model") from error


def is_own(error: Exception) -> bool:
    """Whether this side raised it: a stop, a full disk, or an InputError."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, (InputError, Stopped))
