"""Serves models over HTTP through the interface that vLLM offers: the parts are in training/serve/."""

from __future__ import annotations

import socket

import uvicorn

from training.contract import ServeSettings, TrainingError
from training.engine.kv_budget import KVBudget
from training.models.compute import prepare
from training.run.checkpoints import Stopped
from training.run.run import Run
from training.serve.app import build_app
from training.serve.hub import model_folder
from training.serve.pool import ModelPool
from training.serve.scheduler import Scheduler

GRACE = 3  # seconds that replies under way get to end after SIGTERM


def main(run: Run[ServeSettings]) -> None:
    config = run.config
    compute = prepare(run)
    listener = bind(config.host, config.port)
    memory = KVBudget(compute.device, int(config.kv_cache_gb * 1e9) or None)
    pool = ModelPool(compute, slots=config.slots, max_models=config.max_models, memory=memory, weights=config.weights)
    with run.timed("load"):
        for name, source in config.models.items():
            pool.load(name, model_folder(source))
    scheduler = Scheduler()
    scheduler.start()
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(pool, scheduler, token=config.token, default_max_tokens=config.default_max_tokens),
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE,
        )
    )
    host, port = listener.getsockname()[:2]
    print(f"serving on http://{host}:{port}: {pool.told()}", flush=True)
    print(f"keys and values may take {memory.limit / 1e9:.1f} GB", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        scheduler.stop()
    if run.stopping:
        raise Stopped


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises TrainingError if the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise TrainingError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another `port` in config.json",
            code="port_taken",
        ) from error
    return listener
