"""The same questions to a model before and after it leaves.

docs/decisions/exported-models.md says how the answers are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from training.contract import InputError, Turn
from training.data.chat_format import ChatFormat
from training.data.chat_templates import render_template, special_tokens
from training.models.loading import CausalModel
from training.run.reporting import ProgressCallback

ANSWER_TOKENS: Final = 32
MIN_ROOM: Final = 8  # tokens


def said(*contents: str) -> list[Turn]:
    return [Turn(role="assistant" if i % 2 else "user", content=content) for i, content in enumerate(contents)]


# Short and long, with digits, code, accents, signs, quotes, line ends and several turns: what templates and tokenizers
# get wrong.
CONVERSATIONS: Final = (
    said("What is the capital of France?"),
    said("Write a short poem about the sea."),
    said("What is 17 + 26? Answer with 43 or 42."),
    said("Name three colors.", "Red, blue and green.", "Name one more."),
    said('Translate to German:\n\n  "Good morning, how are you?"'),
    said("def add(a, b):\n    return a + b\n\n# What does this function do?"),
    said("Why is the sky blue? Explain it to a child in two sentences."),
    said("Où est la bibliothèque? 图书馆在哪里? 😀"),
    said("List:\n- don't\n- I'll\n- they've 2,024.50 €"),
    said("Hello!", "Hello! How can I help you?", "Tell me a joke.", "Why did the chicken cross the road?", "Why?"),
)


class Questions:
    """Ten prompts as the model gets them here. prompts: their token ids, which end where the assistant has to speak; a
    model without a chat template goes on with the text of the last turn. stop_ids: what ends a reply, the end of a turn
    first. limits: tokens that each answer may have."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        self.limits = [ANSWER_TOKENS] * len(CONVERSATIONS)
        self.tokenizer = tokenizer
        self.has_template = bool(tokenizer.chat_template)
        if not self.has_template:
            self.conversations = list(CONVERSATIONS)
            self.prompts = [
                list(tokenizer(turns[-1].content, verbose=False)["input_ids"]) for turns in self.conversations
            ]
            self.stop_ids = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
            self.pad_id = int(tokenizer.pad_token_id or 0)
            return
        chat = ChatFormat(tokenizer, source)
        self.conversations = taken(chat)
        self.prompts = [chat.prompt(turns) for turns in self.conversations]
        self.stop_ids, self.pad_id = chat.stop_ids, chat.pad_id

    def render(self, turns: Sequence[Turn], open_turn: bool) -> str:
        """A conversation as the model's own template writes it."""
        messages = [turn.model_dump(include={"role", "content"}) for turn in turns]
        special = special_tokens(self.tokenizer.special_tokens_map)
        return render_template(str(self.tokenizer.get_chat_template()), special, messages, open_turn=open_turn)

    def fit(self, context: int) -> None:
        """Keeps the prompts that leave room for an answer in a context of so many tokens. Raises InputError if none
        does: a model that cannot be asked anything is not checked."""
        fits = [i for i, prompt in enumerate(self.prompts) if len(prompt) + MIN_ROOM <= context]
        if not fits:
            raise InputError(
                f"this model reads {context} tokens only, too few for any question that exports are checked with",
                code="model_unsupported",
            )
        self.conversations = [self.conversations[i] for i in fits]
        self.prompts = [self.prompts[i] for i in fits]
        self.limits = [min(ANSWER_TOKENS, context - len(prompt)) for prompt in self.prompts]


def taken(chat: ChatFormat) -> list[list[Turn]]:
    """The conversations; of each the first turn alone if the template refuses one of them."""
    try:
        for turns in CONVERSATIONS:
            chat.prompt(turns)
    except InputError:
        return [turns[:1] for turns in CONVERSATIONS]
    return list(CONVERSATIONS)


class Answer(NamedTuple):
    """Token ids of a prompt and of its greedy answer, the token that ended it included."""

    prompt: list[int]
    reply: list[int]


class HasReply(Protocol):
    @property
    def reply(self) -> list[int]: ...


class Difference(NamedTuple):
    """Where two answers part, and by how many nats the first model prefers its own token to the other's there; infinite
    where one of them has ended."""

    question: int
    place: int
    margin: float


@torch.no_grad()
def answer(
    model: CausalModel, questions: Questions, stop_ids: list[int], on_progress: ProgressCallback
) -> list[Answer]:
    """Greedy answers, one prompt after the other, so that no padding rounds them."""
    answers = []
    for number, (prompt, limit) in enumerate(zip(questions.prompts, questions.limits, strict=True)):
        on_progress(number, len(questions.prompts))
        settings = GenerationConfig(
            max_new_tokens=limit, do_sample=False, eos_token_id=stop_ids or None, pad_token_id=questions.pad_id
        )
        ids = torch.tensor([prompt], device=model.device)
        output = model.generate(inputs=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        answers.append(Answer(prompt, output[0, len(prompt) :].tolist()))
    return answers


@torch.no_grad()
def differences(model: CausalModel, expected: Sequence[Answer], given: Sequence[HasReply]) -> list[Difference]:
    """Where answers part from those of `model`, which is asked about these places."""
    parted = []
    for number, (ours, theirs) in enumerate(zip(expected, given, strict=True)):
        index = next((i for i, (a, b) in enumerate(zip(ours.reply, theirs.reply, strict=False)) if a != b), None)
        if index is None:
            index = min(len(ours.reply), len(theirs.reply))
            if len(ours.reply) == len(theirs.reply):
                continue
        margin = float("inf")
        if index < min(len(ours.reply), len(theirs.reply)):
            ids = torch.tensor([ours.prompt + ours.reply[:index]], device=model.device)
            logits: Any = model(ids).logits[0, -1].float()
            margin = float(logits[ours.reply[index]] - logits[theirs.reply[index]])
        parted.append(Difference(number, index, margin))
    return parted
