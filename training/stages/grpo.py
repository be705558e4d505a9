"""The GRPO stage: improves a policy by comparing several replies to the same prompt (Shao et al. 2024,
arXiv:2402.03300).

TRL's GRPOTrainer computes the update; our engine samples the replies and our scorer gives the rewards, as in PPO.
Events, checkpoints, stopping and the result are the same as in every other stage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from datasets import Dataset
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer

from training.contract import GRPOSettings, InputError
from training.distributed.launch import world_size
from training.models.adapters import POLICY, check_copied
from training.models.compute import adapter_base
from training.models.forward import Forward
from training.models.loading import CausalModel, load_causal, model_info
from training.models.token_rows import copy_rows
from training.models.trunk import tell_padding
from training.optim.loop import is_due
from training.rl.early_stop import DivergenceMonitor
from training.rl.heldout import HeldoutEvaluator, ReplyKL
from training.rl.policies import switched
from training.rl.rollouts import EncodedPrompt
from training.rl.setup import RolloutInputs, check_sampling, load_rollout_inputs, set_up_rollouts
from training.rl.trl.arguments import BatchPlan, trl_arguments, trl_optimizer
from training.rl.trl.packed_passes import pack_passes
from training.rl.trl.rollouts import TRLRollouts, updates_per_step
from training.rl.trl.running import run_trainer
from training.rl.trl.saving import TRL_REFERENCE, save_policy
from training.run.run import Run


def main(run: Run[GRPOSettings]) -> None:
    config = run.config
    check_sampling(run)
    check_even_shares(config)
    inputs = load_rollout_inputs(run)
    model = load_causal(
        config.policy,
        inputs.compute,
        lora=config.lora,
        trainable=True,
        checkpointing=config.activation_checkpointing,
    )
    if isinstance(model, PeftModel):
        check_copied(model)
    engine, prompts, heldout_prompts, counts = set_up_rollouts(run, inputs, model)
    rollouts = TRLRollouts(run, engine, inputs.scorer, prompts)
    trainer = build_trainer(run, inputs, model, prompts, rollouts)
    model.eval()
    kl = kl_to_start(trainer, model, config, inputs)
    if config.loss == "rloo" and config.beta:
        rollouts.kl = kl
    heldout = HeldoutEvaluator(run, heldout_prompts, engine, inputs.scorer, model, kl)
    heldout.evaluate(0)
    callback = GRPOCallbacks(config, rollouts, heldout)
    figures = run_trainer(run, trainer, config.steps, updates=updates_per_step(config), callback=callback)
    last_step = int(figures["steps"])
    heldout.evaluate(last_step)
    saved_step = heldout.keep_best(last_step)
    if run.main:
        heldout.write_frontier()
    save_policy(run, model, inputs.chat)
    run.finish(
        figures | heldout.figures | {"saved_step": saved_step},
        intervals=heldout.intervals,
        counts=counts,
        model=model_info(model),
    )


def check_even_shares(config: GRPOSettings) -> None:
    """Raises InputError if processes and minibatches cannot share a step's replies evenly, as TRL requires."""
    replies = config.prompts_per_step * config.samples_per_prompt
    if replies % (world_size() * config.minibatches):
        raise InputError(
            f"prompts_per_step: a step's {replies} replies cannot be shared evenly by {world_size()} processes and "
            f"{config.minibatches} minibatches; choose a multiple",
            code="config_invalid",
        )


def build_trainer(
    run: Run[GRPOSettings],
    inputs: RolloutInputs,
    model: CausalModel,
    prompts: Sequence[EncodedPrompt],
    rollouts: TRLRollouts,
) -> GRPOTrainer:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # TRL warns that rollout_func may change; its version is pinned
    config = run.config
    replies = config.prompts_per_step * config.samples_per_prompt // world_size()
    longest = max(len(prompt.ids) for prompt in prompts) + config.sampling.max_new_tokens
    minibatch, updates = replies // config.minibatches, updates_per_step(config)
    micro = largest_divisor(minibatch, config.micro_tokens // longest)
    plan = BatchPlan(micro, minibatch // micro, config.steps * updates, updates)
    trainer_class = LeaveOneOutTrainer if config.loss == "rloo" else GRPOTrainer
    trainer = trainer_class(
        model=model,
        reward_funcs=[scores_of],
        args=GRPOConfig(
            **trl_arguments(run, inputs.compute, plan, evaluates=False),
            num_generations=config.samples_per_prompt,
            num_iterations=config.epochs,
            steps_per_generation=replies // micro,
            max_completion_length=config.sampling.max_new_tokens,
            temperature=config.sampling.temperature,
            beta=0.0 if config.loss == "rloo" else config.beta,  # RLOO's penalty is part of its rewards
            epsilon=config.clip,
            epsilon_high=config.clip_high or config.clip,
            disable_dropout=True,  # rollouts are without, and their log-probabilities are compared
            scale_rewards="group" if config.scale_rewards and config.loss != "rloo" else "none",
            loss_type="dr_grpo" if config.loss == "rloo" else config.loss,
            importance_sampling_level=config.ratio,
            mask_truncated_completions=config.mask_truncated,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt.row.id} for prompt in prompts]),
        processing_class=inputs.chat.tokenizer,
        optimizers=trl_optimizer(model, config, inputs.compute, plan.steps),
        rollout_func=rollouts,
    )
    if trainer.ref_model is not None:  # TRL loads the base, even if the policy is an adapter merged into it
        trainer.ref_model.load_state_dict(model.state_dict())
    copy_rows(model, POLICY, TRL_REFERENCE)
    tell_padding(run, *pack_passes(trainer, inputs.compute, config.sampling.temperature))
    return trainer


class LeaveOneOutTrainer(GRPOTrainer):
    """RLOO (Ahmadian et al. 2024, arXiv:2402.14740): a reply's advantage is its reward less the mean of the others',
    which is G / (G - 1) times what it is above the mean of all G."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        replies = self.num_generations
        return batch | {"advantages": batch["advantages"] * (replies / (replies - 1))}


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`; at least 1."""
    return max((n for n in range(1, number + 1) if number % n == 0 and n <= limit), default=1)


def scores_of(score: list[float], **_: Any) -> list[float]:
    """TRL's reward function: passes on the scores of the rollout. Its name is part of the metrics' names."""
    return score


def kl_to_start(trainer: GRPOTrainer, model: CausalModel, config: GRPOSettings, inputs: RolloutInputs) -> ReplyKL:
    """The KL from the policy that training starts from: TRL's copy of it if there is one, else the adapter that TRL
    keeps of it, else the base model under a new adapter, else a copy of our own."""
    policy = reference = Forward(model, inputs.compute.dtype)
    as_reference: Callable[[], AbstractContextManager[object]] = nullcontext
    if trainer.ref_model is not None:
        reference = Forward(trainer.ref_model, inputs.compute.dtype)
    elif isinstance(model, PeftModel) and TRL_REFERENCE in model.peft_config:
        as_reference = partial(switched, model, TRL_REFERENCE)
    elif isinstance(model, PeftModel) and not adapter_base(config.policy):
        as_reference = model.disable_adapter
    else:
        reference = Forward(load_causal(config.policy, inputs.compute))
    return ReplyKL(policy, reference, inputs.compute, inputs.chat.pad_id, config.micro_tokens, as_reference)


class GRPOCallbacks:
    """After each step: held-out evaluation if it is due, and a check that the policy has not diverged."""

    def __init__(self, config: GRPOSettings, rollouts: TRLRollouts, heldout: HeldoutEvaluator) -> None:
        self.config, self.rollouts, self.heldout = config, rollouts, heldout
        self.monitor = DivergenceMonitor(kl_penalized=config.beta > 0, cap=config.sampling.max_new_tokens)

    def after_step(self, step: int, figures: Mapping[str, float]) -> str:
        if is_due(step, self.config.evaluate_every):
            self.heldout.evaluate(step)
        return self.monitor.update({"token_kl": figures.get("kl", 0.0)} | self.rollouts.figures)

    def state(self) -> dict[str, Any]:
        return {"watch": self.monitor.state(), "heldout": self.heldout.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.monitor.load(state["watch"])
        self.heldout.load(state["heldout"])
