"""Runs one program and its tests, under the limits that it takes from standard input, and prints how many tests passed
after a secret that the program was not given. Started by code_reward.py; the standard library alone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import resource
import struct
import sys
from typing import Any

MS_NODEV, MS_NOSUID, MS_REC, MS_PRIVATE = 4, 2, 16384, 1 << 18
SYS_MOUNT_SETATTR = 442  # on every architecture
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
BPF_LOAD, BPF_JUMP_EQUAL, BPF_JUMP_AT_LEAST, BPF_JUMP_ANY_BIT, BPF_RET = 0x20, 0x15, 0x35, 0x45, 0x06
OFFSET_CALL, OFFSET_ARCH, OFFSET_FLAGS = 0, 4, 16  # in struct seccomp_data
CLONE_THREAD, CLONE3, X32 = 0x10000, 435, 0x40000000
PROCESS_CALLS = {  # machine: its AUDIT_ARCH, and the numbers of clone, fork and vfork
    "x86_64": (0xC000003E, 56, 57, 58),
    "aarch64": (0xC00000B7, 220),
}
CAPABILITIES_V3 = 0x20080522
SCRATCH_MEGABYTES = 64
MAX_PROCESSES = 32
MAX_FILES = 64


def main() -> None:
    request = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if request["isolated"]:
        close_off_files()
        forbid_processes()
    limit(request["seconds"], request["memory"])
    passed = count_passed(request["code"], request["tests"])
    print(f"{request['nonce']}{passed}", file=answers, flush=True)
    os._exit(0)


def close_off_files() -> None:
    """Mount everything read-only but for a new scratch folder in memory, and give up the right to change that. Raises
    OSError if the kernel cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    scratch = os.getcwd()
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    check(
        libc.syscall(
            SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes)
        )
    )
    options = f"size={SCRATCH_MEGABYTES}m,mode=700".encode()
    check(libc.mount(b"tmpfs", scratch.encode(), b"tmpfs", MS_NODEV | MS_NOSUID, options))
    os.chdir(scratch)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    check(libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())))


def forbid_processes() -> None:
    """Let no process be started, threads excepted (seccomp(2)). RLIMIT_NPROC would do, but root is exempt from it."""
    arch, *refused = PROCESS_CALLS[os.uname().machine]
    clone, clone3 = refused.pop(0), CLONE3
    deny, allow = (BPF_RET, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM), (BPF_RET, 0, 0, SECCOMP_RET_ALLOW)
    program = [
        (BPF_LOAD, 0, 0, OFFSET_ARCH), (BPF_JUMP_EQUAL, 1, 0, arch), deny,
        (BPF_LOAD, 0, 0, OFFSET_CALL), (BPF_JUMP_AT_LEAST, 0, 1, X32), deny,
        *(part for call in refused for part in ((BPF_JUMP_EQUAL, 0, 1, call), deny)),
        (BPF_JUMP_EQUAL, 0, 1, clone3), (BPF_RET, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS),  # libc falls back to clone
        (BPF_JUMP_EQUAL, 0, 3, clone), (BPF_LOAD, 0, 0, OFFSET_FLAGS), (BPF_JUMP_ANY_BIT, 1, 0, CLONE_THREAD), deny,
        allow,
    ]  # fmt: skip
    filters = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(filters)
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0))


def check(status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def limit(seconds: float, megabytes: int) -> None:
    cpu = int(seconds) + 1
    for kind, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_FSIZE, SCRATCH_MEGABYTES << 20),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_NPROC, MAX_PROCESSES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def count_passed(code: str, tests: list[Any]) -> int:
    """How many of the tests hold. Tests as text run in the program's names; the others run it anew for each input."""
    texts = [test for test in tests if isinstance(test, str)]
    passed = 0
    if texts:
        names: dict[str, Any] = {"__name__": "program"}
        if runs(code, names):
            passed += sum(runs(test, names) for test in texts)
    for test in tests:
        if isinstance(test, dict):
            passed += printed(code, test["input"]) == [line.rstrip() for line in test["output"].strip().split("\n")]
    return passed


def runs(code: str, names: dict[str, Any]) -> bool:
    try:
        exec(compile(code, "program", "exec"), names)  # noqa: S102 - what this process is for
    except BaseException:  # noqa: BLE001 - SystemExit is a failed test, too
        return False
    return True


def printed(code: str, given: str) -> list[str] | None:
    """The lines that the program prints when it reads `given`; None if it fails."""
    output, before = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(given)
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(code, "program", "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as end:
        if end.code not in (None, 0):
            return None
    except BaseException:  # noqa: BLE001
        return None
    finally:
        sys.stdin = before
    return [line.rstrip() for line in output.getvalue().strip().split("\n")]


if __name__ == "__main__":
    main()
