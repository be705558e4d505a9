"""The evaluate stage: measures a policy and a reward on whatever rows the folder has, and two policies side by side.

Over 300 lines: a stage is one module, and this one takes three kinds of measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch

from training.contract import (
    OUTPUT,
    DemonstrationRow,
    EvaluateSettings,
    InputError,
    PromptRow,
    RankingRow,
    Row,
    SampleRow,
    ScoresRow,
    TextRow,
)
from training.data.batching import Sizes, micro_batches
from training.data.chat_format import ChatFormat
from training.data.demonstrations import demonstration_examples, encode_demonstrations
from training.data.fitting import RowCounts
from training.data.packing import text_batch
from training.engine import Completion, Engine, context_limit
from training.models.checks import check_vocabulary
from training.models.compute import Compute, prepare
from training.models.forward import Forward
from training.models.loading import CausalModel, context_of, load_causal, load_tokenizer, unwrap
from training.models.trunk import tell_padding
from training.optim.losses import bits_per_byte, weighted_loss
from training.optim.meters import mean_figures
from training.preferences.accuracy import agreement
from training.preferences.ensemble import Scores
from training.preferences.losses import comparisons_of
from training.preferences.rankings import scorable
from training.preferences.rewards import Rewards, ScoredReply
from training.rl.rollouts import (
    ALWAYS_COUNTED,
    EncodedPrompt,
    correct_replies,
    encode_prompts,
    load_scorer,
    prompt_room,
    reply_requests,
    reward_figures,
    reward_formats,
    score_replies,
    warn_of_changes,
)
from training.run.intervals import Interval, clustered_mean, clustered_share, wins
from training.run.reporting import ProgressCallback
from training.run.run import Run

MICRO_TOKENS: Final = 8192
SHOWN: Final = 10


@dataclass(frozen=True)
class Speaker:
    """A policy with what it needs to speak."""

    model: CausalModel
    chat: ChatFormat

    @cached_property
    def forward(self) -> Forward:
        return Forward(self.model)

    @classmethod
    def load(cls, source: str, run: Run[EvaluateSettings], compute: Compute) -> Speaker:
        chat = ChatFormat(load_tokenizer(source, run), source)
        model = load_causal(source, compute)
        check_vocabulary(chat, model, source)
        return cls(model, chat)


@dataclass
class EvaluationReport:
    """Figures, intervals and counts as they come, and the rows of output/ by file name."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    output: dict[str, Sequence[Row]] = field(default_factory=dict)

    def take(self, name: str, interval: Interval) -> None:
        self.metrics[name] = interval.value
        if interval.low is not None and interval.high is not None:
            self.intervals[name] = (interval.low, interval.high, interval.n)


def main(run: Run[EvaluateSettings]) -> None:
    config = run.config
    texts, demonstrations = run.rows("text", TextRow), run.rows("demonstrations", DemonstrationRow)
    rankings, prompts = run.rows("rankings", RankingRow), run.rows("prompts", PromptRow)
    check_evaluation(config, texts, demonstrations, rankings, prompts)
    compute = prepare(run)
    has_reward = bool(config.reward or config.rewards)
    scored = run.measuring("scores")
    scorer = (
        load_scorer(config.reward, compute, config.pessimism, config.rewards, run.warn, scored) if has_reward else None
    )
    policy = Speaker.load(config.policy, run, compute) if config.policy else None
    report = EvaluationReport()
    if policy and (texts or demonstrations):
        tell_padding(run, policy.forward.trunk)
    if policy and texts:
        with run.timed("text"):
            max_tokens = min(config.max_tokens, context_of(policy.model))
            contents = [row.text for row in texts]
            report.metrics |= bits_per_byte(
                policy.forward, policy.chat, contents, compute, max_tokens, MICRO_TOKENS, run.measuring("text")
            )
        report.counts["texts"] = len(texts)
    run.stop_if_asked()
    if policy and demonstrations:
        with run.timed("demonstrations"):
            measure_demonstrations(run, report, policy, demonstrations, compute)
    run.stop_if_asked()
    if scorer and rankings and scorer.can_score(PromptRow(id="ranking", messages=rankings[0].messages)):
        with run.timed("rankings"):
            measure_rankings(run, report, scorer, rankings)
    run.stop_if_asked()
    if policy and prompts:
        baseline = Speaker.load(config.baseline, run, compute) if config.baseline else None
        compare_replies(run, report, policy, baseline, scorer, prompts, compute)
    run.metric(0, report.metrics)
    if report.output:
        with run.writing(OUTPUT) as folder:
            for name, rows in report.output.items():
                write_output_rows(folder / f"{name}.jsonl", rows)
    run.finish(report.metrics, intervals=report.intervals, counts=report.counts)


def check_evaluation(
    config: EvaluateSettings,
    texts: Sequence[TextRow],
    demonstrations: Sequence[DemonstrationRow],
    rankings: Sequence[RankingRow],
    prompts: Sequence[PromptRow],
) -> None:
    """Raises InputError if there is nothing to measure or the model to measure is not named."""
    if not (texts or demonstrations or rankings or prompts):
        raise InputError("evaluate: the snapshot has no text, demonstrations, rankings or prompts", code="no_data")
    for rows, name, source in (
        (texts, "text", config.policy),
        (demonstrations, "demonstrations", config.policy),
        (prompts, "prompts", config.policy),
        (rankings, "rankings", config.reward or config.rewards),
    ):
        if rows and not source:
            needed = "reward model" if name == "rankings" else "policy"
            raise InputError(
                f"evaluate: there are {name} to measure on, but no {needed} is named", code="config_invalid"
            )


def measure_demonstrations(
    run: Run[EvaluateSettings],
    report: EvaluationReport,
    policy: Speaker,
    rows: list[DemonstrationRow],
    compute: Compute,
) -> None:
    """The loss on what the assistant says, nats a token."""
    max_tokens = min(run.config.max_tokens, context_of(policy.model))
    usable, encoded, _, changes = encode_demonstrations(policy.chat, rows, max_tokens)
    report.counts |= {"demonstrations": len(usable), "demonstrations/left_out": len(rows) - len(usable)}
    report.counts |= changes.named(prefix="demonstrations/")
    if encoded:
        measured = mean_figures(
            demonstration_examples(encoded, policy.chat, compute.device).for_passes(packed=policy.forward.packs),
            lambda batch: weighted_loss(policy.forward, batch),
            compute,
            MICRO_TOKENS,
            on_progress=run.measuring("demonstrations"),
        )
        report.metrics["demonstration_loss"] = measured["loss"]


def measure_rankings(
    run: Run[EvaluateSettings], report: EvaluationReport, scorer: Rewards, rankings: Sequence[RankingRow]
) -> None:
    """How well the reward agrees with people, and its scores of every reply."""
    rows, changes = scorable(rankings, reward_formats(scorer))
    warn_of_changes(run, changes, len(rankings))
    report.counts |= changes.named(prefix="rankings/")
    prompts = [PromptRow(id=row.id, messages=row.messages) for row in rows]
    scored = scorer(
        [prompt for prompt, row in zip(prompts, rows, strict=True) for _ in row.replies],
        [reply for row in rows for reply in row.replies],
    )
    (scores,) = split([[reply.score or 0.0 for reply in scored]], rows)
    report.counts["rankings"] = len(rows)
    members = split(scorer.ensemble.last, rows) if scorer.ensemble is not None and not scorer.terms else []
    agreed = agreement(rows, scores, [[len(reply) for reply in row.replies] for row in rows], members)
    if agreed:
        report.metrics |= {f"reward_{name}": value for name, value in agreed.metrics.items()}
        report.take("reward_accuracy", agreed.accuracy)
        report.counts |= {f"reward/{name}": count for name, count in agreed.counts.items()}
    report.output["rankings"] = [
        ScoresRow(id=row.id, scores=row_scores, agrees=agrees(row, row_scores))
        for row, row_scores in zip(rows, scores, strict=True)
    ]


def split(scores: Sequence[Sequence[float]] | Scores, rows: Sequence[RankingRow]) -> list[list[list[float]]]:
    """Scores of all replies, for each of several scorers, by row."""
    split_scores = []
    for member_scores in scores:
        remaining = iter(member_scores)
        split_scores.append([[float(next(remaining)) for _ in row.replies] for row in rows])
    return split_scores


def agrees(row: RankingRow, scores: Sequence[float]) -> float:
    """The share of the person's decided comparisons that the scores see so, equal scores being half right."""
    decided = comparisons_of(row.groups, "drop")
    if not decided:
        return 0.5
    return sum(wins([scores[i] for i, *_ in decided], [scores[j] for _, j, _ in decided])) / len(decided)


def compare_replies(
    run: Run[EvaluateSettings],
    report: EvaluationReport,
    policy: Speaker,
    baseline: Speaker | None,
    scorer: Rewards | None,
    rows: Sequence[PromptRow],
    compute: Compute,
) -> None:
    """Replies of the policy and, on the same random numbers, of the baseline: scores, wins, lengths, KL."""
    speakers = {"policy": policy} | ({"baseline": baseline} if baseline else {})
    prompt_rows, room = fitting(run, report, speakers, rows, scorer)
    ids = [row.id for row in prompt_rows]
    scores: dict[str, list[float]] = {}
    scored: dict[str, list[ScoredReply]] = {}
    prompts: dict[str, list[EncodedPrompt]] = {}
    replies: dict[str, list[Completion]] = {}
    for name, speaker in speakers.items():
        with run.timed(f"{name} replies"):
            prompts[name], replies[name] = speak(run, name, speaker, prompt_rows, room)
        if scorer:
            with run.timed("score"):
                totals, scored[name] = score_replies(scorer, prompts[name], replies[name])
            scores[name] = totals.tolist()
            report.take(f"{name}_reward", clustered_mean(scores[name], ids))
            report.metrics |= reward_figures(scored[name], f"{name}_rewards/")
            correct = correct_replies(scorer, scored[name])
            if correct is not None:
                report.take(f"{name}_correct", clustered_share(correct, ids))
        report.metrics[f"{name}_length"] = sum(len(c.tokens) for c in replies[name]) / len(prompt_rows)
        report.metrics[f"{name}_ended"] = sum(c.finish == "stop" for c in replies[name]) / len(prompt_rows)
        file = "samples" if name == "policy" else name
        report.output[file] = compared_rows(prompt_rows, replies[name], scored.get(name))
        run.stop_if_asked()
    if baseline:
        if scores:
            report.take("win_rate", clustered_share(wins(scores["policy"], scores["baseline"]), ids))
        if policy.chat.tokenizer.get_vocab() == baseline.chat.tokenizer.get_vocab():
            with run.timed("kl"):
                kl = kl_to(baseline, prompts["policy"], replies["policy"], compute, run.measuring("kl"))
            report.take("kl", clustered_mean(kl, ids))
        else:
            run.warn("policy and baseline have different tokenizers, so there is no KL between them")
    for i in range(min(SHOWN, len(prompt_rows))):
        row, reply = prompt_rows[i], scored["policy"][i] if scored else ScoredReply(None, {})
        run.sample(0, row.messages[-1].content, replies["policy"][i].text, reply.score, reply.named(), row.reference)


def fitting(
    run: Run[EvaluateSettings],
    report: EvaluationReport,
    speakers: dict[str, Speaker],
    rows: Sequence[PromptRow],
    scorer: Rewards | None,
) -> tuple[list[PromptRow], int]:
    """The prompts to answer, and the most tokens of one that leave every speaker room for a full reply. Raises
    InputError if there is none."""
    config = run.config
    contexts = [context_limit(unwrap(speaker.model).config.get_text_config()) for speaker in speakers.values()]
    room = prompt_room(min(contexts), 1 << 30, config.sampling.max_new_tokens)
    fitting_rows, changes = list(rows), RowCounts("prompts", room)
    for number, speaker in enumerate(speakers.values()):
        prompts, own_changes = encode_prompts(fitting_rows, speaker.chat, room, config.long_prompts, scorer)
        fitting_rows = [prompt.row for prompt in prompts]
        if number:
            changes.add_left_out(own_changes)
        else:
            changes = own_changes
    warn_of_changes(run, changes, len(rows))
    report.counts |= {"prompts": len(fitting_rows)} | changes.named(*ALWAYS_COUNTED, prefix="prompts/")
    if not fitting_rows:
        raise InputError(
            f"evaluate: no prompt can be answered; {'; '.join(changes.sentences(len(rows)))}. Lower max_new_tokens, or "
            "set long_prompts to shorten",
            code="no_data",
        )
    return fitting_rows, room


def speak(
    run: Run[EvaluateSettings], name: str, speaker: Speaker, rows: Sequence[PromptRow], room: int
) -> tuple[list[EncodedPrompt], list[Completion]]:
    """The speaker's reply to each prompt, in at most `room` tokens. Raises Stopped."""
    prompts, _ = encode_prompts(rows, speaker.chat, room, run.config.long_prompts)
    engine = Engine(
        speaker.model, speaker.chat.tokenizer, slots=min(run.config.slots, len(prompts)), live=False,
        stop_ids=speaker.chat.stop_ids,
    )  # fmt: skip

    measuring = run.measuring(f"{name} replies")

    def ended(replies: int) -> None:
        measuring(replies, len(prompts))

    ended(0)
    requests = reply_requests(engine, prompts, run.config.sampling, (run.config.seed, "evaluate"))
    return prompts, engine.generate(requests, ended)


@torch.no_grad()
def kl_to(
    reference: Speaker,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    compute: Compute,
    on_progress: ProgressCallback,
) -> list[float]:
    """For each reply the sum over its tokens of log p(token) - log q(token), an unbiased estimate of the KL divergence
    from the reference in nats a reply, where it was sampled at temperature 1."""
    sequences = [[*p.ids, *c.tokens] for p, c in zip(prompts, completions, strict=True)]
    masks = [[False] * len(p.ids) + [True] * len(c.tokens) for p, c in zip(prompts, completions, strict=True)]
    differences = torch.tensor([sum(completion.logprobs) for completion in completions])
    sizes = Sizes.of([len(ids) for ids in sequences], pads=not reference.forward.packs)
    done = 0
    for chosen in micro_batches(np.arange(len(sequences)), sizes, MICRO_TOKENS):
        on_progress(done, len(sequences))
        batch = text_batch(
            [sequences[i] for i in chosen], [masks[i] for i in chosen], reference.chat.pad_id, compute.device
        )
        with compute.autocast():
            losses = reference.forward.losses(batch).cpu()
        lengths = [len(completions[i].tokens) for i in chosen]
        differences[chosen] += torch.stack([reply_losses.sum() for reply_losses in losses.split(lengths)])
        done += len(chosen)
    on_progress(done, len(sequences))
    return differences.tolist()


def compared_rows(
    rows: Sequence[PromptRow], completions: Sequence[Completion], scored: Sequence[ScoredReply] | None
) -> list[SampleRow]:
    return [
        SampleRow(
            id=f"{row.id}#0",
            prompt_id=row.id,
            messages=row.messages,
            reply=completion.text,
            tokens=len(completion.tokens),
            finish="stop" if completion.finish == "stop" else "length",
            logprob=sum(completion.logprobs) / max(1, len(completion.logprobs)),
            reward=scored[i].score if scored else None,
            rewards=scored[i].components if scored and len(scored[i].components) > 1 else {},
            reference=row.reference,
        )
        for i, (row, completion) in enumerate(zip(rows, completions, strict=True))
    ]


def write_output_rows(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
