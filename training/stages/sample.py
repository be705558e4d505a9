"""Stage `sample`: K replies to each prompt, for people to rank."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from training.contract import DATA, OUTPUT, InputError, PromptRow, SampleRow, SampleSettings
from training.data.chat_format import ChatFormat
from training.engine import Completion, Engine, EngineRequest, SamplingParams, derive_seed
from training.models.checks import check_vocabulary
from training.models.compute import prepare
from training.models.loading import load_causal, load_tokenizer, model_info
from training.preferences.rewards import ScoredReply
from training.rl.rollouts import (
    ALWAYS_COUNTED,
    EncodedPrompt,
    Scorer,
    encode_prompts,
    load_scorer,
    prompt_room,
    warn_of_changes,
)
from training.run.durable import write_aside
from training.run.run import Run

PROGRESS: Final = "samples.jsonl"  # replies so far, in the run folder; a killed run goes on from here
REDRAWS: Final = 4
AT_ONCE: Final = 32  # replies asked for at a time, as a multiple of the slots: enough to keep them full
SHOWN_EVERY: Final = 128  # prompts to one whose reply is shown
SCORED_AT_ONCE: Final = 16  # replies: a judge's answers are not long in coming


def main(run: Run[SampleSettings]) -> None:
    config = run.config
    rows = run.rows("prompts", PromptRow)
    ids = {row.id for row in rows}
    if len(ids) < len(rows):
        raise InputError(f"prompts.jsonl: {len(rows) - len(ids)} ids occur more than once", code="data_invalid")
    compute = prepare(run)
    with run.timed("load"):
        tokenizer = load_tokenizer(config.policy, run)
        chat = ChatFormat(tokenizer, config.policy)
        model = load_causal(config.policy, compute)
        check_vocabulary(chat, model, config.policy)
        described = model_info(model)
        engine = Engine(model, tokenizer, slots=config.slots, live=False)
        del model
        has_reward = bool(config.reward or config.rewards)
        scorer = load_scorer(config.reward, compute, config.pessimism, config.rewards, run.warn) if has_reward else None
    room = prompt_room(engine.context, config.max_prompt_tokens, config.sampling.max_new_tokens)
    prompts, changes = encode_prompts(rows, chat, room, config.long_prompts, scorer, keep_unscored=True)
    if not prompts:
        raise InputError(f"sample: {'; '.join(changes.sentences(len(rows)))}", code="prompts_too_long")
    warn_of_changes(run, changes, len(rows))

    progress = SampleProgress(run.folder / PROGRESS, inputs_fingerprint(run))
    size = max(1, AT_ONCE * config.slots // config.replies)
    shown = {prompt.row.id: place for place, prompt in enumerate(prompts, 1) if place % SHOWN_EVERY == 1}
    run.progress(len(progress.done), len(prompts), "sampling")
    run.stop_if_asked()
    for begin in range(0, len(prompts), size):
        batch = [prompt for prompt in prompts[begin : begin + size] if prompt.row.id not in progress.done]
        drawn = draw_replies(engine, batch, config, frozenset(chat.stop_ids) | engine.stop_ids, lambda: run.stopping)
        while True:
            with run.timed("generate"):
                groups = list(islice(drawn, max(1, SCORED_AT_ONCE // config.replies)))
            if not groups:
                break
            with run.timed("score"):
                samples = list(sample_rows([prompt for prompt, _ in groups], [group for _, group in groups], scorer))
            for rows_of_prompt in samples:
                show(run, rows_of_prompt[0], shown)
            progress.add([row for rows_of_prompt in samples for row in rows_of_prompt])
            run.progress(len(progress.done), len(prompts), "sampling")
        run.stop_if_asked()

    all_samples = [row for prompt in prompts for row in progress.done[prompt.row.id]]
    with run.writing(OUTPUT) as folder:
        (folder / "samples.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in all_samples))
    counts = {
        "prompts": len(rows),
        **changes.named(*ALWAYS_COUNTED),
        "replies": len(all_samples),
        "repeated": repeated(all_samples),
    }
    run.finish(figures(all_samples), counts=counts, model=described)
    progress.remove()


def show(run: Run[SampleSettings], row: SampleRow, shown: Mapping[str, int]) -> None:
    """Tell of a reply if it is to one of the prompts that are `shown`, at the prompt's place: the same replies at the
    same steps whenever the run was stopped."""
    if row.prompt_id in shown:
        run.sample(
            shown[row.prompt_id], row.messages[-1].content, row.reply, row.reward,
            {name: value for name, value in row.rewards.items() if value is not None}, row.reference,
        )  # fmt: skip


def draw_replies(
    engine: Engine,
    prompts: Sequence[EncodedPrompt],
    config: SampleSettings,
    stop_ids: frozenset[int],
    stopping: Callable[[], bool],
) -> Iterator[tuple[EncodedPrompt, list[Completion]]]:
    """(prompt, its K replies) as they are there, until `stopping` turns true. Reply k is drawn from the stream of
    (seed, prompt id, k, redraws so far), so it is the same whatever other prompts there are. With `distinct`, one that
    repeats an earlier one is drawn again."""
    pending = [(i, k) for i in range(len(prompts)) for k in range(config.replies)]
    replies: dict[tuple[int, int], Completion] = {}
    draws = 1 + REDRAWS if config.distinct and config.sampling.temperature > 0 else 1
    for attempt in range(draws):
        requests = [
            EngineRequest(
                prompts[i].ids,
                SamplingParams.of(
                    config.sampling, seed=derive_seed(config.seed, prompts[i].row.id, k, attempt), stop_ids=stop_ids
                ),
            )
            for i, k in pending
        ]
        awaited = Counter(i for i, _ in pending)
        repeating: list[tuple[int, int]] = []
        for place, completion in engine.stream(requests, stopping):
            i, k = pending[place]
            replies[i, k] = completion
            awaited[i] -= 1
            if awaited[i]:
                continue
            group = [replies[i, k] for k in range(config.replies)]
            texts = [reply.text for reply in group]
            repeats = [(i, k) for k, text in enumerate(texts) if text in texts[:k]]
            if repeats and attempt + 1 < draws:
                repeating += repeats
            else:
                yield prompts[i], group
        if not repeating:
            break
        pending = sorted(repeating)


def sample_rows(
    prompts: Sequence[EncodedPrompt], replies: Sequence[Sequence[Completion]], scorer: Scorer | None
) -> Iterator[list[SampleRow]]:
    """The rows of each prompt's replies, scored if there is a reward model."""
    rows = [prompt.row for prompt, group in zip(prompts, replies, strict=True) for _ in group]
    texts = [reply.text for group in replies for reply in group]
    scored = iter(scorer(rows, texts) if scorer else [ScoredReply(None, {})] * len(rows))
    for prompt, group in zip(prompts, replies, strict=True):
        reply_scores = [next(scored) for _ in group]
        yield [
            SampleRow(
                id=f"{prompt.row.id}#{k}",
                prompt_id=prompt.row.id,
                messages=prompt.row.messages,
                reply=reply.text,
                tokens=len(reply.tokens),
                finish="stop" if reply.finish == "stop" else "length",
                logprob=sum(reply.logprobs) / len(reply.logprobs),
                reward=reply_scores[k].score,
                rewards=reply_scores[k].components if len(reply_scores[k].components) > 1 else {},
                reference=prompt.row.reference,
            )
            for k, reply in enumerate(group)
        ]


def repeated(rows: Sequence[SampleRow]) -> int:
    """Replies with the same text as another one to the same prompt."""
    return len(rows) - len({(row.prompt_id, row.reply) for row in rows})


def figures(rows: Sequence[SampleRow]) -> dict[str, float]:
    measured = {
        "tokens": sum(row.tokens for row in rows) / len(rows),
        "ended": sum(row.finish == "stop" for row in rows) / len(rows),
        "logprob": sum(row.logprob for row in rows) / len(rows),
    }
    rewards = [row.reward for row in rows if row.reward is not None]
    return measured | ({"reward": sum(rewards) / len(rewards)} if rewards else {})


def inputs_fingerprint(run: Run[SampleSettings]) -> str:
    """What the replies follow from: another config or other prompts start over."""
    digest = hashlib.sha256(run.config.model_dump_json(exclude={"threads", "slots"}).encode())
    digest.update((run.folder / DATA / "prompts.jsonl").read_bytes())
    return digest.hexdigest()


class SampleProgress:
    """The rows of the prompts that are done, kept in a file that a kill at any moment leaves usable: each line holds
    all replies to one prompt, and a torn last line is cut off."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.done: dict[str, list[SampleRow]] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        if lines and lines[0] == fingerprint.encode():
            for line in lines[1:]:
                try:
                    rows = [SampleRow.model_validate(row) for row in json.loads(line)]
                except (ValueError, ValidationError):
                    break
                self.done[rows[0].prompt_id] = rows
        write_aside(path, fingerprint + "\n" + "".join(map(self._line, self.done.values())))

    def add(self, rows: Sequence[SampleRow]) -> None:
        groups: dict[str, list[SampleRow]] = {}
        for row in rows:
            groups.setdefault(row.prompt_id, []).append(row)
        with self.path.open("a") as file:
            file.write("".join(map(self._line, groups.values())))
            file.flush()
            os.fsync(file.fileno())
        self.done |= groups

    def remove(self) -> None:
        self.path.unlink()

    def _line(self, rows: Sequence[SampleRow]) -> str:
        return json.dumps([row.model_dump() for row in rows]) + "\n"
