from __future__ import annotations

from pathlib import Path

import pytest

from webapp.supervisor import CannotStart, running
from webapp.supervisor.folder import hold_lock, write_endpoints

ADDRESSES = {"DATABASE_URL": "postgres://x", "SITE_URL": "http://127.0.0.1:8123"}


def test_a_site_whose_servers_are_named_is_somebody_elses_to_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://db.example/tutelage")
    with running() as site:
        assert not site.started_here
        assert site.addresses == {"DATABASE_URL": "postgres://db.example/tutelage"}
    assert not (home / "logs" / "up.log").exists()


def test_a_running_site_is_used_and_left_running(home: Path) -> None:
    with hold_lock():
        write_endpoints(ADDRESSES)
        with running() as site:
            assert (site.url, site.started_here) == ("http://127.0.0.1:8123", False)
        assert (home / "run" / "endpoints.json").exists()


def test_a_site_that_cannot_start_says_why(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "PG_VERSION").write_text("12")
    with pytest.raises(CannotStart, match="made by PostgreSQL 12"), running():
        pass
