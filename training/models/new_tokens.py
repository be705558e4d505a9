"""A base model gets a chat template, and the control tokens of it that its vocabulary lacks."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.data.template_styles import TemplateStyle
from training.models.token_rows import UNTRAINED

BLANK: Final = 1e-3  # a row whose largest number is below this share of the usual one has never been learned


def give_template(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, style: TemplateStyle) -> list[str]:
    """Write turns as `style` does; the tokens whose embeddings are new, which the model's config keeps.

    Embeddings of tokens that were missing, and of those that nobody ever trained (Llama 3's base has zeros for its
    <|eot_id|>), begin at the mean of all others.
    """
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": "</s>"})
    tokens = [*style.tokens, str(tokenizer.eos_token)]
    vocabulary = set(tokenizer.get_vocab())
    tokenizer.add_special_tokens({"additional_special_tokens": list(style.tokens)}, replace_extra_special_tokens=False)
    tokenizer.chat_template = style.template
    rows = model.get_input_embeddings().weight.shape[0]
    missing = [token for token in tokens if token not in vocabulary or tokenizer.convert_tokens_to_ids(token) >= rows]
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens}
    needed = max(len(tokenizer), *(number + 1 for number in ids.values()))
    if needed > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    blank = blank_rows(model.get_input_embeddings().weight, needed, list(ids.values()))
    new = {token: number for token, number in ids.items() if token in missing or number in blank}
    if new:
        begin_at_mean(model, needed, sorted(new.values()))
        setattr(model.config, UNTRAINED, sorted(new.values()))
    return list(new)


@torch.no_grad()
def blank_rows(weight: Tensor, vocabulary: int, ids: list[int]) -> set[int]:
    """Those of `ids` whose rows of the (V, H) matrix hold next to nothing."""
    rows = weight[:vocabulary]
    largest = torch.maximum(rows.amax(dim=1), -rows.amin(dim=1)).float()
    limit = BLANK * float(largest.median())
    return {number for number in ids if float(largest[number]) < limit}


@torch.no_grad()
def begin_at_mean(model: PreTrainedModel, vocabulary: int, ids: list[int]) -> None:
    """Set the rows `ids` of the embeddings, at both ends of the model, to the mean of the vocabulary's other rows."""
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    matrices = [model.get_input_embeddings().weight, *([] if head is None else [head.weight])]
    for matrix in [*matrices, *([] if bias is None else [bias])]:
        total = matrix[:vocabulary].sum(dim=0, dtype=torch.float32)
        others = total - matrix[ids].sum(dim=0, dtype=torch.float32)
        matrix[ids] = (others / (vocabulary - len(ids))).to(matrix.dtype)
