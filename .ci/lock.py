"""Writes the lock files from `name==version` lines on standard input; run by `make lock`.

requirements.lock is everything, requirements-web.lock the part that the image without torch takes,
requirements-cuda.lock what torch's builds for NVIDIA GPUs also need. They have the hash of every file that the package
index has of a version, for Linux and macOS on any processor. requirements-cpu.lock is torch's smaller build for CPUs,
which is not in that index; it is taken if pip knows of a place that has it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, WEB_LOCK, CPU_LOCK, CUDA_LOCK = (ROOT / f"requirements{part}.lock" for part in ("", "-web", "-cpu", "-cuda"))
HEADS = {
    LOCK: "Every package at one version, with hashes, for Python 3.11 to 3.13; pyproject.toml names what we use.",
    WEB_LOCK: "Of requirements.lock what the site needs without torch.",
    CPU_LOCK: "torch's build for CPUs; `make setup` takes it if pip finds it.",
    CUDA_LOCK: "What torch's builds for NVIDIA GPUs need besides; `make setup` installs it if torch asks for it.",
}
ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)


def compiled(requirements: str, *options: str) -> list[str]:
    """uv's entries for the requirements, each with its hashes."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--no-config", *options]
        how = ["--generate-hashes", "--no-header", "--no-annotate", "--universal", "--python-version", "3.11"]
        done = subprocess.run([*command, *how, file.name], check=True, capture_output=True, text=True)
    return [entry.strip() for entry in re.split(r"\n(?=\S)", done.stdout) if entry.strip()]


def cpu_build(version: str) -> list[str]:
    """The entry of torch's build for CPUs: of what would be installed here, else as it was in the lock before."""
    with tempfile.NamedTemporaryFile() as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        subprocess.run([*command, "--report", report.name, f"torch=={version}"], check=True)
        (found,) = json.loads(Path(report.name).read_text())["install"]
    here = found["metadata"]["version"]
    if here == f"{version}+cpu":
        return [f"torch=={here} \\\n    --hash=sha256:{found['download_info']['archive_info']['hashes']['sha256']}"]
    before = CPU_LOCK.read_text() if CPU_LOCK.exists() else ""
    return [entry.strip() for entry in re.split(r"\n(?=\S)", before) if entry.startswith(f"torch=={version}+cpu ")]


def write(path: Path, entries: list[str]) -> None:
    path.write_text("\n".join([f"# {HEADS[path]} Made by `make lock`.", *entries]) + "\n")
    print(f"{path.name} holds {len(entries)} packages")


def name_of(entry: str) -> str:
    found = ENTRY.match(entry)
    if found is None:
        raise ValueError(f"no name and version: {entry}")
    return re.sub(r"[-_.]+", "-", found["name"]).lower()


def main() -> None:
    pins = {found["name"]: found["version"] for found in ENTRY.finditer(sys.stdin.read())}
    pins["torch"] = torch = pins["torch"].partition("+")[0]
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(pins.items(), key=lambda pin: pin[0].lower()))
    entries = compiled(lines, "--no-deps")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    site = [*project["dependencies"], *project["optional-dependencies"]["web"]]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(lines)
        constraints.flush()
        needed = {name_of(e) for e in compiled("\n".join(site), "--constraint", constraints.name)}
        with_cuda = compiled(f"torch=={torch}\n", "--constraint", constraints.name)
    known = {name_of(e) for e in entries}
    write(LOCK, entries)
    write(WEB_LOCK, [e for e in entries if name_of(e) in needed])
    write(CPU_LOCK, cpu_build(torch))
    write(CUDA_LOCK, [e for e in with_cuda if name_of(e) not in known])


if __name__ == "__main__":
    main()
