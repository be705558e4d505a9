"""Runs the whole site on one machine: PostgreSQL, Redis, web, workers, scheduler, model server."""

from webapp.supervisor.folder import CannotStart
from webapp.supervisor.running import Site, running

__all__ = ["CannotStart", "Site", "running"]
