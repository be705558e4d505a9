"""Experiment trackers: the same three calls for Weights & Biases, MLflow and trackio.

Each takes credentials and addresses from the environment by its own variables (`WANDB_API_KEY`, `MLFLOW_TRACKING_URI`,
`TRACKIO_SPACE_ID`, …), and without an address writes into the run folder. What they raise is the caller's to handle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

Outcome = Literal["finished", "stopped", "failed"]
START_SECONDS: Final = 60
USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]+@")
SECRET_NAME: Final = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
MIN_SECRET: Final = 8  # characters


class TrackedRun(NamedTuple):
    """The run as a tracker needs to know it."""

    folder: Path
    identity: str  # letters and digits; the same in every process that works on the run
    name: str
    project: str
    settings: dict[str, Any]  # by dotted name


class Place(NamedTuple):
    """Where the tracker shows the run: a page, or what lies in the run folder and how to look at it."""

    url: str = ""
    note: str = ""


class Tracker(Protocol):
    def start(self, run: TrackedRun) -> Place:
        """Begin the run, or go on with it where its identity is known."""

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        """`at`: seconds since the epoch."""

    def finish(self, outcome: Outcome) -> None: ...


class WeightsAndBiases:
    """https://docs.wandb.ai/ref/python; offline with WANDB_MODE=offline."""

    def start(self, run: TrackedRun) -> Place:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.project,
            id=run.identity,
            name=run.name,
            dir=str(run.folder),
            config=run.settings,
            resume="allow",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, init_timeout=START_SECONDS
            ),
        )
        # A step that is told late must not be refused, as it would be by the tracker's own count.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        if self._run.settings.mode == "online":
            return Place(url=without_secrets(str(self._run.url)))
        written = Path(self._run.settings.sync_dir)
        return Place(note=f"Offline, in the run folder. To upload it: wandb sync wandb/{written.name}")

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        self._run.log({"step": step, "_timestamp": at, **values})

    def finish(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=1 if outcome == "failed" else 0)


class MLflow:
    """https://mlflow.org/docs/latest/python_api/mlflow.client.html"""

    TAG: Final = "tutelage.run"
    STATUS: Final[dict[str, str]] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    NOT_ALLOWED: Final = re.compile(r"[^\w\-. :/]")  # in a metric's name

    def start(self, run: TrackedRun) -> Place:
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
        ):
            os.environ.setdefault(name, value)
        configured = os.environ.get("MLFLOW_TRACKING_URI", "")
        address = configured or f"sqlite:///{run.folder.resolve()}/mlflow.db"
        self._entities = import_module("mlflow.entities")
        self._client = import_module("mlflow").MlflowClient(tracking_uri=address)
        experiment = self._experiment(
            os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.project,
            None if configured else (run.folder.resolve() / "mlflow").as_uri(),
        )
        self._id = self._find_or_create(experiment, run)
        if address.startswith(("http://", "https://")):
            base = without_secrets(address).rstrip("/")
            return Place(url=f"{base}/#/experiments/{experiment}/runs/{self._id}")
        if configured:
            return Place(note="In the store that MLFLOW_TRACKING_URI names on the training machine.")
        return Place(note="In the run folder. To look at it there: mlflow ui --backend-store-uri sqlite:///mlflow.db")

    def _experiment(self, name: str, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(name)
        return str(
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(name, artifact_location=artifacts)
        )

    def _find_or_create(self, experiment: str, run: TrackedRun) -> str:
        runs = self._client.search_runs([experiment], f"tags.`{self.TAG}` = '{run.identity}'", max_results=1)
        if runs:
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            return str(runs[0].info.run_id)
        created = self._client.create_run(experiment, run_name=run.name, tags={self.TAG: run.identity})
        parameters = [self._entities.Param(name, str(value)[:500]) for name, value in run.settings.items()]
        self._client.log_batch(created.info.run_id, params=parameters[:100])  # as many as a batch may have
        return str(created.info.run_id)

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        moment = int(1000 * at)
        metrics = [
            self._entities.Metric(self.NOT_ALLOWED.sub("_", name), value, moment, step)
            for name, value in values.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._id, status=self.STATUS[outcome])


class Trackio:
    """https://huggingface.co/docs/trackio; a Space, a server of one's own, or a folder."""

    def start(self, run: TrackedRun) -> Place:
        space, server = os.environ.get("TRACKIO_SPACE_ID", ""), os.environ.get("TRACKIO_SERVER_URL", "")
        folder = os.environ.get("TRACKIO_DIR", "")
        os.environ.setdefault("TRACKIO_DIR", str(run.folder.resolve() / "trackio"))
        self._run = import_module("trackio").init(
            project=run.project,
            name=f"{run.name} {run.identity[:6]}",  # by which it is found again
            config=run.settings,
            resume="allow",
            embed=False,
        )
        if space:
            return Place(url=f"https://huggingface.co/spaces/{space}")
        if server:
            return Place(url=without_secrets(server).partition("?")[0])
        if folder:
            return Place(note=f"In TRACKIO_DIR of the training machine. To look at it: trackio show --project "
                              f'"{run.project}"')  # fmt: skip
        return Place(
            note=f'In the run folder. To look at it there: TRACKIO_DIR=trackio trackio show --project "{run.project}"'
        )

    def log(self, step: int, values: dict[str, float], at: float) -> None:  # noqa: ARG002 - it takes no time
        self._run.log(values, step=step)

    def finish(self, outcome: Outcome) -> None:  # noqa: ARG002 - it knows only that a run has ended
        self._run.finish()


TRACKER_CLASSES: Final[dict[str, Callable[[], Tracker]]] = {
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def without_secrets(text: str) -> str:
    """Without names and passwords in addresses, and without what the environment keeps secret."""
    text = USER_INFO.sub("", text)
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET and SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return text
