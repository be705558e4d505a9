from __future__ import annotations

from training.rl.early_stop import PATIENCE, DivergenceMonitor

WELL = {"token_kl": 0.1, "entropy": 1.0, "ended": 0.9, "length": 20.0}
CAP = 64


def monitor(*, kl_penalized: bool = True) -> DivergenceMonitor:
    return DivergenceMonitor(kl_penalized, CAP)


def verdict_after(monitor: DivergenceMonitor, *phases: tuple[int, dict[str, float]]) -> str:
    verdict = ""
    for steps, changed in phases:
        for _ in range(steps):
            verdict = monitor.update(WELL | changed)
    return verdict


def test_a_healthy_run_goes_on() -> None:
    assert verdict_after(monitor(), (50, {})) == ""


def test_a_policy_that_runs_away_is_stopped() -> None:
    assert "ran away from the reference" in verdict_after(monitor(), (5, {}), (PATIENCE, {"token_kl": 4}))


def test_one_bad_step_is_forgiven() -> None:
    assert verdict_after(monitor(), (5, {}), (PATIENCE - 1, {"token_kl": 4})) == ""
    assert verdict_after(monitor(), (5, {}), (1, {"token_kl": 4}), (PATIENCE - 1, {})) == ""


def test_the_kl_is_not_watched_where_its_penalty_is_off() -> None:
    assert verdict_after(monitor(kl_penalized=False), (5, {}), (PATIENCE, {"token_kl": 4})) == ""


def test_replies_that_stop_ending_are_stopped() -> None:
    assert "ran away in length" in verdict_after(monitor(), (5, {}), (PATIENCE, {"ended": 0.0}))


def test_replies_that_never_ended_are_nothing_new() -> None:
    assert verdict_after(monitor(), (20, {"ended": 0.0})) == ""


def test_a_collapsed_entropy_is_stopped() -> None:
    assert "entropy collapsed" in verdict_after(monitor(), (5, {}), (PATIENCE, {"entropy": 0.001}))


def test_a_policy_that_was_certain_from_the_start_is_not() -> None:
    assert verdict_after(monitor(), (20, {"entropy": 0.001})) == ""


def test_replies_that_grow_to_where_they_are_cut_are_stopped() -> None:
    verdict = verdict_after(monitor(), (5, {}), (PATIENCE, {"length": 60.0}))
    assert "from 20 tokens to within a tenth of the 64" in verdict
    assert verdict_after(monitor(), (5, {}), (PATIENCE, {"length": 55.0})) == ""


def test_replies_that_were_long_from_the_start_are_not() -> None:
    assert verdict_after(monitor(), (5, {"length": 40.0}), (PATIENCE, {"length": 62.0})) == ""


def test_replies_that_shrink_to_next_to_nothing_are_stopped() -> None:
    verdict = verdict_after(monitor(), (5, {}), (PATIENCE, {"length": 1.5}))
    assert "from 20 tokens to fewer than 2.0" in verdict
    assert verdict_after(monitor(), (5, {}), (PATIENCE - 1, {"length": 1.5})) == ""
