"""compose.yaml is checked against what the supervisor and the settings really use, for nothing here can start it."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from training.contract import ServeSettings
from webapp.home_folder import ROOT
from webapp.supervisor import apps, redis

COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SITE = ("prepare", "web", "worker-default", "scheduler", "worker-train", "worker-train-gpu")
READERS = ("webapp/settings.py", "webapp/home_folder.py")


def words(command: list[Any]) -> list[str]:
    """A command without its program, whose path differs between a container and a virtual environment."""
    text = [str(word) for word in command]
    return text[text.index("--app") :]


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    return {spec.name: words(list(spec.command)) for spec in apps.workers({}, apps.ProcessCounts())}


def options(arguments: list[str]) -> dict[str, str]:
    """`--name value` pairs."""
    pairs = pairwise(arguments)
    return {name: value for name, value in pairs if name.startswith("--") and not value.startswith("--")}


@pytest.mark.parametrize("service", ["worker-default", "worker-train", "worker-train-gpu", "scheduler"])
def test_a_celery_process_is_started_as_the_supervisor_starts_it(service: str, specs: dict[str, list[str]]) -> None:
    assert options(words(SERVICES[service]["command"])) == options(specs[service.removesuffix("-gpu")])


def test_the_database_is_prepared_by_the_supervisors_command() -> None:
    assert SERVICES["prepare"]["command"][-1] == apps.prepare_command()[-1]
    for name in SITE[1:]:
        assert SERVICES[name]["depends_on"]["prepare"]["condition"] == "service_completed_successfully", name


@pytest.mark.parametrize("service", SITE)
def test_a_process_of_the_site_is_told_of_every_server_and_of_nothing_that_nobody_reads(service: str) -> None:
    environment = SERVICES[service]["environment"]
    assert {"DATABASE_URL", "REDIS_URL", "MODEL_SERVER_URL", "SECRET_KEY", "SITE_URL"} <= set(environment)
    code = "".join((ROOT / path).read_text() for path in READERS)
    unread = {name for name in environment if not re.search(rf'"{name}"', code)}
    assert not unread


@pytest.mark.parametrize("service", ["model-server", "vllm"])
def test_what_serves_models_knows_no_way_to_the_data(service: str) -> None:
    assert not {"DATABASE_URL", "REDIS_URL", "SECRET_KEY"} & set(SERVICES[service].get("environment", {}))


def test_both_model_servers_answer_where_the_site_looks_for_them_and_never_both_at_once() -> None:
    address = urlsplit(SERVICES["web"]["environment"]["MODEL_SERVER_URL"])
    for name in ("model-server", "vllm"):
        assert address.hostname in SERVICES[name]["networks"]["default"]["aliases"]
    assert SERVICES["model-server"]["profiles"] == ["cpu"]
    assert SERVICES["vllm"]["profiles"] == ["gpu"]
    ours = ServeSettings.model_validate_json((ROOT / "docker" / "serve.json").read_text())
    assert (ours.host, ours.port) == ("0.0.0.0", address.port)
    assert options(SERVICES["vllm"]["command"])["--port"] == str(address.port)


def test_vllm_accepts_what_a_deployment_sends_it() -> None:
    assert "--enable-lora" in SERVICES["vllm"]["command"]
    assert SERVICES["vllm"]["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    data = next(volume for volume in SERVICES["web"]["volumes"] if volume.startswith("data:"))
    assert f"{data}:ro" in SERVICES["vllm"]["volumes"], "models must lie at the same path for it as for the site"


def test_gpus_go_to_the_services_of_their_profile() -> None:
    with_gpu = {name for name, service in SERVICES.items() if "deploy" in service}
    assert with_gpu == {name for name, service in SERVICES.items() if service.get("profiles") == ["gpu"]}


def test_servers_are_waited_for_where_the_site_expects_them() -> None:
    environment = SERVICES["web"]["environment"]
    for name, variable, port in (("postgres", "DATABASE_URL", 5432), ("redis", "REDIS_URL", 6379)):
        address = urlsplit(re.sub(r"\$\{.*?\}", "secret", environment[variable]))
        assert (address.hostname, address.port) == (name, port)
        assert SERVICES["prepare"]["depends_on"][name]["condition"] == "service_healthy"
        assert "healthcheck" in SERVICES[name]
    database = SERVICES["postgres"]["environment"]
    assert environment["DATABASE_URL"].startswith(f"postgres://{database['POSTGRES_USER']}:")
    assert environment["DATABASE_URL"].endswith(f"/{database['POSTGRES_DB']}")


def test_redis_is_set_as_the_embedded_one() -> None:
    given = options(SERVICES["redis"]["command"])
    given.pop("--requirepass")
    assert given == {f"--{name}": value for name, value in redis.SETTINGS.items() if f"--{name}" in given}
    assert {"--maxmemory-policy", "--save"} <= set(given)


def test_every_server_wants_a_secret() -> None:
    """Anything else in the network of the containers would reach them otherwise."""
    site = SERVICES["web"]["environment"]
    assert urlsplit(re.sub(r"\$\{(\w+).*?\}", r"\1", site["REDIS_URL"])).password == "REDIS_PASSWORD"
    assert options(SERVICES["redis"]["command"])["--requirepass"] == "${REDIS_PASSWORD:?}"
    assert SERVICES["redis"]["environment"]["REDISCLI_AUTH"] == "${REDIS_PASSWORD:?}"
    ours = SERVICES["model-server"]["environment"]["MODEL_SERVER_TOKEN"]
    vllms = SERVICES["vllm"]["environment"]["VLLM_API_KEY"]
    assert site["MODEL_SERVER_TOKEN"] == ours == vllms == "${MODEL_SERVER_TOKEN:?}"


def test_the_site_listens_on_this_machine_only_unless_told_otherwise() -> None:
    assert SERVICES["web"]["ports"] == ["${LISTEN:-127.0.0.1}:8000:8000"]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web"]


def test_every_image_is_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    dockerfiles = [path.read_text() for path in ROOT.glob("docker/*.Dockerfile")]
    images += re.findall(r"^FROM (\S+)", "\n".join(dockerfiles), re.MULTILINE)
    assert len(images) == 5
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []


def test_names_that_are_used_are_defined() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        volumes = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= set(COMPOSE["volumes"]), name
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name


def test_every_value_that_is_asked_for_has_its_line_in_the_example() -> None:
    text = json.dumps(COMPOSE)
    asked = set(re.findall(r"\$\{(\w+):\?", text)) | {
        "COMPOSE_PROFILES", "VLLM_MODEL", "LISTEN", "MODEL_SERVER_KV_GB", "MODEL_SERVER_WEIGHTS", "TRAINING_GPUS",
    }  # fmt: skip
    given = set(re.findall(r"^(\w+)=", (ROOT / "docker" / "env.example").read_text(), re.MULTILINE))
    assert asked == given


def test_the_model_server_is_looked_after_at_the_address_that_takes_no_token() -> None:
    test = SERVICES["model-server"]["healthcheck"]["test"]
    ours = ServeSettings.model_validate_json((ROOT / "docker" / "serve.json").read_text())
    assert f"http://localhost:{ours.port}/health" in test[-1]
