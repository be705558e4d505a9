"""How far a sample project is, for a page and for a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from webapp.demo.models import Demo
from webapp.demo.steps import STEPS


@dataclass(frozen=True)
class Stage:
    """A step as a person sees it; `state` is done, now or later."""

    title: str
    state: str
    seconds: float | None


def stages(demo: Demo) -> list[Stage]:
    rows = []
    for number, step in enumerate(STEPS):
        state = "done" if number < demo.step else "now" if number == demo.step else "later"
        start, ended = demo.began.get(step.key), demo.ended.get(step.key)
        rows.append(Stage(step.title, state, ended - start if start and ended else None))
    return rows


def demo_progress(demo: Demo) -> float:
    """The share of the usual time that is over, 0 to 1."""
    whole = sum(step.weight for step in STEPS)
    over = sum(step.weight for step in STEPS[: demo.step])
    now = STEPS[demo.step].weight * demo.share if demo.step < len(STEPS) else 0.0
    return (over + now) / whole


def current_step(demo: Demo) -> str:
    """What is going on, in a line."""
    if demo.step >= len(STEPS):
        return "Done"
    return f"{STEPS[demo.step].title}{f' ({demo.note})' if demo.note else ''}"
