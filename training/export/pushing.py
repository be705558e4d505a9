"""An export on its way to the Hugging Face hub: as one commit, private unless the person says otherwise.

Files go by the hub's plain HTTP protocol, because its other one (Xet) reads files by itself: it neither tells how far
it is nor can be stopped. A file that the hub has already, as after a stop, is not sent again.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from training.contract import InputError
from training.models.hub import is_own

Step = Callable[[str, int, int], None]
"""Is told of a phase, the bytes that are done in it, and of how many; it may raise."""
WEIGHT_FILES: Final = re.compile(r"(adapter_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


class CountedFile(io.BufferedReader):
    """A file that tells how far it was read, and of which phase that is: the hub's library reads it twice."""

    def __init__(self, path: Path, told: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self.told = told

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.told(self.tell())
        return block


def push(folder: Path, repository: str, *, public: bool, token: str, message: str, step: Step) -> str:
    """Make the files of a folder a commit of a model repository, which is created where there is none. The address of
    the commit.

    Raises InputError that says what to do where the hub, or the way there, refuses, and where a repository that is
    public already would make a private model public.
    """
    api = HfApi(token=token or False)
    with push_errors(repository), ExitStack() as opened:
        if not token:
            raise InputError(
                "there is no token of the Hugging Face hub; store one with write access on your profile page",
                code="hub_refuses",
            )
        check_role(api)
        present = ready_repository(api, repository, public)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {path.relative_to(folder).as_posix(): path for path in files}
        total, before = sum(path.stat().st_size for path in files), 0
        additions = []
        for name, path in names.items():
            file = opened.enter_context(CountedFile(path, teller("reading MB", before, total, step)))
            additions.append((CommitOperationAdd(name, file), file))
            before += path.stat().st_size
        sent = 0
        for addition, file in additions:
            file.told = teller("pushing MB", sent, total, step)
            api.preupload_lfs_files(repository, [addition], num_threads=1, free_memory=False)
            sent += addition.upload_info.size
        operations: list[CommitOperationAdd | CommitOperationDelete] = [operation for operation, _ in additions]
        operations += [CommitOperationDelete(name) for name in replaced_weights(present, set(names))]
        commit = api.create_commit(repository, operations, commit_message=message)
        step("pushing MB", total, total)
        return str(commit.commit_url)


def teller(phase: str, before: int, total: int, step: Step) -> Callable[[int], None]:
    return lambda within: step(phase, before + within, total)


def check_role(api: HfApi) -> None:
    """Raises InputError for a token that can only read. Fine-grained ones are asked by trying."""
    role = api.whoami().get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError(
            "your token of the Hugging Face hub can only read; make one with write access on huggingface.co, and store "
            "it on your profile page",
            code="hub_refuses",
        )


def ready_repository(api: HfApi, repository: str, public: bool) -> list[str]:
    """The files of the repository, which is made where it is missing."""
    try:
        info = api.model_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=not public)
        return []
    if not info.private and not public:
        raise InputError(
            f"{repository} is public on the hub, and this export was to be private; make the repository private there, "
            "name another one, or turn “public” on",
            code="hub_refuses",
        )
    return [sibling.rfilename for sibling in info.siblings or []]


def replaced_weights(present: list[str], pushed: set[str]) -> list[str]:
    """Weights of an earlier push that would stand beside the new ones, such as a third shard of two."""
    if not any(WEIGHT_FILES.fullmatch(name) for name in pushed):
        return []
    return [name for name in present if WEIGHT_FILES.fullmatch(name) and name not in pushed]


@contextmanager
def push_errors(repository: str) -> Iterator[None]:
    """Turns what the hub, or the way there, refuses into an InputError. What `step` raises passes through."""
    try:
        yield
    except Exception as error:
        first = cause_of(error)
        if is_own(first):
            raise first from None
        raise InputError(
            f"{sentence(first, repository)}; the export itself is done: resume the run to push it again",
            code="hub_refuses",
        ) from error


def cause_of(error: Exception) -> Exception:
    """What the hub's library wrapped into an error of its own."""
    while isinstance(error.__cause__, Exception) and type(error) is RuntimeError:
        error = error.__cause__
    return error


def sentence(error: Exception, repository: str) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set on the training machine, so nothing can be pushed"
    if status == 401:
        return "the hub does not know your token (any more); store another one on your profile page"
    if status == 403:
        account = repository.partition("/")[0]
        return (
            f"your token may not write to {repository}; give it write access to {account} on huggingface.co, or name a "
            "repository of your own"
        )
    if status == 404:
        return f"{repository}: the hub has no such account, or hides it from you"
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return f"the hub cannot be reached or refuses {repository} ({reason})"
