from __future__ import annotations

import os

import pytest

PRECISION = os.environ.get("TEST_PRECISION") or "fp32"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if PRECISION != "fp32" and item.get_closest_marker("fp32"):
            item.add_marker(pytest.mark.skip(reason=f"needs float32, and TEST_PRECISION is {PRECISION}"))
