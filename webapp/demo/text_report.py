"""The report as lines for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any


def figure_line(measured: dict[str, Any], *, percent: bool = True) -> str:
    """A figure with its 95 % interval."""
    if measured["value"] is None:
        return "not known"
    scale, unit = (100, " %") if percent else (1, "")
    spread = "" if measured["low"] is None else f" ({measured['low'] * scale:.1f} to {measured['high'] * scale:.1f})"
    return f"{measured['value'] * scale:.1f}{unit}{spread}, n = {measured['n']}"


def as_text(report: dict[str, Any]) -> str:
    """The whole report."""
    wins, gold, length = report["gold_win_rate"], report["gold_score"], report["length"]
    rows = [
        ("base model", f"{report['parameters']:,} parameters, {report['bits_per_byte']:.3f} bits per byte"),
        ("SFT loss, held out", f"{report['sft_loss']:.3f} nats per token"),
        ("reward accuracy, held out", figure_line(report["reward_accuracy"])),
        ("annotators' own agreement", figure_line(report["annotator_agreement"])),
        ("gold score of base, SFT, PPO", ", ".join(f"{gold[name]['value']:.2f}" for name in ("base", "sft", "ppo"))),
        ("gold wins, SFT against base", figure_line(wins["sft_vs_base"])),
        ("gold wins, PPO against SFT", figure_line(wins["ppo_vs_sft"])),
        ("KL of PPO to SFT", f"{report['kl']:.2f} nats per reply"),
        ("mean length of SFT, PPO", f"{length['sft']:.1f}, {length['ppo']:.1f} tokens"),
    ]
    lines = ["", *(f"{name:<30} {value}" for name, value in rows), "", "Side by side"]
    for sample in report["samples"]:
        lines += ["", textwrap.indent(sample["prompt"], "> ")]
        lines += [
            f"  {name.upper():<4} {sample[name]['gold']:>5.2f}  " + sample[name]["reply"].replace("\n", "\n" + " " * 13)
            for name in ("base", "sft", "ppo")
        ]
    lines += ["", "Seconds"]
    lines += [f"  {name:<20} {value:>7.1f}" for name, value in report["seconds"].items()]
    return "\n".join(lines)
