"""What the steps of the sample project share: its world, its runs and snapshots by name, and waiting for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from annotations.models import Prompt
from annotations.services.prompts import add_prompts, split_of
from training.contract import SPECS
from webapp.accounts.models import Project, User
from webapp.datasets.models import Snapshot
from webapp.datasets.services import create_snapshot
from webapp.demo.models import Demo
from webapp.demo.people import ADMIN, sample_user
from webapp.demo.plan import PLANS, Plan
from webapp.demo.world import World, build
from webapp.demo.world.cases import Case
from webapp.errors import Conflict
from webapp.registry.models import ModelVersion
from webapp.runs.models import Run
from webapp.runs.services import launch_run

SOURCE: Final = "sample project"


@lru_cache(maxsize=2)
def world_of(seed: int, size: str) -> World:
    """The world, made once in a process."""
    return build(seed, PLANS[size].sizes, split_of)


@lru_cache(maxsize=2)
def cases_of(seed: int, size: str) -> dict[str, Case]:
    """Its cases by the text of their conversation."""
    return world_of(seed, size).cases()


@dataclass(frozen=True)
class Round:
    """One sample project on its way."""

    demo: Demo

    @property
    def project(self) -> Project:
        return self.demo.project

    @cached_property
    def admin(self) -> User:
        return sample_user(ADMIN)

    @property
    def plan(self) -> Plan:
        return PLANS[self.demo.size]

    @property
    def world(self) -> World:
        return world_of(self.demo.seed, self.demo.size)

    def case(self, prompt: Prompt) -> Case | None:
        """The case behind a prompt; none for what people have added."""
        text = "\n".join(turn["content"] for turn in prompt.messages)
        return cases_of(self.demo.seed, self.demo.size).get(text)

    def prompts(self, cases: Iterable[Case]) -> list[Prompt]:
        """The prompts of these cases, made when there are none."""
        return add_prompts(
            project=self.project,
            conversations=[case.messages for case in cases],
            source=Prompt.Source.DEMO,
            by=self.admin,
        )

    def note(self, text: str, share: float = 0.0) -> None:
        """Say what is going on."""
        Demo.objects.filter(pk=self.demo.pk).update(note=text[:200], share=share)

    def snapshot(self, name: str, kind: str, **filters: Any) -> Snapshot:
        """The snapshot of this name, taken when there is none."""
        existing = Snapshot.objects.filter(project=self.project, name=name).first()
        return existing or create_snapshot(project=self.project, kind=kind, by=self.admin, name=name, filters=filters)

    def run(self, name: str) -> Run:
        """The run of this name."""
        return Run.objects.select_related("output", "base").get(project=self.project, name=name)

    def made_by(self, name: str) -> ModelVersion:
        """The model that the run of this name made."""
        run = self.run(name)
        if run.output is None:
            raise Conflict(f"{run.name} has made no model.")
        return run.output

    def ran(self, name: str, stage: str, inputs: Callable[[], dict[str, Any]], **config: Any) -> bool:
        """Whether the run of this name has succeeded; it is launched when there is none.

        Raises Conflict if it failed or was stopped.
        """
        run = Run.objects.filter(project=self.project, name=name).first()
        if run is None:
            seed = {"seed": self.demo.seed} if "seed" in SPECS[stage].settings.model_fields else {}
            settings = seed | self.plan.configs.get(stage, {}) | config
            launch_run(project=self.project, stage=stage, by=self.admin, name=name, config=settings, **inputs())
            self.note(f"{name}: waiting for a worker")
            return False
        if run.state in (Run.State.FAILED, Run.State.CANCELLED):
            reason = run.error or "It was stopped before its end."
            raise Conflict(f"{run.name} ({run.get_state_display().lower()}): {reason}")
        if run.state != Run.State.SUCCEEDED:
            share = run.step / run.total if run.total else 0.0
            self.note(f"{name}: {run.phase or run.get_state_display().lower()}", min(share, 1.0))
            return False
        return True
