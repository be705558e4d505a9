"""What a PPO run keeps between its steps. The step itself is `ppo_step` in training/stages/ppo.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from training.contract import PPOSettings
from training.engine import Engine
from training.models.compute import Compute
from training.optim.learner import Learner
from training.preferences.rewards import find_shaping
from training.rl.early_stop import DivergenceMonitor
from training.rl.heldout import HeldoutEvaluator
from training.rl.losses import KLController, RunningMoments
from training.rl.policies import Policies
from training.rl.ptx import PretrainingMix
from training.rl.rollouts import EncodedPrompt, Scorer
from training.run.run import Run


@dataclass
class PPOState:
    """What each step computes with and, below the first blank line, what changes from step to step: `state` and `load`
    put that into a checkpoint and take it from there."""

    run: Run[PPOSettings]
    compute: Compute
    prompts: Sequence[EncodedPrompt]
    engine: Engine
    scorer: Scorer
    policies: Policies
    learner: Learner
    pad_id: int
    heldout: HeldoutEvaluator
    mix: PretrainingMix | None = None

    episodes: int = 0
    figures: dict[str, float] = field(default_factory=dict)  # the last step's
    stop_reason: str = ""  # why the run stops before its last step
    warned: set[str] = field(default_factory=set)  # the warnings that a run gives once

    def __post_init__(self) -> None:
        self.config = config = self.run.config
        self.shaping = find_shaping(config.shaping, self.run.warn)
        self.kl = KLController(config.kl_coefficient, config.kl_target, config.kl_horizon)
        self.moments = RunningMoments()
        self.monitor = DivergenceMonitor(kl_penalized=config.kl_coefficient > 0, cap=config.sampling.max_new_tokens)

    def warn_once(self, name: str, step: int, message: str) -> None:
        if name not in self.warned:
            self.warned.add(name)
            self.run.warn(message, step)

    def state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state(),
            "kl": asdict(self.kl),
            "moments": asdict(self.moments),
            "watch": self.monitor.state(),
            "heldout": self.heldout.state(),
            "episodes": self.episodes,
            "mixed": self.mix.position if self.mix else 0,
            "figures": self.figures,
            "warned": sorted(self.warned),
            "stopped": self.stop_reason,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.kl = KLController(**state["kl"])
        self.moments = RunningMoments(**state["moments"])
        self.monitor.load(state["watch"])
        self.heldout.load(state["heldout"])
        self.episodes = state["episodes"]
        if self.mix:
            self.mix.position = state["mixed"]
        self.figures = state["figures"]
        self.warned = set(state["warned"])
        self.stop_reason = state["stopped"]
        self.learner.load(state["learner"])
