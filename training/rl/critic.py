"""PPO's critic as a model of its own, begun from the whole reward model (Ouyang et al. 2022, arXiv:2203.02155, appendix
C.4), in place of a value head on the policy."""

from __future__ import annotations

from dataclasses import replace

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from training.contract import InputError, PPOSettings
from training.data.packing import Packed
from training.distributed.launch import is_sharded
from training.models.compute import Compute
from training.models.trunk import Trunk
from training.preferences.reward_functions import PREFIX
from training.preferences.reward_model import RewardModel, load_reward
from training.rl.losses import RunningMoments


class Critic(nn.Module):
    """Values of positions, in the units of normalized scores once it is calibrated."""

    def __init__(self, reward: RewardModel) -> None:
        super().__init__()
        self.trunk, width = reward.trunk, reward.head.in_features
        self.head = nn.Linear(width, 1)
        with torch.no_grad():
            self.head.weight.copy_(reward.head.weight.float())
            self.head.bias.zero_() if reward.head.bias is None else self.head.bias.copy_(reward.head.bias.float())
        self.states = Trunk(self.trunk)

    def forward(self, packed: Packed, states: Tensor) -> Tensor:
        """(M,) values at M positions of a packed row."""
        hidden = self.states.hidden(packed)[states]
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.head(hidden.float()).squeeze(-1)
            return values

    @torch.no_grad()
    def calibrate(self, moments: RunningMoments) -> None:
        """Give its head, which tells scores, the units in which scores are learned from."""
        self.head.bias.sub_(moments.mean).div_(moments.scale)
        self.head.weight.div_(moments.scale)


def load_critic(config: PPOSettings, compute: Compute, vocabulary: dict[str, int], longest: int) -> Critic:
    """The critic, on the device, in eval mode: every weight learns, or with `lora.rank` an adapter and the head.

    `vocabulary` is the policy's, whose tokens it reads, at most `longest` at a time. Raises InputError if there is no
    reward model to begin from or it cannot read them.
    """
    source = config.reward if isinstance(config.reward, str) else next(iter(config.reward), "")
    if not source or source.startswith(PREFIX):
        raise refused("it begins from the reward model, and there is none; choose one, or set critic to shared")
    if is_sharded():
        raise refused("it is not sharded with FSDP; set critic to shared")
    adapter_only = config.lora.rank > 0
    dtype = compute.dtype if adapter_only else torch.float32
    reward, tokenizer = load_reward(source, replace(compute, dtype=dtype))
    if tokenizer.get_vocab() != vocabulary:
        raise refused(
            "the reward model has other tokens than the policy, so it cannot begin as its critic; set critic to "
            "shared, or train a reward model from the same base"
        )
    context = int(getattr(reward.config.get_text_config(), "max_position_embeddings", longest))
    if context < longest:
        raise refused(f"the reward model reads {context} tokens, and prompts and replies may have {longest}")
    if adapter_only:
        inject_adapter_in_model(
            LoraConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, target_modules="all-linear"), reward.trunk
        )
    else:
        reward.trunk.requires_grad_(True)
    return Critic(reward).to(compute.device).eval()


def refused(reason: str) -> InputError:
    return InputError(f"critic: {reason}", code="config_invalid")
