"""What a language model knows apart from what it was taught: ARC-easy and BLiMP by log-likelihood.

ARC-easy (Clark et al. 2018, arXiv:1803.05457): the choice with the highest log-probability per character after
"Question: … Answer:". BLiMP (Warstadt et al. 2020, arXiv:1912.00582): the likelier one of two sentences.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from training.data.batching import Sizes, micro_batches
from training.data.packing import text_batch
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal, load_tokenizer

ARC: Final = "eval/arc_easy_test.jsonl.gz"
BLIMP: Final = "eval/blimp.jsonl.gz"
QUESTIONS: Final = 800
SENTENCE_PAIRS: Final = 20  # of each of BLiMP's paradigms
MICRO_TOKENS: Final = 4096
ITEM: Final = re.compile(r"question: (?P<question>.*?)\n\n(?P<choices>Answer1:.*?)\n\nAnswer format", re.DOTALL)


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Reader:
    """Sums of log-probabilities of continuations, in nats."""

    def __init__(self, folder: Path) -> None:
        self.compute = Compute(torch.device("cpu"), torch.float32)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(str(folder))
        self.forward = Forward(load_causal(str(folder), self.compute))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def logprobs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """For each (text before, continuation) the log-probability of the continuation."""
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        before = [[start, *self.ids(text)] for text, _ in pairs]
        after = [self.ids(text) for _, text in pairs]
        sequences = [a + b for a, b in zip(before, after, strict=True)]
        masks = [[False] * len(a) + [True] * len(b) for a, b in zip(before, after, strict=True)]
        sums = np.zeros(len(pairs))
        for chosen in micro_batches(np.arange(len(pairs)), Sizes.of([len(ids) for ids in sequences]), MICRO_TOKENS):
            batch = text_batch([sequences[i] for i in chosen], [masks[i] for i in chosen], 0, self.compute.device)
            losses = self.forward.losses(batch).split([len(after[i]) for i in chosen])
            sums[chosen] = [-float(of_one.sum()) for of_one in losses]
        return sums.tolist()


def arc_easy(reader: Reader, data: Path) -> list[float]:
    """1 or 0 for each question, the same ones for every model."""
    items = random.Random(0).sample(rows(data / ARC), QUESTIONS)
    asked: list[tuple[str, str]] = []
    spans, answers = [], []
    for item in items:
        found = ITEM.search(item["instruction"])
        if found is None:
            raise SystemExit(f"{ARC}: a row is no question with choices: {item['instruction'][:100]}")
        choices = [c.strip() for c in re.split(r"Answer\d: ", found["choices"])[1:]]
        spans.append((len(asked), choices))
        asked += [(f"Question: {found['question']}\nAnswer:", f" {choice}") for choice in choices]
        answers.append(int(item["answer"].removeprefix("answer")) - 1)
    logprobs = reader.logprobs(asked)
    right = []
    for (first, choices), answer in zip(spans, answers, strict=True):
        per_character = [logprobs[first + i] / len(choice) for i, choice in enumerate(choices)]
        right.append(float(int(np.argmax(per_character)) == answer))
    return right


def blimp(reader: Reader, data: Path) -> list[float]:
    """1 or 0 for each pair of sentences, the same ones for every model."""
    by_paradigm: dict[str, list[dict[str, Any]]] = {}
    for row in rows(data / BLIMP):
        by_paradigm.setdefault(row["UID"], []).append(row)
    pairs = [row for paradigm in by_paradigm.values() for row in random.Random(0).sample(paradigm, SENTENCE_PAIRS)]
    good = reader.logprobs([("", row["sentence_good"]) for row in pairs])
    bad = reader.logprobs([("", row["sentence_bad"]) for row in pairs])
    return [float(a > b) for a, b in zip(good, bad, strict=True)]
