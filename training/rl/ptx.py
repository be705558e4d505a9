"""PPO-ptx: pretraining text mixed into the updates, so that the policy does not forget it (Ouyang et al. 2022,
equation 2)."""

from __future__ import annotations

from collections.abc import Sequence

from training.contract import PPOSettings, TextRow
from training.data.batching import epoch_batches, micro_batches, steps_per_epoch
from training.data.chat_format import ChatFormat
from training.data.packing import TextBatch
from training.data.text_stream import text_examples, tokenize_texts
from training.distributed.collectives import local_shard
from training.distributed.launch import world_size
from training.models.compute import Compute


class PretrainingMix:
    """An endless run of `batch_tokens` of text for each optimizer step; `position` is how many have been taken."""

    def __init__(
        self,
        config: PPOSettings,
        chat: ChatFormat,
        corpus: Sequence[TextRow],
        context: int,
        compute: Compute,
        *,
        packed: bool,
    ) -> None:
        self.config = config
        stream = tokenize_texts(chat, [row.text for row in corpus], context)
        self.texts = text_examples(stream, compute.device).for_passes(packed=packed)
        self.position = 0

    def take(self) -> tuple[list[TextBatch], int]:
        """This process's share of the next step's text, in micro-batches, and how many tokens of it all of them learn
        from."""
        sizes, config = self.texts.sizes, self.config
        epoch, within = divmod(self.position, steps_per_epoch(sizes, config.batch_tokens))
        rows = epoch_batches(sizes, config.batch_tokens, config.seed, epoch)[within]
        self.position += 1
        batches = local_shard(micro_batches(rows, sizes, config.micro_tokens, world_size()))
        return [self.texts.batch(batch) for batch in batches], int(sizes.weights[rows].sum())
