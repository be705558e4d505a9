"""Tiny models to export: tokenizers that cut text as well-known families do, and a run of the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.training.toys import CHATML, TEXTS, foreign_policy, run_folder, run_here, tiny_model
from training.export.answers import Questions
from training.export.gguf_tokenizer import ANY_CASE, LLAMA3, QWEN2

LINES = [*TEXTS, "don't they'll 12 345\n\nO'Reilly said: 'so'.\n  x = [1, 2]\n", "Où est-ce? 图书馆 😀 \t tab\r\n"] * 2
PRE_TOKENIZERS: dict[str, list[Any]] = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "qwen2": [
        pre_tokenizers.Split(Regex(ANY_CASE + QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
    "llama-bpe": [
        pre_tokenizers.Split(Regex(ANY_CASE + LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)


def family_tokenizer(family: str, template: str | None = CHATML, **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of 400 tokens that cuts text as a family does."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=family == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS[family])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>", chat_template=template,
        extra_special_tokens=["<|im_start|>", "<|im_end|>"], **options,
    )  # fmt: skip


def family_policy(
    folder: Path, kind: str, family: str, dtype: torch.dtype = torch.float16, *, taught: bool = False, **changed: Any
) -> Path:
    """A random model of an architecture whose weights are drawn so widely that every change of them shows, rounded to
    `dtype`, so that a file of that type has the very same numbers. taught: it is sure of its answers, so that rounding
    changes none."""
    tokenizer = family_tokenizer(family)
    foreign_policy(folder, tokenizer)  # tokenizer and generation config
    model = tiny_model(kind, **{"vocab_size": len(tokenizer) + 3, "max_position_embeddings": 256, **changed})
    if taught:
        teach(model, Questions(tokenizer, "toy"))
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.pad_token_id = None, tokenizer.pad_token_id
        settings.eos_token_id = tokenizer.eos_token_id
    model.to(dtype).save_pretrained(folder)
    return folder


def teach(model: PreTrainedModel, questions: Questions) -> None:
    """Ten answers by heart, each of another length, with their ends."""
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    replies = [
        [*torch.randint(0, 250, (4 + i,)).tolist(), questions.stop_ids[0]] for i in range(len(questions.prompts))
    ]
    rows = [prompt + reply for prompt, reply in zip(questions.prompts, replies, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [questions.pad_id] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for i, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        labels[i, len(row) - len(reply) : len(row)] = torch.tensor(reply)
    for _ in range(400):
        loss = model(ids, labels=labels).loss
        if loss < 0.02:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.02, loss
    model.eval()


def export(tmp_path: Path, base: Path, form: str, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """output/ of an export run, and its result."""
    folder = run_folder(tmp_path / f"export-{form}", {"stage": "export", "base": str(base), "format": form, **settings})
    result = run_here(folder)
    return folder / "output", result
