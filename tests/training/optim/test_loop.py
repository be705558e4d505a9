"""The training loop: schedule, accumulation, the guard against NaN, and resuming as if nothing had happened."""

from __future__ import annotations

import math
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.toys import events, run_folder
from training.contract import SFTSettings, TrainingError
from training.data.batching import Examples, Rows, Sizes
from training.models.compute import Compute
from training.optim.learner import Learner, schedule
from training.optim.loop import train
from training.optim.meters import Means, Sums, mean_figures
from training.run.checkpoints import Stopped
from training.run.opening import open_run

CPU = Compute(torch.device("cpu"), torch.float32)
SETTINGS: dict[str, Any] = {"stage": "sft", "base": "b", "batch_tokens": 64, "micro_tokens": 64, "learning_rate": 0.05}


def line() -> tuple[Tensor, Tensor]:
    """Points of y = 2x - 1."""
    x = torch.linspace(-1, 1, 64)[:, None]
    return x, 2 * x - 1


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 1))


def points(length: int = 8) -> Examples[tuple[Tensor, Tensor]]:
    x, y = line()
    return Examples(Sizes.of([length] * len(x)), lambda rows: (x[rows], y[rows]))


def squared_error(net: nn.Module) -> Any:
    def loss(batch: tuple[Tensor, Tensor]) -> Sums:
        wrong = (net(batch[0]) - batch[1]).square().sum()
        return {"loss": (wrong, len(batch[0]))}

    return loss


def learn(
    folder: Path, net: nn.Module, stop_after: int = 0, clock: Any = None, stop_measuring: int = 0, **changes: Any
) -> dict[str, float]:
    """Asked to stop in the step `stop_after`, or while it measures what the step `stop_measuring` has reached."""
    run_folder(folder, SETTINGS | changes)
    torch.manual_seed(0)
    steps = count(1)

    def loss(batch: tuple[Tensor, Tensor]) -> Sums:
        run.stopping = next(steps) == stop_after
        return squared_error(net)(batch)

    def evaluate(step: int, _final: bool) -> dict[str, float]:
        run.stopping = step == stop_measuring
        told = run.measuring("held-out rows")
        told(0, 2)
        told(2, 2)
        return {"heldout": float(step)}

    with open_run(folder, **({"clock": clock} if clock else {})) as run:
        learner = Learner({"net": net}, run.config, CPU)
        return train(run, learner, points(), loss, epochs=4, evaluate=evaluate)


# --------------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    ("done", "kind", "factor"),
    [
        (0.0, "cosine", 0.1 / 0.2),
        (0.1, "linear", (0.1 + 0.1) / 0.2),
        (0.2, "cosine", 1.0),
        (0.6, "cosine", 0.1 + 0.9 * 0.5),
        (0.6, "linear", 0.1 + 0.9 * 0.5),
        (0.4, "cosine", 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2),
        (0.4, "linear", 0.1 + 0.9 * 0.75),
        (1.0, "cosine", 0.1),
        (1.0, "linear", 0.1),
        (0.9, "constant", 1.0),
    ],
)
def test_the_learning_rate_rises_and_falls_as_worked_out_by_hand(done: float, kind: str, factor: float) -> None:
    assert schedule(done, 0.1, 0.2, kind, 0.1) == pytest.approx(factor)


def test_without_warm_up_the_first_step_is_at_the_peak() -> None:
    assert schedule(0.0, 0.1, 0.0, "cosine", 0.1) == 1.0


# ---------------------------------------------------------------------------------------------------------- one step


def test_a_step_is_the_same_however_it_is_cut_into_micro_batches() -> None:
    x, y = line()
    found = []
    for pieces in (1, 4, 64):
        net = model().eval()
        learner = Learner({"net": net}, SFTSettings(learning_rate=0.1), CPU)
        told = learner.update(zip(x.chunk(pieces), y.chunk(pieces), strict=True), squared_error(net), 64, 0.5)
        found.append((torch.cat([p.detach().flatten() for p in net.parameters()]), told))
    for weights, told in found[1:]:
        assert torch.allclose(weights, found[0][0], atol=1e-6)
        assert told["loss"][0] == pytest.approx(found[0][1]["loss"][0], rel=1e-5)
        assert told["grad_norm"][0] == pytest.approx(found[0][1]["grad_norm"][0], rel=1e-4)


def test_gradients_above_the_clip_are_scaled_down_and_told_unscaled() -> None:
    net = nn.Linear(1, 1, bias=False)
    learner = Learner({"net": net}, SFTSettings(grad_clip=0.5), CPU)
    seen: list[float] = []
    learner.optimizer.register_step_pre_hook(lambda *_: seen.append(float(net.weight.grad.norm())))  # type: ignore[union-attr]
    told = learner.update([None], lambda _: {"loss": (3.0 * net.weight.sum(), 1)}, 1, 0.5)
    assert told["grad_norm"] == (3.0, 1)
    assert seen == [pytest.approx(0.5, rel=1e-4)]


def test_only_matrices_decay_and_a_module_may_have_its_own_rate() -> None:
    learner = Learner(
        {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, SFTSettings(weight_decay=0.3), CPU, rates={"b": 0.5}
    )
    groups = [(g["peak"], g["weight_decay"], g["params"][0].ndim) for g in learner.optimizer.param_groups]
    assert groups == [(3e-4, 0.3, 2), (3e-4, 0.0, 1), (0.5, 0.3, 2), (0.5, 0.0, 1)]


def test_a_parameter_shared_by_two_modules_is_learned_once() -> None:
    trunk = nn.Linear(2, 2)
    learner = Learner({"a": trunk, "b": nn.Sequential(trunk, nn.Linear(2, 1))}, SFTSettings(), CPU)
    assert len(learner.parameters) == 4


def test_a_step_whose_gradient_is_no_number_changes_nothing_and_is_counted() -> None:
    net = model()
    learner = Learner({"net": net}, SFTSettings(), CPU)
    before = [p.clone() for p in net.parameters()]
    told = learner.update([math.nan], lambda x: {"loss": (net(torch.ones(1, 1)).sum() * x, 1)}, 1, 0.5)
    assert told == {"skipped": (1.0, 1.0)}
    assert learner.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_many_such_steps_in_a_row_end_the_run_with_advice() -> None:
    net = model()
    learner = Learner({"net": net}, SFTSettings(), CPU)

    def diverge() -> None:
        learner.update([math.inf], lambda x: {"loss": (net(torch.ones(1, 1)).sum() * x, 1)}, 1, 0.5)

    for _ in range(19):
        diverge()
    with pytest.raises(TrainingError, match="20 steps in a row: lower the learning rate"):
        diverge()


def test_such_steps_are_counted_on_after_a_resume() -> None:
    net = model()
    first, second = (Learner({"net": net}, SFTSettings(), CPU) for _ in range(2))

    def diverge(learner: Learner) -> None:
        learner.update([math.inf], lambda x: {"loss": (net(torch.ones(1, 1)).sum() * x, 1)}, 1, 0.5)

    for _ in range(19):
        diverge(first)
    second.load(first.state())
    assert second.skipped == 19
    with pytest.raises(TrainingError, match="20 steps in a row"):
        diverge(second)


# ---------------------------------------------------------------------------------------------------------- training


def test_the_loss_falls_and_the_figures_are_told(tmp_path: Path) -> None:
    figures = learn(tmp_path, model(), log_every=4, evaluate_every=16)
    told = events(tmp_path, "metric")
    losses = [event["values"]["loss"] for event in told if "loss" in event["values"]]
    assert losses[-1] < losses[0] / 3
    assert figures["loss"] == losses[-1]
    assert [event["step"] for event in told if "heldout" in event["values"]] == [16, 32]
    assert {"loss", "grad_norm", "learning_rate", "tokens_per_second"} <= told[0]["values"].keys()
    assert figures["steps"] == 32
    assert figures["heldout"] == 32
    assert events(tmp_path, "progress")[-1]["step"] == 32


def test_steps_are_cut_where_a_most_is_set(tmp_path: Path) -> None:
    run_folder(tmp_path, SETTINGS)
    net = model()
    with open_run(tmp_path) as run:
        learner = Learner({"net": net}, run.config, CPU)
        figures = train(run, learner, points(), squared_error(net), epochs=4, max_steps=7)
    assert figures["steps"] == 7


def assert_it_goes_on_bit_for_bit(folder: Path, step: int, stop: dict[str, int], **changes: Any) -> None:
    """A run stopped at `step`, in b, ends like one that was left alone, in a."""
    undisturbed, resumed = model(), model()
    figures = learn(folder / "a", undisturbed, **changes)
    with pytest.raises(Stopped):
        learn(folder / "b", model(), **stop, **changes)
    assert (folder / "b" / f"checkpoint-{step}").is_dir()
    again = learn(folder / "b", resumed, **changes)
    for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert again["loss"] == figures["loss"]


@pytest.mark.parametrize("stop_after", [1, 13, 20])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    assert_it_goes_on_bit_for_bit(tmp_path, stop_after, {"stop_after": stop_after}, log_every=6)
    curves = [
        {
            event["step"]: event["values"]["loss"]
            for event in events(tmp_path / name, "metric")
            if "loss" in event["values"]
        }
        for name in "ab"
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("step", [10, 32])
def test_a_run_that_is_stopped_while_it_measures_goes_on_with_the_measurement(tmp_path: Path, step: int) -> None:
    assert_it_goes_on_bit_for_bit(tmp_path, step, {"stop_measuring": step}, evaluate_every=5)
    measured = [
        [event["step"] for event in events(tmp_path / name, "metric") if "heldout" in event["values"]] for name in "ab"
    ]
    assert measured[0] == measured[1] == [5, 10, 15, 20, 25, 30, 32]
    assert {event["phase"] for event in events(tmp_path / "b", "progress")} == {"training", "held-out rows"}


def test_a_time_budget_ends_the_run_early_with_the_schedule_at_its_end(tmp_path: Path) -> None:
    ticks = count(0, 0.2)
    figures = learn(tmp_path, model(), clock=lambda: next(ticks), minutes=0.1, log_every=1)
    assert 2 <= figures["steps"] < 32
    assert figures["heldout"] == figures["steps"]
    assert figures["learning_rate"] < 0.05 / 2


def test_checkpoints_come_at_their_steps(tmp_path: Path) -> None:
    learn(tmp_path, model(), checkpoint_every=10, keep_checkpoints=2)
    assert [event["folder"] for event in events(tmp_path, "checkpoint")] == [f"checkpoint-{n}" for n in (10, 20, 30)]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-20", "checkpoint-30"]


# -------------------------------------------------------------------------------------------------------------- means


def test_means_are_weighted_by_their_counts() -> None:
    means = Means()
    means.add({"loss": (6.0, 2), "accuracy": (1, 1)})
    means.add({"loss": (2.0, 2)})
    assert means.values() == {"loss": 2.0, "accuracy": 1.0}


def test_held_out_figures_cover_all_rows_or_a_part_that_does_not_change() -> None:
    seen: list[int] = []

    def batch(rows: Rows) -> Rows:
        seen.extend(rows.tolist())
        return rows

    examples = Examples(Sizes.of([10] * 20), batch)
    whole = mean_figures(examples, lambda rows: {"loss": (float(rows.sum()), len(rows))}, CPU, 30)
    assert whole == {"loss": 9.5}
    assert sorted(seen) == list(range(20))
    parts = []
    for _ in range(2):
        seen.clear()
        mean_figures(examples, lambda rows: {"loss": (0.0, len(rows))}, CPU, 30, max_tokens=50)
        parts.append(list(seen))
    assert parts[0] == parts[1]
    assert len(parts[0]) == 5


def test_a_checkpoint_of_another_model_is_not_loaded() -> None:
    other = Learner({"net": nn.Linear(1, 1)}, SFTSettings(), CPU)
    with pytest.raises(ValueError, match="not those of the model"):
        other.load(Learner({"net": model()}, SFTSettings(), CPU).state())


def test_turns_see_the_rows_in_orders_of_their_own_and_count_their_steps_on(tmp_path: Path) -> None:
    run_folder(tmp_path, SETTINGS | {"log_every": 1})
    x, y = line()
    seen: list[list[list[int]]] = []

    def batch(rows: Rows) -> tuple[Tensor, Tensor]:
        seen[-1].append(sorted(rows.tolist()))
        return x[rows], y[rows]

    with open_run(tmp_path) as run:
        for turn in range(2):
            seen.append([])
            net = model()
            learner = Learner({"net": net}, run.config, CPU)
            examples = Examples(Sizes.of([8] * len(x)), batch)
            train(run, learner, examples, squared_error(net), epochs=1, turn=turn, turns=2)
    orders = [list(chain.from_iterable(steps)) for steps in seen]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    told = [event["step"] for event in events(tmp_path, "metric") if "loss" in event["values"]]
    assert told == list(range(1, 2 * len(seen[0]) + 1))
    assert events(tmp_path, "progress")[-1]["total"] == 2 * len(seen[0])
