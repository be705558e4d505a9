"""How fast a label is: fetch the next task and submit, with 10,000 rank tasks waiting.

Service level: the functions that the page calls, in this process. HTTP level: uvicorn in a process of its own, one
request a label (the answer to a submission holds the next task), whole pages with all that belongs to them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from importlib import import_module


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks label", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=400, help="in each measurement")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args(argv)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    import_module("tests.servers")  # starts PostgreSQL and Redis unless the environment names them
    import_module("django").setup()
    connection = import_module("django.db").connection
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        figures = import_module("benchmarks._label").measure(options.tasks, options.labels, options.clients)
        print("label", " ".join(f"{key}={value}" for key, value in figures.items()))
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)
