"""Stopping a run, and going on with it from its newest checkpoint."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from training.contract import CONFIG, DATA, Checkpoint, InputError, Settings
from training.distributed.launch import world_size
from training.run.durable import file_sha256, remove
from training.run.placement import without_root
from training.run.reporting import ProgressCallback, ReportingRun

S = TypeVar("S", bound=Settings)
STATE: Final = "run.json"
# A change of these does not change what is learned, so a run may go on from its checkpoint with another value.
HARMLESS: Final = {
    "minutes",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "tensorboard",
    "report_to",
    "report_project",
}


class Stopped(Exception):
    """Raised if the run, asked to stop, has written what it needs to go on."""


class ResumableRun(ReportingRun[S]):
    """A run that can be stopped at any step and goes on from its newest checkpoint."""

    def stop_if_asked(self, step: int = 0, save: Callable[[int], None] | None = None) -> None:
        """After SIGTERM leave: with a checkpoint of `step`, where the stage can `save` one, else to start over."""
        if self.stopping:
            self.stop(step, save)

    def stop(self, step: int = 0, save: Callable[[int], None] | None = None) -> None:
        """Leave as `stop_if_asked` does. Raises Stopped."""
        if save is not None and self.saved != step:
            save(step)
        raise Stopped

    def measuring(self, phase: str, *, stops: bool = True) -> ProgressCallback:
        """For a measurement to tell how far it is. With `stops`, telling raises Stopped when the run was asked to
        stop; not where several processes measure, which would wait for the one that left."""

        def on_progress(done: int, total: int) -> None:
            self.progress(done, total, phase)
            if stops and world_size() == 1:
                self.stop_if_asked()

        return on_progress

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """A folder to write the state after `step` steps into; it becomes checkpoint-<step> when the block ends."""
        name = f"checkpoint-{step}"
        with self.writing(name) as folder:
            yield folder
            state = {
                "step": step,
                "config": self._lasting_config(),
                "data": self._data_fingerprint(),
                **self.spent(),
                "files": sizes(folder),
            }
            (folder / STATE).write_text(json.dumps(state))
        self.saved = step
        self._emit(Checkpoint(time=self._clock(), step=step, folder=name))
        # Later ones than this are those that could not be read: they must not count as kept.
        readable = [path for path in self._checkpoint_folders() if step_of(path) <= step]
        for old in {*self._checkpoint_folders()} - {*readable[: getattr(self.config, "keep_checkpoints", 1)]}:
            remove(old)

    def resume(self, load: Callable[[Path], None], first_step: int = 0) -> int:
        """Load the newest checkpoint of step `first_step` or later that can be read, and return its step; if there
        is none, `first_step`.

        `load` must read its file whole before it changes anything. Raises InputError if config.json or the data
        are not those the checkpoint was made with.
        """
        if self._board is None:
            self._first = first_step
        for folder in self._checkpoint_folders():
            try:
                state = json.loads((folder / STATE).read_text())
                self._hold_against_checkpoint(folder, state)
                if step_of(folder) < first_step:
                    break
                if sizes(folder) != state["files"] | {STATE: (folder / STATE).stat().st_size}:
                    raise OSError("a file is missing or cut short")
                load(folder)
            except (OSError, ValueError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
                self.warn(f"{folder.name} cannot be read and is passed over: {error}")
                continue
            self.go_on_after(state)
            self._first = state["step"] + 1
            self.saved = int(state["step"])
            return self.saved
        return first_step

    def _checkpoint_folders(self) -> list[Path]:
        """Newest first."""
        folders = [path for path in self.folder.glob("checkpoint-*") if path.name.split("-")[1].isdecimal()]
        return sorted(folders, key=step_of, reverse=True)

    def _hold_against_checkpoint(self, folder: Path, state: dict[str, Any]) -> None:
        config, written = self._lasting_config(), self._as_written_today(state["config"])
        keys = config.keys() | written.keys()
        changed = sorted(key for key in keys if without_root(config.get(key)) != without_root(written.get(key)))
        if changed:
            changes = f"{', '.join(changed)} in {CONFIG} changed"
        elif state["data"] != self._data_fingerprint():
            changes = f"the rows in {DATA}/ changed"
        else:
            return
        raise InputError(
            f"{self.folder}: {changes} since {folder.name} was written; put it back to go on, or start a new folder",
            code="run_changed",
        )

    def _as_written_today(self, config: dict[str, Any]) -> dict[str, Any]:
        """The config of a checkpoint, which an earlier version may have written: with the settings that have come since
        at their defaults, and without those that are gone."""
        try:
            return type(self.config).model_validate(config).model_dump(mode="json", exclude=HARMLESS)
        except ValueError:  # it has a setting or a value that is not taken anymore
            return config

    def _lasting_config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude=HARMLESS)

    def _data_fingerprint(self) -> str:
        if not self._fingerprint:
            digest = hashlib.sha256()
            for path in sorted((self.folder / DATA).glob("*.jsonl")):
                digest.update(f"{path.name} {file_sha256(path)}\n".encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in the folder, by its path there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
