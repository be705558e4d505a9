"""Archives are unpacked without trust in whoever packed them."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from training.contract import InputError
from training.models import archives
from training.models.archives import unpack

CONFIG, WEIGHTS = b"{}", b"numbers" * 100
MODEL = {"smol/config.json": CONFIG, "smol/model.safetensors": WEIGHTS, "smol/README.md": b"a card"}


def packed(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    archive = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path, content in files.items():
                file.writestr(path, content)
    else:
        with tarfile.open(archive, "w:gz" if name.lower().endswith("gz") else "w") as tar:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return archive


def tar_of(archive: Path, entries: Iterable[tarfile.TarInfo]) -> Path:
    with tarfile.open(archive, "w") as tar:
        for entry in entries:
            tar.addfile(entry)
    return archive


def unpacked(archive: Path, target: Path) -> Path:
    target.mkdir()
    return unpack(archive, target, lambda _: None)


@pytest.mark.parametrize("name", ["model.zip", "model.tar", "model.tar.gz", "MODEL.TGZ"])
def test_the_model_s_own_files_come_out_and_nothing_else(tmp_path: Path, name: str) -> None:
    extra = {"smol/modeling_own.py": b"raise SystemExit", "smol/deep/notes.exe": b"x", "__MACOSX/._config.json": b"x"}
    told: list[int] = []
    (tmp_path / "out").mkdir()
    folder = unpack(packed(tmp_path, name, MODEL | extra), tmp_path / "out", told.append)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": CONFIG,
        "model.safetensors": WEIGHTS,
        "README.md": b"a card",
    }
    assert sum(told) >= len(WEIGHTS)
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert not names & {"modeling_own.py", "notes.exe"}


def test_a_model_at_the_top_is_found_too(tmp_path: Path) -> None:
    flat = {path.removeprefix("smol/"): content for path, content in MODEL.items()}
    below = {"onnx/config.json": b"[]"}
    assert (unpacked(packed(tmp_path, "m.zip", below | flat), tmp_path / "out") / "config.json").read_bytes() == CONFIG


@pytest.mark.parametrize(
    "path", ["../config.json", "/etc/config.json", "a/../../config.json", "a\\..\\config.json", "C:/config.json"]
)
@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str, path: str) -> None:
    with pytest.raises(InputError, match="leads out of the folder"):
        unpacked(packed(tmp_path, name, MODEL | {path: b"{}"}), tmp_path / "out")
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("smol/config.json")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match="link or a device"):
        unpacked(tar_of(tmp_path / "m.tar", [entry]), tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("smol/model.safetensors")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as file:
        file.writestr("smol/config.json", "{}")
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(InputError, match="link or a device"):
        unpacked(tmp_path / "m.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_SMALL", 1 << 20)
    bomb = MODEL | {"smol/model-2.safetensors": bytes(4 << 20)}
    with pytest.raises(InputError, match="unpacks to more than"):
        unpacked(packed(tmp_path, name, bomb), tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) < 1 << 20


def test_files_that_are_passed_over_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_SMALL", 1 << 20)
    with pytest.raises(InputError, match="unpacks to more than"):
        unpacked(packed(tmp_path, "m.tar.gz", {"smol/junk.exe": bytes(4 << 20), **MODEL}), tmp_path / "out")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    many = {f"smol/{number}.json": b"{}" for number in range(9)}
    with pytest.raises(InputError, match="more than 5 files"):
        unpacked(packed(tmp_path, "m.zip", many), tmp_path / "out")


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_READ", 1 << 16)
    entry = tarfile.TarInfo("smol/config.json")
    entry.pax_headers = {"comment": "x" * (1 << 18)}
    with tarfile.open(tmp_path / "m.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry)
    with pytest.raises(InputError, match="a header in it is larger"):
        unpacked(tmp_path / "m.tar", tmp_path / "out")


def test_a_full_disk_is_said_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("training.models.model_files.shutil.disk_usage", lambda _: Usage)
    with pytest.raises(InputError, match=r"GB are needed on the training machine's disk to unpack it, and 0.0 GB"):
        unpacked(packed(tmp_path, "m.zip", MODEL), tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"smol/config.json": CONFIG, "smol/pytorch_model.bin": b"pickle"}, "pickle"),
        ({"smol/pytorch_model.bin": b"pickle"}, "pickle"),
        ({"smol/notes.txt": b"hello"}, "there is no config.json in it"),
        ({}, "there is no config.json in it"),
    ],
)
def test_what_is_no_safe_model_is_refused(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    with pytest.raises(InputError, match=words):
        unpacked(packed(tmp_path, "m.zip", files), tmp_path / "out")


def damaged(archive: Path) -> Path:
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 0xFF
    archive.write_bytes(content[: -len(content) // 3])
    return archive


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_damaged_archive_is_said_to_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="this archive is damaged"):
        unpacked(damaged(packed(tmp_path, name, MODEL | {"smol/tokenizer.json": WEIGHTS * 50})), tmp_path / "out")


def test_a_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path, "m.zip", MODEL)
    content = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of each header
        at = content.find(mark)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(mark, at + 4)
    archive.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        unpacked(archive, tmp_path / "out")


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as file:
        file.writestr("smol/config.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("smol/config.json", "[]")
    with pytest.raises(InputError, match="twice"):
        unpacked(tmp_path / "m.zip", tmp_path / "out")
