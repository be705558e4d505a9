"""The whole loop on real text and real preferences, through the application from outside.

Starts a site of its own, signs up, loads the files with `manage.py load`, and does all the rest over the HTTP API that
everybody has: snapshots, runs, deployment, a chat. Two reward models learn from different files; one teaches PPO, the
other, held apart, judges. Needs the data folder (--data) with the files named in FILES; takes about half an hour on two
cores.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from webapp.home_folder import ROOT
from webapp.supervisor.running import running

Json = dict[str, Any]
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
LOOK_SECONDS: Final = 2.0
ENDED: Final = ("succeeded", "failed", "cancelled")


class Person:
    """Who signs up first, makes a project, and does the rest with an API token."""

    def __init__(self, url: str) -> None:
        self.web = httpx.Client(base_url=url, follow_redirects=True, timeout=60)
        self.email, password = "owner@example.org", secrets.token_urlsafe(12)
        self.send("/accounts/signup/", {"name": "Owner", "email": self.email, "password1": password})
        page = self.send("/projects/new/", {"name": "Real input", "description": "Stories, then helpfulness."})
        self.slug = re.findall(r"/projects/([\w-]+)/", str(page.url))[0]
        page = self.send("/profile/tokens/", {"days": "30"})
        self.token = re.findall(r"\b[0-9a-f]{64}\b", page.text)[0]
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.token}"}, timeout=120)

    def send(self, path: str, fields: dict[str, str]) -> httpx.Response:
        """A form, as a browser sends it."""
        self.web.get("/accounts/login/" if path.startswith("/accounts") else "/profile/")
        token = self.web.cookies["csrftoken"]
        headers = {"Referer": str(self.web.base_url)}
        return self.web.post(path, data=fields | {"csrfmiddlewaretoken": token}, headers=headers).raise_for_status()

    def get(self, path: str) -> Json:
        return dict(self.api.get(path).raise_for_status().json())

    def post(self, path: str, body: Json) -> Json:
        answer = self.api.post(path, json=body)
        if answer.is_error:
            raise SystemExit(f"{path}: {answer.text[:500]}")
        return dict(answer.json())

    def rows(self, kind: str) -> Iterator[Json]:
        """All rows of a kind, page by page, newest first."""
        older = None
        while True:
            page = self.get(f"/api/v1/projects/{self.slug}/{kind}/" + (f"?before={older}" if older else ""))
            yield from page["results"]
            if (older := page["older"]) is None:
                return

    def ids(self, kind: str) -> set[int]:
        return {row["id"] for row in self.rows(kind)}

    def snapshot(self, kind: str, **filters: Any) -> int:
        made = self.post(f"/api/v1/projects/{self.slug}/snapshots/", {"kind": kind, "filters": filters})
        say(f"snapshot of {made['counts']['train']:,} {kind} and {made['counts']['heldout']:,} held out")
        return int(made["id"])

    def run(self, stage: str, name: str = "", **inputs: Any) -> Json:
        """Launch a stage and wait for its end; the run as the API tells it."""
        body = {"stage": stage, "name": name or stage, "config": CONFIGS[stage], **inputs}
        run = self.post(f"/api/v1/projects/{self.slug}/runs/", body)
        while run["state"] not in ENDED:
            time.sleep(LOOK_SECONDS)
            run = self.get(f"/api/v1/runs/{run['id']}/")
        if run["state"] != "succeeded":
            raise SystemExit(f"{run['name']} {run['state']}: {run['error']}")
        figures = {key: round(value, 3) for key, value in run["result"]["metrics"].items()}
        say(f"{run['name']}: {run['result']['seconds']['total']:.0f} s {json.dumps(figures)}")
        return run


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def load(slug: str, paths: Sequence[Path], kind: str) -> None:
    """As a person does who sits at the server."""
    command = [sys.executable, "manage.py", "load", slug, *map(str, paths), "--as", kind]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


def figures(url: str, data: Path) -> Iterator[tuple[str, object]]:
    """Once around the loop; the figures as they come."""
    files = {name: [data / path for path in paths] for name, paths in FILES.items()}
    person = Person(url)
    load(person.slug, files["text"], "text")
    load(person.slug, files["demonstrations"], "demonstrations")
    shown = person.ids("prompts")
    load(person.slug, files["rankings"], "rankings")
    rankings, asked = sorted(person.ids("rankings")), sorted(person.ids("prompts") - shown)
    load(person.slug, files["judge"], "rankings")
    apart = sorted(person.ids("rankings") - set(rankings))

    corpus = person.run("corpus", snapshots=[person.snapshot("documents")])["id"]
    tokenizer = person.run("tokenizer", corpus_run=corpus)["output"]
    base = person.run("pretrain", corpus_run=corpus, tokenizer=tokenizer)
    yield "parameters", base["result"]["model"]["parameters"]
    yield "bits_per_byte", round(base["result"]["metrics"]["bits_per_byte"], 3)
    sft = person.run("sft", base=base["output"], snapshots=[person.snapshot("demonstrations")])
    yield "sft_loss", round(sft["result"]["metrics"]["heldout_loss"], 3)
    reward = person.run("reward", base=sft["output"], snapshots=[person.snapshot("rankings", ids=rankings)])
    yield from accuracy("reward", reward)
    judge = person.run("reward", "judge", base=sft["output"], snapshots=[person.snapshot("rankings", ids=apart)])
    yield from accuracy("judge", judge)
    chosen = person.snapshot("prompts", ids=asked)
    ppo = person.run("ppo", base=sft["output"], reward=reward["output"], snapshots=[chosen])
    heldout = person.snapshot("prompts", ids=asked, split="heldout")
    for name, model in (("own_reward", reward), ("judge", judge)):
        told = person.run(
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
    answer = person.post("/v1/chat/completions", {"model": person.slug, "messages": [question], "max_tokens": 64})
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
