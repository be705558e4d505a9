"""The reward model: a language model's trunk with one scalar head, read at the end token after the reply.

On disk it is a transformers sequence-classification model with one label, so other tools load it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.contract import InputError, LoraSettings, Turn
from training.data.batching import Sizes, micro_batches
from training.data.chat_format import ChatFormat, Encoded
from training.data.fitting import FittedExchange, fit_exchange
from training.data.packing import Packed, moved, pack
from training.distributed.collectives import passes_behind
from training.distributed.fsdp import shard
from training.models.checks import DAMAGE, check_source, check_vocabulary, check_weights, damaged_folder
from training.models.compute import Compute
from training.models.loading import CausalModel, load_causal, load_tokenizer, state_width, unwrap
from training.models.memory import check_holds
from training.models.trunk import Trunk
from training.run.reporting import ProgressCallback, ignore_progress

MICRO_TOKENS = 8192


class RewardModel(nn.Module):
    """trunk: hidden states of token ids; head: H -> 1. `config` is the trunk's, with what `reward` says of the
    training: max_tokens, the temperature by which to divide a difference of scores before a sigmoid, and the mean score
    of replies that it learned from."""

    def __init__(self, trunk: PreTrainedModel, head: nn.Linear, config: PretrainedConfig) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.config = config
        self.states = Trunk(trunk)
        self._passes: Callable[[Callable[[], Tensor]], Tensor] | None = None  # through a trunk that is sharded

    def shard(self, compute: Compute) -> None:
        """Leave each process a part of the trunk, which does not learn."""
        self._passes = shard({"trunk": self.trunk}, compute.device, compute.dtype, learns=False).__call__

    @property
    def is_sharded(self) -> bool:
        """Whether every process must compute equally many passes."""
        return self._passes is not None

    def take_trunk(self, trunk: PreTrainedModel) -> None:
        """Read another model of the same shape from now on."""
        self.trunk, self.config = trunk, trunk.config
        self.states = Trunk(trunk)

    def forward(self, packed: Packed) -> Tensor:
        """The scores (S,) of S packed sequences, read at their last tokens, in float32."""

        def ends() -> Tensor:
            return self.states.hidden(packed)[packed.starts + packed.lengths - 1]

        read = ends() if self._passes is None else self._passes(ends)
        with torch.autocast(read.device.type, enabled=False):
            scores: Tensor = self.head(read.float()).squeeze(-1)
            return scores

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @property
    def mean(self) -> float:
        """The mean score of replies that it learned from; 0 if that was not noted."""
        return float(getattr(self.config, "reward", {}).get("mean", 0.0))

    @property
    def max_tokens(self) -> int:
        """The most tokens of a conversation that it reads."""
        context = int(getattr(self.config.get_text_config(), "max_position_embeddings", 1 << 30))
        return min(context, int(getattr(self.config, "reward", {}).get("max_tokens", context)))


def reward_from_language_model(
    source: str, compute: Compute, lora: LoraSettings, *, checkpointing: bool = False
) -> tuple[CausalModel, RewardModel]:
    """The language model of a folder and, around its trunk, a reward model with a new head; what learns requires
    gradients. The language model holds the adapter, if one is asked for."""
    language = load_causal(source, compute, lora=lora, trainable=True, checkpointing=checkpointing)
    inner = unwrap(language)
    config = inner.config
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise InputError(
            f"{source}: transformers has no sequence classification for models of type {config.model_type}, as which "
            "reward models are saved; take another base model",
            code="model_unsupported",
        )
    head = nn.Linear(state_width(language), 1, bias=False)
    # Scores of the new head begin with deviation about 1 on normalized states (Stiennon et al. 2020, appendix B.1).
    nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    return language, RewardModel(inner.base_model, head.to(compute.device), config)


def onto_unquantized(language: CausalModel, source: str, compute: Compute, lora: LoraSettings) -> CausalModel:
    """The adapter of a model in 4 bits over its base as it was published, on the CPU, where there is room for it."""
    kinds = ("lora_", "_to_save", "trainable_tokens")
    learned = {name: p.detach().cpu() for name, p in language.named_parameters() if any(kind in name for kind in kinds)}
    whole = load_causal(
        source, Compute(torch.device("cpu"), compute.dtype), trainable=True,
        lora=lora.model_copy(update={"load_in_4bit": False}),
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name in learned:
                parameter.copy_(learned[name])
    return whole


def save_reward(model: RewardModel, tokenizer: PreTrainedTokenizerBase, folder: Any, about: dict[str, float]) -> None:
    """The sequence-classification layout of transformers, in fp32; `about` becomes the config's `reward`.

    Other tools read at the last token that is no padding, so where the end token pads another one takes its place."""
    end = ChatFormat(tokenizer).end_id
    if tokenizer.pad_token_id == end:
        others = [tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids, 0, 1]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(next(i for i in others if i not in (None, end)))
    config = model.config
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id
    config.reward = about
    with torch.device("meta"):
        whole = AutoModelForSequenceClassification.from_config(config)
    setattr(whole, whole.base_model_prefix, model.trunk)
    whole.score = model.head
    whole.cpu().float().save_pretrained(folder)  # on a GPU twice the bytes might not fit
    tokenizer.save_pretrained(folder)


def load_reward(source: str, compute: Compute) -> tuple[RewardModel, PreTrainedTokenizerBase]:
    """A saved reward model, frozen, in eval mode, on the device, and its tokenizer. Raises InputError."""
    check_source(source, "reward model")
    check_weights(source, "reward model")
    check_holds(source, device=compute.device, dtype=compute.dtype)
    try:
        whole, report = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=1, dtype=compute.dtype, use_safetensors=True, output_loading_info=True
        )
    except DAMAGE as error:
        raise damaged_folder(source, "reward model", error) from error
    missing = sorted(report["missing_keys"])
    if any(name.startswith("score.") for name in missing):
        raise InputError(
            f"{source}: this is no reward model, it has no scalar head; take the model of a reward run", code="no_model"
        )
    if missing:
        raise damaged_folder(source, "reward model", ValueError(f"{len(missing)} weights are missing, as {missing[0]}"))
    model = RewardModel(getattr(whole, whole.base_model_prefix), whole.score.float(), whole.config)
    tokenizer = load_tokenizer(source)
    check_vocabulary(ChatFormat(tokenizer, source), model.trunk, source)
    return model.requires_grad_(False).to(compute.device).eval(), tokenizer


def load_members(source: str | Sequence[str], compute: Compute) -> list[tuple[RewardModel, PreTrainedTokenizerBase]]:
    """The reward models of a folder, which an ensemble's holds several of, or of several folders. Raises InputError."""
    members = []
    for folder in [source] if isinstance(source, str) else source:
        members.append(load_reward(folder, compute))
        member_count = int(getattr(members[-1][0].config, "reward", {}).get("members", 1))
        members += [load_reward(str(Path(folder) / member_name(i)), compute) for i in range(1, member_count)]
    return members


def member_folders(folder: Path) -> list[Path]:
    """The folders of an ensemble's members; of one reward model, its own."""
    try:
        about = json.loads((folder / "config.json").read_text()).get("reward") or {}
    except (OSError, ValueError):
        return [folder]  # what is wrong with it is reported where it is loaded
    return [folder, *(folder / member_name(i) for i in range(1, int(about.get("members", 1))))]


def member_name(member: int) -> str:
    """The folder of an ensemble's member, counted from 0. In a model's folder the first one has none: there it lies on
    top, where tools that know of no ensembles find it."""
    return f"member-{member + 1}"


def encode(chat: ChatFormat, messages: Sequence[Turn], reply: str, limit: int) -> FittedExchange:
    """Prompt and reply in at most `limit` tokens; the last one is always the end token. Raises Refused."""
    fitted = fit_exchange(chat, messages, reply, limit)
    ids, mask = fitted.encoded.ids, fitted.encoded.mask
    if ids[-1] == chat.end_id:
        return fitted
    room = limit - 1
    return fitted._replace(encoded=Encoded([*ids[:room], chat.end_id], [*mask[:room], True]))


@torch.no_grad()
def score(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Turn]],
    *,
    micro_tokens: int = MICRO_TOKENS,
    on_progress: ProgressCallback = ignore_progress,
) -> list[float]:
    """The score of the last turn, the assistant's, of each conversation. `tokenizer` is the reward model's own."""
    chat = ChatFormat(tokenizer)
    encoded = [encode(chat, turns[:-1], turns[-1].content, model.max_tokens).encoded.ids for turns in conversations]
    return score_ids(model, encoded, chat.pad_id, micro_tokens, on_progress)


def score_ids(
    model: RewardModel,
    encoded: Sequence[Sequence[int]],
    pad_id: int,
    micro_tokens: int,
    on_progress: ProgressCallback = ignore_progress,
) -> list[float]:
    """The scores of encoded conversations, in their order."""
    sizes = Sizes.of([len(ids) for ids in encoded], pads=not model.states.packs)
    scores = np.zeros(len(encoded))
    batches = micro_batches(np.arange(len(encoded)), sizes, micro_tokens)
    behind = passes_behind(len(batches)) if model.is_sharded else 0
    done = 0
    for batch in batches:
        on_progress(done, len(encoded))
        packed = moved(pack([encoded[i] for i in batch], pad_id), model.device)
        scores[batch] = model(packed).cpu().numpy()
        done += len(batch)
    on_progress(done, len(encoded))
    for _ in range(behind):
        model(moved(pack([encoded[0] if encoded else [pad_id]], pad_id), model.device))
    return scores.tolist()
