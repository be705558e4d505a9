from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from training.contract import ServeSettings
from webapp.supervisor import apps
from webapp.supervisor.folder import CannotStart

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "pandas", "pyarrow")
LOADED = f"import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
LOAD = {
    "web": "import webapp.asgi",
    "workers": "from webapp.celery import app; app.loader.import_default_modules()",
}
ADDRESSES = {"DATABASE_URL": "postgres://x", "REDIS_URL": "unix:///x", "SECRET_KEY": "x", "SITE_URL": "http://x"}


@pytest.mark.parametrize("process", LOAD)
def test_a_process_of_the_site_starts_without_what_is_large_and_seldom_needed(process: str) -> None:
    output = subprocess.check_output([sys.executable, "-c", f"{LOAD[process]}; {LOADED}"], text=True)
    assert json.loads(output.splitlines()[-1]) == []


def test_the_model_server_knows_no_way_to_the_data(home: Path) -> None:
    spec = apps.model_server(apps.base_environment() | ADDRESSES, "http://127.0.0.1:8301", "token")
    assert not {"DATABASE_URL", "REDIS_URL", "SECRET_KEY"} & set(spec.environment)


def test_the_model_server_gets_a_config_that_it_accepts_and_a_clean_folder(home: Path) -> None:
    (home / "serve" / "events.jsonl").write_text("of the last time\n")
    environment = apps.base_environment() | {"MODEL_SERVER_KV_GB": "1.5", "MODEL_SERVER_WEIGHTS": "int8"}
    apps.model_server(environment, "http://127.0.0.1:8301", "token").before()
    assert [path.name for path in (home / "serve").iterdir()] == ["config.json"]
    config = ServeSettings.model_validate_json((home / "serve" / "config.json").read_text())
    assert (config.host, config.port, config.token, config.kv_cache_gb) == ("127.0.0.1", 8301, "token", 1.5)
    assert config.weights == "int8"


def test_models_are_served_with_their_full_weights_unless_asked_otherwise() -> None:
    assert apps.served_weights({}) == apps.served_weights({"MODEL_SERVER_WEIGHTS": ""}) == "full"


def test_weights_that_the_model_server_does_not_know_are_refused_before_anything_starts(home: Path) -> None:
    with pytest.raises(CannotStart, match="MODEL_SERVER_WEIGHTS is 'int4'; give full or int8"):
        apps.model_server({"MODEL_SERVER_WEIGHTS": "int4"}, "http://127.0.0.1:8301", "token")


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_a_memory_limit_that_is_no_number_is_refused_before_anything_starts(home: Path, given: str) -> None:
    with pytest.raises(CannotStart, match=f"MODEL_SERVER_KV_GB is '{given}'; give a number of gigabytes"):
        apps.model_server({"MODEL_SERVER_KV_GB": given}, "http://127.0.0.1:8301", "token")


def test_numerics_get_one_thread_except_where_models_are_computed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environment = apps.base_environment()
    default, train, scheduler = apps.workers(environment, apps.ProcessCounts())
    threads = {spec.name: spec.environment["OMP_NUM_THREADS"] for spec in (default, train, scheduler)}
    assert threads == {"worker-default": "1", "worker-train": str(apps.CORES), "scheduler": "1"}
    assert train.nice > default.nice


def test_the_operator_s_number_of_threads_counts_where_models_are_computed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    default, train, _ = apps.workers(apps.base_environment(), apps.ProcessCounts())
    server = apps.model_server(apps.base_environment(), "http://127.0.0.1:8301", "token")
    threads = [spec.environment["OMP_NUM_THREADS"] for spec in (default, train, server)]
    assert threads == ["1", "3", "3"]


def test_every_queue_that_tasks_go_to_has_a_worker(home: Path) -> None:
    listened = set()
    for spec in apps.workers(apps.base_environment(), apps.ProcessCounts()):
        words = list(spec.command)
        if "--queues" in words:
            listened.add(words[words.index("--queues") + 1])
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()} | {settings.CELERY_TASK_DEFAULT_QUEUE}
    assert listened == routed


def test_every_task_of_the_schedule_exists() -> None:
    from webapp.celery import app

    app.loader.import_default_modules()
    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} <= set(app.tasks)


def test_every_reconciler_is_on_the_schedule() -> None:
    from webapp.celery import app

    app.loader.import_default_modules()
    reconcilers = {name for name in app.tasks if name.endswith(".reconcile")}
    assert reconcilers <= {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}


def test_a_process_that_says_it_is_ready_is_ready(home: Path) -> None:
    spec = apps.web(1, {}, 3)
    spec.before()
    assert not spec.is_ready()
    program = "from webapp.supervisor.ready import announce_ready; announce_ready(sender=None)"
    subprocess.run([sys.executable, "-c", program], env=dict(spec.environment), check=True)
    assert spec.is_ready()
    spec.before()
    assert not spec.is_ready()


def test_an_address_where_nobody_answers_is_not_ready() -> None:
    assert not apps.http_answers("http://127.0.0.1:9", "/health")
