"""The PPO stage: improves a policy against a reward while a KL penalty keeps it near the policy it started from (Ouyang
et al. 2022, arXiv:2203.02155; Ziegler et al. 2019, arXiv:1909.08593).

`main` shows the whole stage, `ppo_step` the algorithm: rollout, score, advantages, update.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from training.contract import MODEL, PPOSettings, TextRow
from training.data.chat_format import ChatFormat
from training.data.packing import TextBatch
from training.models.loading import context_of, model_info, save_model
from training.models.trunk import tell_padding
from training.optim.checkpoints import load_state, save_checkpoint
from training.optim.learner import Learner
from training.optim.loop import agreed_state
from training.optim.meters import Means
from training.preferences.ensemble import disagreement
from training.rl.actor import MicroBatch, pack_replies
from training.rl.critic import load_critic
from training.rl.heldout import HeldoutEvaluator, ReplyKL
from training.rl.losses import shaped_scores, trajectory
from training.rl.policies import drop_reference, load_policies
from training.rl.ppo_report import report_step, rollout_figures, update_figures
from training.rl.ppo_state import PPOState
from training.rl.ptx import PretrainingMix
from training.rl.rollouts import Sampled, prompts_of_step, reward_figures, sample_replies, score_replies, shaped
from training.rl.setup import check_sampling, load_rollout_inputs, set_up_rollouts
from training.rl.update import (
    FlatRollout,
    evaluate_rollout,
    minibatches,
    moved_too_far,
    rollout_micro_batches,
    update_loss,
)
from training.run.run import Run


def main(run: Run[PPOSettings]) -> None:
    config = run.config
    check_sampling(run)
    corpus = run.rows("corpus", TextRow)
    inputs = load_rollout_inputs(run)
    compute, chat, scorer = inputs.compute, inputs.chat, inputs.scorer
    policies = load_policies(config, compute)
    model = policies.actor.model
    if config.critic == "own":
        longest = config.max_prompt_tokens + config.sampling.max_new_tokens
        policies.actor.critic = load_critic(
            config, compute, chat.tokenizer.get_vocab(), min(longest, context_of(model))
        )
    engine, prompts, heldout_prompts, counts = set_up_rollouts(run, inputs, model)
    learner = Learner(
        {"policy": model, "value": policies.actor.value_module}, config, compute,
        rates={"value": config.value_learning_rate},
    )  # fmt: skip
    kl = ReplyKL(
        policies.actor.forward, policies.reference.forward, compute, chat.pad_id, config.micro_tokens,
        policies.as_reference,
    )  # fmt: skip
    heldout = HeldoutEvaluator(run, heldout_prompts, engine, scorer, model, kl, learner.whole)
    tell_padding(run, *policies.trunks)
    mix = None
    if corpus and config.ptx_weight:
        packed = policies.actor.forward.packs
        mix = PretrainingMix(config, chat, corpus, context_of(model), compute, packed=packed)
    ppo = PPOState(run, compute, prompts, engine, scorer, policies, learner, chat.pad_id, heldout, mix)

    def load(folder: Path) -> None:
        ppo.load(load_state(folder))

    def save(step: int) -> None:
        save_checkpoint(run, step, ppo.state())

    step = run.resume(load)
    if step == 0:
        heldout.evaluate(step)
    while (now := agreed_state(run, step, config.steps)).done < 1 and not ppo.stop_reason:
        if now.stop:
            run.stop(step, save)
        ppo_step(ppo, step, now.done)
        step += 1
        run.progress(step, config.steps, "learning")
        if config.evaluate_every and step % config.evaluate_every == 0:
            heldout.evaluate(step)
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            save(step)
    heldout.evaluate(step)
    save_best(ppo, chat, step, counts)


def ppo_step(ppo: PPOState, step: int, done: float) -> None:
    """One step of PPO: sample replies, score them, estimate advantages, and update the policy and its value head.

    `done` is the share of the training that is behind, in [0, 1]; the learning rate follows it.
    """
    run, config, learner, actor = ppo.run, ppo.config, ppo.learner, ppo.policies.actor
    value_only = step < config.value_warmup
    started = time.perf_counter()

    # Rollout: the policy replies to this step's prompts.
    with run.timed("rollout"), learner.whole():
        chosen = prompts_of_step(len(ppo.prompts), step, config.prompts_per_step, config.seed)
        prompts = [ppo.prompts[i] for i in chosen for _ in range(config.samples_per_prompt)]
        completions = sample_replies(ppo.engine, prompts, config.sampling, (config.seed, "rollout", step))
    rollout_ended = time.perf_counter()

    # Score: the reward model or function gives each reply one number.
    with run.timed("score"):
        sampled = Sampled(prompts, completions, *score_replies(ppo.scorer, prompts, completions))
        spread = disagreement(ppo.scorer)
    score_ended = time.perf_counter()

    with run.timed("update"):
        # Advantages: scores, less penalties, and the KL to the reference are rewards per token; GAE compares them with
        # what the value head or critic expected.
        scores = sampled.scores
        if config.normalize_rewards:
            ppo.moments.update(scores)
            scores = ppo.moments.normalize(scores, config.reward_clip)
            if actor.critic is not None and step == 0:
                actor.critic.calibrate(ppo.moments)
        with learner.whole():
            rollout, batches = evaluate_rollout(ppo, sampled, value_only=value_only)
        scores = shaped_scores(
            scores, sampled.ended, sampled.lengths,
            no_end_penalty=config.no_end_penalty, length_penalty=config.length_penalty,
        )  # fmt: skip
        shaping = shaped(ppo.shaping, sampled)
        scores = scores + shaping
        learned = trajectory(
            rollout, scores,
            kl_coefficient=ppo.kl.coefficient, kl_estimator=config.kl_estimator,
            gamma=config.gamma, gae_lambda=config.gae_lambda, whiten=config.whiten_advantages,
        )  # fmt: skip

        # Update: several passes over the rollout, each of one or more optimizer steps.
        means = Means()
        old = FlatRollout.of(rollout, learned, ppo.compute.device)
        for i, (epoch, rows) in enumerate(minibatches(len(prompts), step, config)):
            if config.minibatches > 1:
                batches = rollout_micro_batches(ppo, sampled, rows)
            elif epoch == 1 and not value_only:  # the policy has moved: its hidden states are others now
                batches = [batch._replace(hidden=None) for batch in batches]
            scale = float(sampled.lengths[rows].sum())
            texts, text_tokens = ([], 0) if ppo.mix is None or value_only else ppo.mix.take()
            micro: list[MicroBatch | TextBatch] = [*batches, *texts]
            loss = partial(
                update_loss, actor, config, old,
                value_only=value_only, is_first=i == 0, text_weight=config.ptx_weight * scale / max(1, text_tokens),
            )  # fmt: skip
            spare = partial(
                pack_replies, sampled.prompt_ids, sampled.reply_ids, rows[:1],
                pad=ppo.pad_id, device=ppo.compute.device,
            )  # fmt: skip
            sums = learner.update(micro, loss, scale, done, 1 / config.steps, spare)
            means.add(sums)
            if moved_too_far(sums, config.update_kl_stop):
                means.add({"val/stopped_early": (1, 1)})
                break
    update_ended = time.perf_counter()

    ppo.episodes += len(prompts)
    figures = rollout_figures(rollout, scores, ppo.kl.coefficient, config) | update_figures(means.values())
    figures |= {
        "objective/kl_coefficient": ppo.kl.coefficient,
        "episode": float(ppo.episodes),
        "tokens_per_second": float(sampled.lengths.sum()) / (update_ended - started),
        "time/rollout": rollout_ended - started,
        "time/score": score_ended - rollout_ended,
        "time/update": update_ended - score_ended,
    }
    figures |= reward_figures(sampled.components, "rewards/")
    if spread is not None:
        figures["objective/spread"] = spread
    if ppo.shaping:
        figures["objective/shaping"] = float(shaping.mean())
    ppo.kl.update(figures["objective/kl"], len(prompts))
    report_step(ppo, step + 1, figures, sampled, rollout)


def save_best(ppo: PPOState, chat: ChatFormat, step: int, counts: dict[str, int]) -> None:
    """Save the policy that did best on held-out prompts, or the last one if there are none."""
    run, model = ppo.run, ppo.policies.actor.model
    ppo.learner.end()
    saved_step = ppo.heldout.keep_best(step)
    drop_reference(model)
    if run.main:
        ppo.heldout.write_frontier()
        with run.writing(MODEL) as folder:
            save_model(model, chat.tokenizer, folder, chat.stop_ids)
    run.finish(
        ppo.figures | ppo.heldout.figures | {"steps": step, "saved_step": saved_step},
        intervals=ppo.heldout.intervals,
        counts=counts | {"episodes": ppo.episodes},
        model=model_info(model),
    )
