"""What a run tells experiment trackers (`report_to`): each in a thread of its own, so that training never waits for one
that is slow, and never ends because of one that fails.

A resumed run goes on in the same logged run: its identity lies in the run folder, and steps that an earlier process
told are not told again.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from training.contract import EVENTS, TRACKERS, InputError
from training.run.durable import write_aside
from training.run.placement import without_root
from training.run.trackers import TRACKER_CLASSES, Outcome, Place, TrackedRun, Tracker, without_secrets

TRACKING: Final = "tracking.json"
PROJECT, RUN_NAME = "TUTELAGE_PROJECT", "TUTELAGE_RUN_NAME"  # as the caller calls them
MAX_WAITING: Final = 100_000  # points that a slow tracker may be behind
END_SECONDS: Final = 30.0  # that all trackers together have to take what is left
MAX_REASON: Final = 300  # characters


class Point(NamedTuple):
    step: int
    values: dict[str, float]
    at: float  # seconds since the epoch


class Feed(threading.Thread):
    """One tracker, and the points on their way to it."""

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun, earlier: list[Point]) -> None:
        super().__init__(name=f"tracker-{name}", daemon=True)
        self.tracker_name, self.reason = name, ""
        self.place: Place | None = None  # none until it has begun
        self._tracker, self._run = tracker, run
        self._outcome: Outcome = "stopped"
        self._points: queue.Queue[Point | None] = queue.Queue(MAX_WAITING)
        self._given, self._taken = 0, 0
        for point in earlier:
            self.add(point)

    def add(self, point: Point) -> None:
        self._given += 1
        try:
            self._points.put_nowait(point)
        except queue.Full:
            self.reason = self.reason or "it is too slow"

    @property
    def lost(self) -> int:
        """Points that it has not taken, so far."""
        return self._given - self._taken

    def end(self, outcome: Outcome, seconds: float) -> None:
        """Let it take what is left within so many seconds."""
        self._outcome = outcome
        try:
            self._points.put_nowait(None)
        except queue.Full:
            return
        self.join(seconds)
        if self.is_alive():
            self.reason = self.reason or "it does not answer"

    def run(self) -> None:
        try:
            self.place = self._tracker.start(self._run)
        except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises, training goes on
            self.reason = reason_of(error)
            return
        while (point := self._points.get()) is not None:
            try:
                self._tracker.log(*point)
                self._taken += 1
            except Exception as error:  # noqa: BLE001 - as above
                self.reason = self.reason or reason_of(error)
        try:
            self._tracker.finish(self._outcome)
        except Exception as error:  # noqa: BLE001 - as above
            self.reason = self.reason or reason_of(error)


class Tracking:
    """All trackers of a run. `places` and `warnings` give what is new since they were last asked."""

    def __init__(self, folder: Path, names: list[str], project: str, settings: Mapping[str, Any]) -> None:
        self._file = folder / TRACKING
        self._known = read_known(self._file, folder, project)
        run = TrackedRun(folder, self._known["identity"], self._known["name"], self._known["project"], flat(settings))
        earlier = earlier_points(folder)
        self._told: dict[str, dict[str, int]] = {}  # newest step of each metric that a tracker has from before
        self._feeds: list[Feed] = []
        for name in names:
            resumes = name in self._known["started"]
            self._told[name] = newest_steps(earlier) if resumes else {}
            self._feeds.append(Feed(name, TRACKER_CLASSES[name](), run, [] if resumes else earlier))
        self._placed: set[str] = set()
        self._warned: set[str] = set()
        for feed in self._feeds:
            feed.start()

    def add(self, step: int, values: dict[str, float], at: float) -> None:
        for feed in self._feeds:
            told = self._told[feed.tracker_name]
            if new := {name: value for name, value in values.items() if step > told.get(name, -1)}:
                feed.add(Point(step, new, at))

    def places(self) -> Iterator[tuple[str, Place]]:
        for feed in self._feeds:
            if feed.place is not None and feed.tracker_name not in self._placed:
                self._placed.add(feed.tracker_name)
                self._remember(feed.tracker_name)
                yield feed.tracker_name, feed.place

    def warnings(self) -> Iterator[str]:
        """One sentence for each tracker that has failed, the first time that it does."""
        for feed in self._feeds:
            if feed.reason and feed.tracker_name not in self._warned:
                self._warned.add(feed.tracker_name)
                title = TRACKERS[feed.tracker_name]
                yield f"{title}: {feed.reason}; the run goes on, and counts what is not logged there"

    def end(self, outcome: Outcome) -> None:
        deadline = time.monotonic() + END_SECONDS
        for feed in self._feeds:
            feed.end(outcome, max(0.1, deadline - time.monotonic()))

    def lost(self) -> dict[str, int]:
        """By tracker, how many points it has not taken; only those that lack some."""
        return {feed.tracker_name: feed.lost for feed in self._feeds if feed.lost}

    def _remember(self, name: str) -> None:
        """It has the run from here on."""
        if name not in self._known["started"]:
            self._known["started"].append(name)
            write_aside(self._file, json.dumps(self._known))


def check_trackers(names: list[str]) -> None:
    """Raises InputError if a tracker's package is not installed."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise InputError(
            f"report_to: {' and '.join(missing)} cannot be imported here; install it with pip install "
            f"{' '.join(missing)}, or leave it out",
            code="config_invalid",
        )


def read_known(file: Path, folder: Path, project: str) -> dict[str, Any]:
    """How the trackers know the run; a new run is named by the caller, by hand after its folder."""
    try:
        known: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        known = {
            "identity": uuid.uuid4().hex[:16],
            "name": os.environ.get(RUN_NAME) or folder.resolve().name,
            "project": project or os.environ.get(PROJECT) or "tutelage",
            "started": [],
        }
        write_aside(file, json.dumps(known))
    return known


def earlier_points(folder: Path) -> list[Point]:
    """The metrics that earlier processes have told, each of a step once, as told last."""
    values: dict[int, dict[str, float]] = {}
    times: dict[int, float] = {}
    for line in (folder / EVENTS).read_bytes().splitlines():
        if b'"type":"metric"' in line:
            event = json.loads(line)
            values.setdefault(event["step"], {}).update(event["values"])
            times[event["step"]] = event["time"]
    return [Point(step, values[step], times[step]) for step in sorted(values)]


def newest_steps(points: list[Point]) -> dict[str, int]:
    return {name: point.step for point in points for name in point.values}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted name, models of a store without the path that leads to it."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = without_root(value)
    return values


def reason_of(error: Exception) -> str:
    """The first line of what it says, without secrets."""
    lines = without_secrets(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:MAX_REASON]
