"""Our own processes: web, workers, scheduler, model server; what each runs, and with how much of the machine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args
from urllib.parse import urlsplit

from training.contract import CONFIG, LOCK, ServedWeights, ServeSettings
from webapp.home_folder import ROOT, data_home
from webapp.supervisor.child import Spec
from webapp.supervisor.folder import CannotStart
from webapp.supervisor.ready import VARIABLE

TRAIN_STOP_SECONDS = 20.0  # a run writes its checkpoint
CORES = os.cpu_count() or 1
# The model server answers people's questions and holds models, not data: it gets no way to the data.
SECRETS = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "EMAIL_URL")
CELERY = [sys.executable, "-m", "celery", "--app", "webapp.celery"]
WORKER = ["worker", "--pool", "threads", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]


@dataclass(frozen=True)
class ProcessCounts:
    """How many of what."""

    web_processes: int = 2
    default_concurrency: int = 4
    train_concurrency: int = 1


def base_environment() -> dict[str, str]:
    """What every child gets: our own, one numerics thread, output at once, the mark leftovers are known by."""
    return {
        **os.environ,
        "TUTELAGE_HOME": str(data_home()),
        "TUTELAGE_SUPERVISED": str(data_home()),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def numerics_threads() -> dict[str, str]:
    """For processes that compute models: as many threads as there are cores, or as the operator says."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: os.environ.get(name) or str(CORES) for name in names}


def announced(spec: Spec) -> Spec:
    """The same, ready when it says so itself (webapp/supervisor/ready.py)."""
    path = data_home() / "run" / f"{spec.name}.ready"
    return Spec(
        **{
            **vars(spec),
            "environment": {**spec.environment, VARIABLE: str(path)},
            "before": lambda: path.unlink(missing_ok=True),
            "is_ready": path.exists,
        }
    )


def web(number: int, environment: dict[str, str], listening: int) -> Spec:
    return announced(
        Spec(
            name=f"web-{number}",
            command=[sys.executable, "-m", "webapp.serve", str(listening)],
            environment=environment,
            files=(listening,),
            death_signal=signal.SIGTERM,
        )
    )


def workers(environment: dict[str, str], settings: ProcessCounts) -> list[Spec]:
    default = Spec(
        name="worker-default",
        command=[
            *CELERY, *WORKER,
            "--queues", "default", "--hostname", "default@%h", "--concurrency", str(settings.default_concurrency),
        ],
        environment=environment,
    )  # fmt: skip
    train = Spec(
        name="worker-train",
        command=[
            *CELERY, *WORKER,
            "--queues", "train", "--hostname", "train@%h", "--concurrency", str(settings.train_concurrency),
        ],
        # Training takes the cores there are, and gives way to people who wait for a page.
        environment=environment | numerics_threads(),
        nice=5,
        stop_seconds=TRAIN_STOP_SECONDS,
    )  # fmt: skip
    beat = Spec(
        name="scheduler",
        # No file: the schedule is in the settings, and what should run is in the database.
        command=[*CELERY, "beat", "--scheduler", "celery.beat:Scheduler", "--pidfile", "", "--loglevel", "INFO"],
        environment=environment,
    )
    return [announced(spec) for spec in (default, train, beat)]


def model_server(environment: dict[str, str], address: str, token: str) -> Spec:
    folder = data_home() / "serve"
    port = urlsplit(address).port or 80
    settings = ServeSettings(
        host="127.0.0.1",
        port=port,
        token=token,
        kv_cache_gb=kv_cache_limit(environment),
        weights=served_weights(environment),
    )

    def write_config() -> None:
        for leftover in folder.iterdir():
            if leftover.is_file() and leftover.name != LOCK:
                leftover.unlink()
        (folder / CONFIG).write_text(settings.model_dump_json(indent=1))
        (folder / CONFIG).chmod(0o600)

    without_secrets = {name: value for name, value in environment.items() if name not in SECRETS}
    return Spec(
        name="model-server",
        command=[sys.executable, "-m", "training", "serve", folder],
        environment=without_secrets | numerics_threads(),
        before=write_config,
        is_ready=lambda: http_answers(address, "/health"),
        note=f"at {address}",
    )


def kv_cache_limit(environment: dict[str, str]) -> float:
    """GB for keys and values of the model server; 0 leaves it to the server. Raises CannotStart if no number is
    given."""
    value = environment.get("MODEL_SERVER_KV_GB") or "0"
    try:
        limit = float(value)
    except ValueError:
        limit = -1
    if not 0 <= limit < 1e6:
        raise CannotStart(f"MODEL_SERVER_KV_GB is {value!r}; give a number of gigabytes, such as 4")
    return limit


def served_weights(environment: dict[str, str]) -> ServedWeights:
    """How the model server keeps weights. Raises CannotStart for what it does not know."""
    value = environment.get("MODEL_SERVER_WEIGHTS") or "full"
    for choice in get_args(ServedWeights):
        if value == choice:
            return cast("ServedWeights", choice)
    raise CannotStart(f"MODEL_SERVER_WEIGHTS is {value!r}; give {' or '.join(get_args(ServedWeights))}")


def http_answers(address: str, path: str, timeout: float = 0.5) -> bool:
    """Does an HTTP server there answer without failing?"""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 80, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def prepare_command() -> list[str]:
    return [sys.executable, str(ROOT / "manage.py"), "prepare"]


def prepared(output: Path) -> dict[str, bool]:
    """What `manage.py prepare` said on its last line."""
    return dict(json.loads(output.read_text().splitlines()[-1]))
