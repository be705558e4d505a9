"""The whole loop on real text and real preferences, through the application from outside.

Starts a site of its own, signs up, loads the files with `manage.py load`, and does all the rest over the HTTP API that
everybody has: snapshots, runs, deployment, a chat. Two reward models learn from different files; one teaches PPO, the
other, held apart, judges. Needs the data folder (--data) with the files named in FILES; takes about half an hour on two
cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks._application import Json, Person, Work, say
from webapp.supervisor.running import running

FILES: Final = {
    "text": ("pretrain/storybooks_en.jsonl.gz", "pretrain/fairytaleqa_stories_train.jsonl.gz"),
    "demonstrations": ("sft/dolly_subset.jsonl.gz",),
    "rankings": ("preferences/hh_helpful_base.jsonl.gz",),
    "judge": ("preferences/hh_helpful_online.jsonl.gz", "preferences/hh_helpful_rejection_sampled.jsonl.gz"),
}
CONTEXT: Final = 512
SAMPLING: Final = {"temperature": 1.0, "max_new_tokens": 64}
CONFIGS: Final[dict[str, Json]] = {
    "corpus": {},
    "tokenizer": {"vocabulary": 4096, "context": CONTEXT},
    "pretrain": {"layers": 4, "hidden": 256, "heads": 8, "context": CONTEXT, "epochs": 3, "learning_rate": 3e-3},
    "sft": {"epochs": 2, "learning_rate": 1e-3, "batch_tokens": 4096, "max_tokens": CONTEXT},
    "reward": {"epochs": 1, "learning_rate": 3e-4, "batch_tokens": 8192, "max_tokens": CONTEXT},
    "ppo": {
        "steps": 40, "prompts_per_step": 64, "epochs": 2, "learning_rate": 1e-4, "kl_coefficient": 0.1,
        "sampling": SAMPLING, "max_prompt_tokens": 256,
    },
    "evaluate": {"sampling": SAMPLING, "max_tokens": CONTEXT},
}  # fmt: skip


def launch(work: Work, stage: str, name: str = "", **inputs: Any) -> Json:
    return work.run(stage, CONFIGS[stage], name, **inputs)


def figures(url: str, data: Path) -> Iterator[tuple[str, object]]:
    """Once around the loop; the figures as they come."""
    files = {name: [data / path for path in paths] for name, paths in FILES.items()}
    person = Person(url)
    work = person.new_project("Real input", "Stories, then helpfulness.")
    run = partial(launch, work)
    work.load(files["text"], "text")
    work.load(files["demonstrations"], "demonstrations")
    shown = work.ids("prompts")
    work.load(files["rankings"], "rankings")
    rankings, asked = sorted(work.ids("rankings")), sorted(work.ids("prompts") - shown)
    work.load(files["judge"], "rankings")
    apart = sorted(work.ids("rankings") - set(rankings))

    corpus = run("corpus", snapshots=[work.snapshot("documents")])["id"]
    tokenizer = run("tokenizer", corpus_run=corpus)["output"]
    base = run("pretrain", corpus_run=corpus, tokenizer=tokenizer)
    yield "parameters", base["result"]["model"]["parameters"]
    yield "bits_per_byte", round(base["result"]["metrics"]["bits_per_byte"], 3)
    sft = run("sft", base=base["output"], snapshots=[work.snapshot("demonstrations")])
    yield "sft_loss", round(sft["result"]["metrics"]["heldout_loss"], 3)
    reward = run("reward", base=sft["output"], snapshots=[work.snapshot("rankings", ids=rankings)])
    yield from accuracy("reward", reward)
    judge = run("reward", "judge", base=sft["output"], snapshots=[work.snapshot("rankings", ids=apart)])
    yield from accuracy("judge", judge)
    chosen = work.snapshot("prompts", ids=asked)
    ppo = run("ppo", base=sft["output"], reward=reward["output"], snapshots=[chosen])
    heldout = work.snapshot("prompts", ids=asked, split="heldout")
    for name, model in (("own_reward", reward), ("judge", judge)):
        told = run(
            "evaluate", f"{name} of PPO against SFT", base=ppo["output"], baseline=sft["output"],
            reward=model["output"], snapshots=[heldout],
        )["result"]  # fmt: skip
        low, high, n = told["intervals"]["win_rate"]
        yield f"win_rate_by_{name}", f"{told['metrics']['win_rate']:.3f}({low:.3f}..{high:.3f})"
        yield f"prompts_of_{name}", n
    for key in ("kl", "policy_length", "baseline_length"):
        yield key, round(told["metrics"][key], 2)
    person.post(f"/api/v1/models/{ppo['output']}/deploy/", {"why": "to talk to it"})
    question = {"role": "user", "content": "What should I cook for dinner tonight?"}
    answer = person.post("/v1/chat/completions", {"model": work.slug, "messages": [question], "max_tokens": 64})
    say(f"> {question['content']}\n{answer['choices'][0]['message']['content']}")


def accuracy(name: str, run: Json) -> Iterator[tuple[str, object]]:
    told = run["result"]
    low, high, n = told["intervals"]["heldout_accuracy"]
    value = told["metrics"]["heldout_accuracy"]
    yield f"{name}_accuracy", f"{value:.3f}({low:.3f}..{high:.3f})"
    yield f"{name}_comparisons", n


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks real_input", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files")
    parser.add_argument("--home", type=Path, help="data folder of the site; default: one that goes afterwards")
    options = parser.parse_args(argv)
    if missing := [path for paths in FILES.values() for path in paths if not (options.data / path).is_file()]:
        raise SystemExit(f"real_input: {options.data} has no {missing[0]}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, running((options.home or Path(scratch) / "home").resolve()) as site:
        found = dict(figures(site.url, options.data.resolve()))
    found["minutes"] = round((time.monotonic() - began) / 60, 1)
    print("real_input", " ".join(f"{key}={value}" for key, value in found.items()))
