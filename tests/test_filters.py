"""Figures and times as the templates write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from webapp.templatetags.formatting import figure, when
from webapp.text import counted


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (0, "0"), (0.0, "0"), (-0.0, "0"), (9791, "9,791"), (9791.0, "9,791"), (12.3456, "12.35"),
        (0.1234, "0.123"), (0.05, "0.050"), (0.0052, "0.0052"), (-0.0052, "-0.0052"), (5e-6, "5e-6"),
        (2.5e-05, "2.5e-5"), (1e-12, "1e-12"), (1234567.8, "1,234,568"), (math.nan, "NaN"), (-math.inf, "-∞"),
    ],
)  # fmt: skip
def test_a_figure_never_reads_as_zero_unless_it_is(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_a_time_shows_its_exact_moment_and_zone_on_request() -> None:
    html = when(datetime(2026, 11, 25, 23, 31, 5, tzinfo=UTC).astimezone(ZoneInfo("Asia/Tokyo")), "j M, H:i")
    assert html == (
        '<time datetime="2026-11-26T08:31:05+09:00" title="26 November 2026, 08:31:05 JST (Asia/Tokyo)">'
        "26 Nov, 08:31</time>"
    )
    assert when(None) == ""


def test_things_are_counted_in_words() -> None:
    assert [counted(n, "prompt") for n in (0, 1, 1200)] == ["0 prompts", "1 prompt", "1,200 prompts"]
