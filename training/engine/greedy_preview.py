"""What the model says while it learns: the likeliest words, so that two samples differ by what was learned alone."""

from __future__ import annotations

import torch
from transformers import GenerationConfig

from training.contract import Turn
from training.data.chat_format import ChatFormat
from training.models.compute import Compute
from training.models.loading import CausalModel, context_of

TOKENS = 48


@torch.no_grad()
def greedy_continuation(
    model: CausalModel, chat: ChatFormat, ids: list[int], compute: Compute, tokens: int = TOKENS
) -> str:
    """The likeliest continuation of `ids`, to its end or `tokens` tokens; special tokens left out."""
    prompt = torch.tensor([ids[-max(1, context_of(model) - tokens) :]], device=compute.device)
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=chat.stop_ids, pad_token_id=chat.pad_id
    )
    with compute.autocast():
        output = model.generate(inputs=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    return chat.decode(output[0, prompt.shape[1] :].tolist())


def greedy_reply(model: CausalModel, chat: ChatFormat, messages: list[Turn], compute: Compute) -> str:
    return greedy_continuation(model, chat, chat.prompt(messages), compute)
