"""TRL's passes, computed on packed rows.

TRL's DPO, KTO and GRPO trainers call a model for one thing: the log-probabilities of labels in a padded batch. Here
their models answer that call from one long row without padding, and read logits at the labels alone, as the stages do
whose losses are ours.

B is the number of rows of a batch, L their padded length.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from transformers import Trainer
from trl.trainer.utils import FusedCausalLMOutput

from training.data.packing import moved, pack
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import CausalModel, unwrap
from training.models.trunk import Trunk

IGNORED: Final = -100  # a label that no loss is taken of


class PackedPass:
    """In place of a model's `forward`: what TRL's add_fused_lm_head would have computed, from a packed row. Entropies
    are None unless wanted."""

    def __init__(self, model: CausalModel, compute: Compute, temperature: float, *, entropy: bool) -> None:
        self.unpacked = model.forward
        self.passes, self.compute = Forward(model, compute.dtype), compute
        self.temperature, self.entropy = temperature, entropy

    def __call__(self, *arguments: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if not fused_lm_head:
            return self.unpacked(*arguments, **named)
        with self.compute.autocast():
            return self.read(named["input_ids"], named["attention_mask"], named["labels"])

    def read(self, ids: Tensor, attention_mask: Tensor, labels: Tensor) -> FusedCausalLMOutput:
        """ids, attention_mask, labels (B, L), the tokens of each row next to each other, padded on either side. What
        is predicted has the shape (B, L - 1) and is zero where the label is ignored."""
        real = attention_mask.bool()
        rows = [row[chosen].numpy() for row, chosen in zip(ids.cpu(), real.cpu(), strict=True)]
        packed = moved(pack(rows, 0), ids.device)
        counted = labels[:, 1:] != IGNORED
        places = packed.starts[:, None] + real.cumsum(dim=1) - 1
        hidden = self.passes.hidden(packed)[places[:, :-1][counted]]
        targets = labels[:, 1:][counted]
        read = self.passes.read(hidden, targets, temperature=self.temperature, entropy=self.entropy)

        def padded(values: Tensor) -> Tensor:
            return values.new_zeros(counted.shape).masked_scatter(counted, values)

        logprobs = padded(read.logprobs)
        return FusedCausalLMOutput(
            loss=-logprobs.sum() / counted.sum().clamp(min=1),
            log_probs=logprobs,
            entropy=padded(read.entropy) if self.entropy else None,
            mean_logits=torch.zeros_like(logprobs),  # these two are for figures that are not logged
            is_top1=torch.zeros_like(counted),
            label_mask=counted,
        )


def pack_passes(trainer: Trainer, compute: Compute, temperature: float = 1.0) -> list[Trunk]:
    """Have the trainer's policy and its reference model, if it has one, compute on packed rows, by their trunks. Raises
    InputError if the logits of their architecture are not what Forward computes."""
    trunks = []
    for model, entropy in ((trainer.model, True), (trainer.ref_model, False)):
        if model is not None:
            called = unwrap(model)
            packed = PackedPass(called, compute, temperature, entropy=entropy)
            called.forward = packed
            trunks.append(packed.passes.trunk)
    return trunks
