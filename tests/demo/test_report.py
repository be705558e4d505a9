"""The report's figures, on numbers worked out by hand."""

from __future__ import annotations

import pytest

from webapp.demo.models import Demo
from webapp.demo.report import interval, seconds, win_rate
from webapp.demo.text_report import as_text

FIGURE = {"value": 0.75, "low": 0.7, "high": 0.8, "n": 300}
REPORT = {
    "seed": 0, "size": "full", "gold_win_rate": {"ppo_vs_sft": FIGURE, "sft_vs_base": FIGURE},
    "gold_score": dict.fromkeys(("base", "sft", "ppo"), FIGURE), "reward_accuracy": FIGURE,
    "annotator_agreement": FIGURE, "kl": 4.2, "length": {"base": 30.0, "sft": 14.0, "ppo": 12.5}, "bits_per_byte": 0.3,
    "sft_loss": 0.5, "parameters": 1_200_000, "seconds": {"pretrain": 100.0, "total": 500.0},
    "samples": [{"prompt": "Name three fruits.", "base": {"reply": "are", "gold": 0.0},
                 "sft": {"reply": "- apple\n- pear\n- saw", "gold": 5.0},
                 "ppo": {"reply": "- apple\n- pear\n- plum", "gold": 10.0}}],
}  # fmt: skip


def test_a_tie_is_half_a_win() -> None:
    assert win_rate([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 5.0, 1.0], [1, 2, 3, 4])["value"] == 0.625


def test_the_interval_holds_the_mean_and_shrinks_with_more_prompts() -> None:
    few, many = (interval([0.0, 1.0] * n, range(2 * n)) for n in (10, 200))
    assert few["low"] < 0.5 < few["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_the_interval_matches_the_normal_one() -> None:
    found = interval([0.0, 1.0] * 200, range(400))
    assert found["low"] == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert found["high"] == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_values_of_one_prompt_count_as_one_cluster() -> None:
    spread = interval([0.0, 1.0] * 50, range(100))
    clustered = interval([0.0, 1.0] * 50, [i // 10 for i in range(100)])
    assert clustered["n"] == 10
    assert clustered["high"] - clustered["low"] < spread["high"] - spread["low"]  # each cluster is half and half
    alike = interval([float(i // 10 % 2) for i in range(100)], [i // 10 for i in range(100)])
    assert alike["high"] - alike["low"] > spread["high"] - spread["low"]


def test_the_same_figures_give_the_same_interval() -> None:
    assert interval([0.1, 0.9, 0.4], [1, 2, 3]) == interval([0.1, 0.9, 0.4], [1, 2, 3])


def test_seconds_are_those_of_the_steps_that_have_ended() -> None:
    demo = Demo(began={"text": 100.0, "corpus": 103.0}, ended={"text": 103.0})
    assert seconds(demo)["text"] == 3.0
    assert "corpus" not in seconds(demo)


def test_the_terminal_shows_each_figure_with_its_interval() -> None:
    text = as_text(REPORT)
    assert "gold wins, PPO against SFT     75.0 % (70.0 to 80.0), n = 300" in text
    assert "4.20 nats per reply" in text
    assert "14.0, 12.5 tokens" in text


def test_the_terminal_shows_replies_side_by_side() -> None:
    text = as_text(REPORT)
    assert "> Name three fruits." in text
    assert "PPO  10.00  - apple" in text
