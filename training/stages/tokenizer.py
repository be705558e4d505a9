"""Learns a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv:1508.07909) that knows our chat format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.contract import MODEL, TextRow, TokenizerSettings
from training.data.chat_format import DOCUMENT, END, PAD, ROLES, SPECIAL, TEMPLATE
from training.run.run import Run

# A token never crosses these pieces: 's, 't and the like, a word with the space or sign before it, one digit, signs,
# line ends, spaces. Single digits, because sums are learned on digits and not on the chunks of them that happened to be
# frequent. llama.cpp knows this very rule (seed-coder), so models with it leave as GGUF.
PIECES: Final = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MEASURED_BYTES: Final = 2_000_000
THREADS: Final = "RAYON_NUM_THREADS"  # tokenizers reads it when it first works in parallel


def main(run: Run[TokenizerSettings]) -> None:
    if run.config.threads:
        os.environ[THREADS] = str(run.config.threads)
    rows = run.rows("corpus", TextRow)
    texts = [row.text for row in rows]
    with run.timed("training"):
        learned = learn_vocabulary(texts_read(run, texts), run.config.vocabulary, len(texts))
    run.stop_if_asked()
    tokenizer = wrap(learned, run.config.context)
    if len(tokenizer) < run.config.vocabulary:
        run.warn(f"the corpus has pairs for {len(tokenizer)} tokens only, not for {run.config.vocabulary}")
    with run.timed("measuring"):
        figures = measure(learned, texts)
    with run.writing(MODEL) as folder:
        tokenizer.save_pretrained(folder)
    run.metric(len(texts), figures)
    run.finish(
        figures | {"vocabulary": len(tokenizer)},
        counts={"documents": len(texts), "characters": sum(len(text) for text in texts)},
        model={"kind": "tokenizer", "vocabulary": len(tokenizer), "context": run.config.context},
    )


def texts_read(run: Run[TokenizerSettings], texts: list[str]) -> Iterator[str]:
    for i, text in enumerate(texts, 1):
        run.stop_if_asked()
        run.progress(i, len(texts), "reading")
        yield text


def learn_vocabulary(texts: Iterator[str], vocabulary: int, count: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens: the special ones first, then the 256 bytes, then the merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=count)
    return tokenizer


def wrap(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """As transformers loads it. A conversation ends its turns with <|end|>, a document begins with <|endoftext|>."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=DOCUMENT,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(ROLES.values()),
        chat_template=TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def measure(tokenizer: Tokenizer, texts: list[str]) -> dict[str, float]:
    """How well it packs: UTF-8 bytes a token, over evenly spread documents of about MEASURED_BYTES in all."""
    total = sum(len(text) for text in texts)
    sampled = texts[:: max(1, total // MEASURED_BYTES)]
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(sampled, add_special_tokens=False))
    return {"bytes_per_token": sum(len(text.encode()) for text in sampled) / max(1, tokens)}
