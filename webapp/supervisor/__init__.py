"""Runs the whole site on one machine: PostgreSQL, Redis, web, workers, scheduler, model server."""
