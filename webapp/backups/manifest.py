"""What a backup says of itself: what is in it, what that must hash to, and which version can read it."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from training.contract import problems
from webapp.errors import BadInput

MANIFEST = "manifest.json"
DUMP = "database.dump"
FILES = "files"
FORMAT = 1


class BackedUpFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int
    mtime_ns: int  # of the original, by which the next backup knows whether it changed


class Manifest(BaseModel):
    """Written last. Paths of `files` and `references` start at the data folder."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    made_at: str
    tutelage: str
    postgres: str
    migrations: dict[str, list[str]]  # by app
    rows: dict[str, int]  # by table
    references: list[str]  # files that the database names
    outside: list[str] = []  # stores that are no part of this backup
    dump: BackedUpFile
    files: dict[str, BackedUpFile]

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(self.model_dump_json(indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises BadInput with a sentence."""
        try:
            content = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError as error:
            raise BadInput(
                f"{folder} is not a backup: it has no {MANIFEST}. Name a folder that manage.py backup made."
            ) from error
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder / MANIFEST} cannot be read ({error}). Take another backup.") from error
        if isinstance(content, dict) and content.get("format", 0) > FORMAT:
            raise BadInput(f"{folder} was made by a newer Tutelage ({content.get('tutelage')}). Install that version.")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            wrong = problems(error.errors(), cls)[0].sentence
            raise BadInput(f"{folder / MANIFEST} is damaged ({wrong}). Take another backup.") from error


def tutelage_version() -> str:
    try:
        return version("tutelage")
    except PackageNotFoundError:
        return "from source"


def newest_backup(folder: Path) -> Path:
    """The backup that `folder` is, or the newest of those in it. Raises BadInput."""
    if (folder / MANIFEST).exists():
        return folder
    if backups := backups_in(folder):
        return backups[-1]
    raise BadInput(f"There is no backup in {folder}. Name the folder that manage.py backup was given.")


def backups_in(folder: Path) -> list[Path]:
    """Whole backups, the oldest first; their names are their times."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{MANIFEST}"))
