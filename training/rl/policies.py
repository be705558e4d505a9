"""The policy that PPO trains and the reference it is held to: two models, or one model with its adapter on and off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from peft import PeftModel
from torch import nn

from training.contract import PPOSettings
from training.distributed.launch import is_sharded
from training.models.adapters import POLICY, check_copied, restore_saved_modules
from training.models.compute import Compute, adapter_base
from training.models.loading import CausalModel, load_causal, state_width
from training.models.trunk import Trunk
from training.rl.actor import Actor

REFERENCE: Final = "reference"


@dataclass(frozen=True)
class Policies:
    """`reference` computes with the reference's weights inside `as_reference()`, and only there."""

    actor: Actor
    reference: Actor
    as_reference: Callable[[], AbstractContextManager[object]]

    @property
    def trunks(self) -> list[Trunk]:
        return [*self.actor.trunks, *self.reference.trunks]


def load_policies(config: PPOSettings, compute: Compute) -> Policies:
    """Full fine-tuning: the policy and a frozen copy. With an adapter there is one copy of the base weights, and the
    reference is the base alone or, where the policy begins as an adapter, a frozen copy of that adapter."""
    model = load_causal(
        config.policy,
        compute,
        lora=config.lora,
        trainable=True,
        checkpointing=config.activation_checkpointing,
    )
    head = value_head(state_width(model)).to(compute.device)
    temperature = config.sampling.temperature
    actor = Actor(model, head, temperature, entropy_gradient=config.entropy_weight > 0)
    if not isinstance(model, PeftModel):
        reference = Actor(load_causal(config.policy, compute), head, temperature)
        if is_sharded():
            reference.forward.shard(compute)
        return Policies(actor, reference, nullcontext)
    if adapter_base(config.policy):
        check_copied(model)
        model.load_adapter(config.policy, adapter_name=REFERENCE, is_trainable=False)
        restore_saved_modules(model, config.policy, REFERENCE)
        return Policies(actor, actor, lambda: switched(model, REFERENCE))
    return Policies(actor, actor, model.disable_adapter)


@contextmanager
def switched(model: PeftModel, name: str) -> Iterator[None]:
    """The model with its other adapter active; the policy's alone learns again afterwards."""
    model.set_adapter(name)
    try:
        yield
    finally:
        model.set_adapter(POLICY)


def value_head(width: int) -> nn.Linear:
    """H -> 1, begun at zero, the mean of normalized returns. The reward model's head would read other states than the
    policy's, in other units, and its error would steer the trunk that policy and value share."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def drop_reference(model: CausalModel) -> None:
    """Leave only the policy's adapter, so that saving the model saves that one."""
    if isinstance(model, PeftModel) and REFERENCE in model.peft_config:
        model.delete_adapter(REFERENCE)
