"""The reward stage: learns from people's rankings what a good reply is.

Every reply is encoded once, however many people ranked it, and all comparisons are read from that one pass.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from training.contract import MODEL, RankingRow, RewardSettings
from training.data.batching import Examples
from training.data.chat_format import ChatFormat
from training.distributed.collectives import all_gather, barrier, map_sharded
from training.models.adapters import merged
from training.models.checks import check_vocabulary
from training.models.compute import Compute, prepare
from training.models.loading import CausalModel, context_named, load_tokenizer, model_info
from training.models.quantization import is_quantized
from training.models.trunk import tell_padding
from training.optim.learner import Learner
from training.optim.loop import train
from training.optim.meters import Sums, mean_figures
from training.preferences.accuracy import Agreement, agreement
from training.preferences.annotator_reliability import Annotators, TieRate, annotators_of, weights_of
from training.preferences.ensemble import centered, combined
from training.preferences.losses import Comparisons, preference_loss
from training.preferences.rankings import (
    RankingBatch,
    encode_heldout,
    ranking_examples,
    share_of_ties,
    usable_rankings_of,
)
from training.preferences.reward_model import (
    RewardModel,
    load_members,
    member_name,
    onto_unquantized,
    reward_from_language_model,
    save_reward,
    score_ids,
)
from training.run.reporting import ProgressCallback
from training.run.run import Run

TIES_RATE = 1e-2  # of Davidson's one parameter, which begins near its place
PEOPLE_RATE = 5e-2  # of the logarithms of reliabilities, which may have far to go
MEAN_OVER = 65_536  # tokens
HELD_OUT = "held-out replies"
FIGURES = "figures.json"  # of an ensemble's member and the clock after it, while the others are trained


class Lesson(NamedTuple):
    """What every member of an ensemble learns from and is measured on."""

    chat: ChatFormat
    compute: Compute
    max_tokens: int  # of prompt and reply
    rows: list[RankingRow]
    examples: Examples[RankingBatch]
    heldout: list[RankingRow]
    encoded: list[list[list[int]]]  # the held-out rows' replies


class Learned(NamedTuple):
    model: RewardModel
    figures: dict[str, float]
    agreed: Agreement | None  # on held-out rankings
    config_entries: dict[str, float]  # what the model's config says of its training
    described: dict[str, Any]  # for result.json


def main(run: Run[RewardSettings]) -> None:
    config = run.config
    compute = prepare(run)
    rows, left_out = usable_rankings_of(run.rows("rankings", RankingRow, config.min_rows), config)
    heldout, _ = usable_rankings_of(run.rows("heldout", RankingRow), config)
    chat = ChatFormat(load_tokenizer(config.base, run), config.base)
    max_tokens = min(config.max_tokens, context_named(config.base))
    with run.timed("encoding"):
        rows, examples, changes = ranking_examples(rows, chat, config, max_tokens, compute)
        heldout, held, heldout_changes = encode_heldout(heldout, chat, max_tokens)
    for sentence in changes.sentences(len(rows) + changes.left_out):
        run.warn(sentence)
    lesson = Lesson(chat, compute, max_tokens, rows, examples, heldout, held)
    if config.ensemble == 1:
        trained = learn(run, lesson)
        figures, agreed, described = trained.figures, trained.agreed, trained.described
        if run.main:
            with run.writing(MODEL) as folder:
                save_reward(trained.model, chat.tokenizer, folder, trained.config_entries)
    else:
        figures, described = learn_ensemble(run, lesson)
        members = [model for model, _ in load_members(str(run.folder / MODEL), compute)]
        with run.timed("evaluation"):
            agreed = agree(members, lesson, config.micro_tokens, run.measuring(HELD_OUT, stops=False))
    intervals = {}
    if agreed:
        figures |= {f"heldout_{name}": value for name, value in agreed.metrics.items()}
        if agreed.accuracy.low is not None and agreed.accuracy.high is not None:
            intervals["heldout_accuracy"] = (agreed.accuracy.low, agreed.accuracy.high, agreed.accuracy.n)
    run.finish(
        figures,
        intervals=intervals,
        counts={
            "rankings": len(rows),
            "heldout": len(heldout),
            **left_out,
            **changes.named(),
            **heldout_changes.named(prefix="heldout/"),
        }
        | ({f"heldout/{name}": count for name, count in agreed.counts.items()} if agreed else {}),
        model=described,
    )
    for member in range(config.ensemble if run.main else 0):
        shutil.rmtree(run.folder / member_name(member), ignore_errors=True)


def learn(run: Run[RewardSettings], lesson: Lesson, member: int = 0) -> Learned:
    """Train one model. Members of an ensemble differ in where their heads begin and in the order of the rows."""
    config, compute, rows = run.config, lesson.compute, lesson.rows
    torch.manual_seed(config.seed + member)
    language, model = reward_from_language_model(
        config.base, compute, config.lora, checkpointing=config.activation_checkpointing
    )
    check_vocabulary(lesson.chat, language, config.base)
    if member == 0:
        tell_padding(run, model.states)
    ties = TieRate(share_of_ties(rows)).to(compute.device) if config.ties == "davidson" else None
    people = Annotators(weights_of(rows)).to(compute.device) if config.annotator_reliability else None
    others = {"ties": ties, "people": people}
    modules: dict[str, nn.Module] = {"model": model} | {
        name: module for name, module in others.items() if module is not None
    }
    learner = Learner(modules, config, compute, rates={"ties": TIES_RATE, "people": PEOPLE_RATE})

    def loss(batch: RankingBatch) -> Sums:
        scores = model(batch.packed)
        total = preference_loss(
            scores,
            batch.comparisons,
            log_nu=ties.log_nu if ties else None,
            margin=config.margin,
            centring=config.centring,
            reliability=people() if people else None,
        )
        if people:
            total = total + people.penalty(batch.comparisons)
        return {"loss": (total, batch.weight), **accuracy(scores.detach(), batch.comparisons)}

    agreed: Agreement | None = None

    def evaluate(step: int, final: bool) -> dict[str, float]:  # noqa: ARG001 - every evaluation looks at all rows
        nonlocal agreed
        switch_adapter_dropout(language, on=False)
        agreed = agree([model], lesson, config.micro_tokens, run.measuring(HELD_OUT))
        switch_adapter_dropout(language, on=True)
        return {f"heldout_{name}": value for name, value in agreed.metrics.items()} if agreed else {}

    switch_adapter_dropout(language, on=True)
    with run.timed("training"):
        figures = train(
            run, learner, lesson.examples.for_passes(packed=model.states.packs), loss,
            epochs=config.epochs, max_steps=config.max_steps, turn=member, turns=config.ensemble, evaluate=evaluate,
        )  # fmt: skip
    switch_adapter_dropout(language, on=False)
    with run.timed("evaluation"):
        if config.lora.rank:
            rounded = is_quantized(language)
            language = merge_adapter(language, model, config, lesson.compute)
            if rounded:  # the weights that are saved are others than those that were measured
                agreed = agree([model], lesson, config.micro_tokens, run.measuring(HELD_OUT, stops=False))
        mean = mean_score(model, lesson, config.micro_tokens, run.measuring("mean score", stops=False))
    temperature = agreed.temperature if agreed else 1.0
    config_entries = {"max_tokens": lesson.max_tokens, "temperature": temperature, "mean": mean}
    if ties:
        figures["log_nu"] = config_entries["log_nu"] = ties.log_nu.item()
    if people:
        figures |= {
            f"annotator_reliability/{name}": value
            for name, value in zip(annotators_of(rows), people()[1:].tolist(), strict=True)
        }
    return Learned(model, figures, agreed, config_entries, model_info(language, "reward"))


def merge_adapter(language: CausalModel, model: RewardModel, config: RewardSettings, compute: Compute) -> CausalModel:
    """The language model, and in it the trunk of the reward model, with the adapter in its weights. A base in 4 bits
    is left for the one that was published, in the precision that is computed in: files then have what is measured."""
    if not isinstance(language, PeftModel):
        return language
    if not is_quantized(language):
        return merged(language, torch.float32)  # as its files will hold it
    whole = merged(onto_unquantized(language, config.base, compute, config.lora))
    model.take_trunk(whole.base_model)
    return whole.to(compute.device)


def switch_adapter_dropout(model: nn.Module, *, on: bool) -> None:
    """The adapter's own dropout alone: that of the base model stays off, as it is when the reward model scores."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.train(on)


def learn_ensemble(run: Run[RewardSettings], lesson: Lesson) -> tuple[dict[str, float], dict[str, Any]]:
    """Train the members one after the other into folders of their own, of which those that an earlier process has left
    stay, and gather them in model/. Returns their mean figures, and what result.json says of the model."""
    config = run.config
    places = [run.folder / member_name(member) for member in range(config.ensemble)]
    for member, member_folder in enumerate(places):
        if all_gather(member_folder.exists())[0]:
            run.go_on_after(json.loads((member_folder / FIGURES).read_text())[2])
            continue
        trained = learn(run, lesson, member)
        if trained.agreed:
            trained.figures["heldout_member_accuracy"] = trained.agreed.metrics["accuracy"]
        extra = {"members": config.ensemble} if member == 0 else {}  # its folder becomes the top of model/
        if run.main:
            with run.writing(member_folder.name) as folder:
                save_reward(trained.model, lesson.chat.tokenizer, folder, trained.config_entries | extra)
                (folder / FIGURES).write_text(json.dumps([trained.figures, trained.described, run.spent()]))
        barrier()
    figures_of_members = [json.loads((member_folder / FIGURES).read_text()) for member_folder in places]
    if run.main:
        with run.writing(MODEL) as folder:
            for member, member_folder in enumerate(places):
                into = folder / member_name(member) if member else folder
                shutil.copytree(member_folder, into, ignore=shutil.ignore_patterns(FIGURES), dirs_exist_ok=True)
    barrier()
    means = mean_by_name([figures for figures, *_ in figures_of_members])
    means |= {name: sum(figures[name] for figures, *_ in figures_of_members) for name in ("steps", "skipped")}
    return means, figures_of_members[0][1] | {"members": config.ensemble}


def mean_by_name(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each figure's mean over the members that have it: not every one has, for instance, pairs of every certainty."""
    names = dict.fromkeys(name for of_member in figures for name in of_member)
    having = {name: [of_member[name] for of_member in figures if name in of_member] for name in names}
    return {name: sum(values) / len(values) for name, values in having.items()}


@torch.no_grad()
def mean_score(model: RewardModel, lesson: Lesson, micro_tokens: int, on_progress: ProgressCallback) -> float:
    """Over replies of the training set, of which a fixed part is enough."""

    def total(batch: RankingBatch) -> Sums:
        scores = model(batch.packed)
        return {"score": (scores.sum(), len(scores))}

    examples = lesson.examples.for_passes(packed=model.states.packs)
    return mean_figures(examples, total, lesson.compute, micro_tokens, MEAN_OVER, on_progress)["score"]


def accuracy(scores: Tensor, comparisons: Comparisons) -> dict[str, tuple[float, float]]:
    """Decided comparisons in which the better reply scores higher, equal scores being half right; and their number."""
    decided = comparisons.outcome == 1
    if not decided.any():
        return {}
    difference = (scores[comparisons.first] - scores[comparisons.second])[decided]
    right = (difference > 0).sum() + 0.5 * (difference == 0).sum()
    return {"accuracy": (float(right), len(difference))}


def agree(
    models: Sequence[RewardModel], lesson: Lesson, micro_tokens: int, on_progress: ProgressCallback
) -> Agreement | None:
    """How the models' mean scores agree with held-out rankings; None if there are none."""
    if not lesson.heldout:
        return None
    chat, rows, encoded = lesson.chat, lesson.heldout, lesson.encoded
    flat = [ids for row in encoded for ids in row]

    def scored(model: RewardModel) -> list[float]:
        return map_sharded(flat, lambda encoded: score_ids(model, encoded, chat.pad_id, micro_tokens, on_progress))

    with torch.no_grad(), lesson.compute.autocast():
        scores = np.array([scored(model) for model in models])
    scores = centered(scores, [model.mean for model in models])
    cuts = np.cumsum([len(row) for row in encoded])[:-1]
    mean, *members = (
        [sequences.tolist() for sequences in np.split(member_scores, cuts)]
        for member_scores in (combined(scores, 0), *scores)
    )
    lengths = [[len(chat.text(reply)) for reply in row.replies] for row in rows]
    return agreement(rows, mean, lengths, members)
