"""A byte-level BPE tokenizer as a GGUF file holds it, and read back from one.

llama.cpp knows how a tokenizer cuts text into pieces by a name only (`tokenizer.ggml.pre`), and a wrong name gives
other tokens without a word. So the name follows from the tokenizer's own rules, and rules without a name are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from training.contract import InputError
from training.export.answers import Questions

CONTRACTIONS: Final = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
ANY_CASE: Final = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3: Final = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2: Final = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SEED_CODER: Final = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
OWN_WITHOUT_CONTRACTIONS: Final = SEED_CODER[1:]
NEARLY: Final = (
    "this tokenizer was made before it could be written as GGUF: llama.cpp cuts an apostrophe with s, t, m, d, re, ve "
    "or ll after it off at the beginning of a line and inside a word (O'Reilly), where this project does not"
)


@dataclass(frozen=True)
class Cut:
    """How text is cut into pieces before merges, by llama.cpp's name; `patterns` are applied one after the other."""

    name: str
    patterns: tuple[str, ...]
    whole_words: bool = False
    """Whether a piece that is a token is taken whole, without its merges (ignore_merges)."""


CUTS: Final = {
    cut.name: cut
    for cut in (
        Cut("gpt-2", (GPT2,)),
        Cut("smollm", (r"\p{N}", GPT2)),
        Cut("qwen2", (CONTRACTIONS + QWEN2,)),
        Cut("seed-coder", (CONTRACTIONS + SEED_CODER,)),
        Cut("llama-bpe", (CONTRACTIONS + LLAMA3,), whole_words=True),
        Cut("dbrx", (CONTRACTIONS + LLAMA3,)),
    )
}


@dataclass(frozen=True)
class Vocabulary:
    """tokens, their types and merges as GGUF files hold them; `cut` names how text is cut. `nearly`: what is not quite
    the same in llama.cpp."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    cut: str
    nearly: str = ""


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """The tokenizer of a model with `rows` embeddings. Raises InputError if it cannot be written for certain."""
    if not tokenizer.is_fast:
        raise refused_tokenizer("it has no tokenizer.json")
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    check_merges(model)
    check_normalizer(document.get("normalizer"))
    cut, nearly = cut_of(document.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    tokens = [f"[UNUSED_{i}]" for i in range(rows)]
    types = [int(gguf.TokenType.UNUSED)] * rows
    for text, i in model["vocab"].items():
        place(tokens, types, i, text, gguf.TokenType.NORMAL)
    for added in document.get("added_tokens") or []:
        if added["single_word"] or added["lstrip"] or added["rstrip"]:
            raise refused_tokenizer(f"its token {added['content']} takes in the white space around it")
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        place(tokens, types, added["id"], added["content"], kind)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if any(
        len(pair) == 2 and any(" " in token for token in pair) for pair in model["merges"] if not isinstance(pair, str)
    ):
        raise refused_tokenizer("a merge of it has a space in it")
    return Vocabulary(tokens, types, merges, cut, nearly)


def place(tokens: list[str], types: list[int], i: int, text: str, kind: int) -> None:
    """Tokens beyond the model's embeddings cannot be said or read, and stay out."""
    if i < len(tokens):
        tokens[i], types[i] = text, int(kind)


def check_merges(model: dict[str, Any]) -> None:
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise refused_tokenizer("it is no byte-level BPE but SentencePiece or another kind")
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if odd:
        raise refused_tokenizer(f"its merges use {odd[0]}")


def check_normalizer(normalizer: dict[str, Any] | None) -> None:
    """NFC, which Qwen has, does nothing to text that is composed already, as nearly all text is; llama.cpp leaves it
    out."""
    if normalizer is None or normalizer["type"] == "NFC":
        return
    if normalizer["type"] == "Sequence" and all(part["type"] == "NFC" for part in normalizer["normalizers"]):
        return
    raise refused_tokenizer(f"it changes text before it cuts it ({normalizer['type']})")


def cut_of(pre_tokenizer: dict[str, Any] | None, whole_words: bool) -> tuple[str, str]:
    """llama.cpp's name for a pre-tokenizer, and what is not quite the same."""
    whole: dict[str, Any] = pre_tokenizer or {"type": ""}
    steps: list[dict[str, Any]] = whole["pretokenizers"] if whole["type"] == "Sequence" else [whole]
    patterns: list[str] = []
    for step in steps:
        kind = step["type"]
        if kind == "Digits" and step["individual_digits"]:
            patterns.append(r"\p{N}")
        elif kind == "Split" and step["behavior"] == "Isolated" and not step["invert"] and "Regex" in step["pattern"]:
            patterns.append(step["pattern"]["Regex"].replace(ANY_CASE, CONTRACTIONS).replace(r"\p{N}{1}|", r"\p{N}|"))
        elif kind == "ByteLevel" and not step["add_prefix_space"]:
            patterns += [GPT2] if step.get("use_regex", True) else []
        else:
            raise refused_tokenizer(f"it cuts text by {kind or 'no rule'}")
    if patterns == [OWN_WITHOUT_CONTRACTIONS] and not whole_words:
        return "seed-coder", NEARLY
    for cut in CUTS.values():
        if list(cut.patterns) == patterns and cut.whole_words == whole_words:
            return cut.name, ""
    raise refused_tokenizer("llama.cpp has no name for the rule by which it cuts text")


def adds_bos(tokenizer: PreTrainedTokenizerBase, questions: Questions) -> bool:
    """Whether llama.cpp is to put the beginning-of-text token before every prompt: only if the tokenizer does it to
    plain text, and the chat template, where there is one, writes it, too. llama.cpp leaves out the second of two."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return False
    return not questions.has_template or all(prompt[0] == bos for prompt in questions.prompts)


def write_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges or [" "])


def read_tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """A tokenizer made of nothing but a GGUF file's metadata, which cuts and merges as llama.cpp does. It stands for
    llama.cpp in the check, where that is not installed."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ", 1)) for merge in fields.get("tokenizer.ggml.merges", [])]
    cut = CUTS[fields["tokenizer.ggml.pre"]]
    pairs = [(first, second) for first, second in merges if first and second]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=cut.whole_words))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cut.patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, special=kind == gguf.TokenType.CONTROL, normalized=False)])
            if tokenizer.token_to_id(token) != i:
                raise refused_tokenizer(f"its added token {token} would get another number")
    return tokenizer


def refused_tokenizer(why: str) -> InputError:
    return InputError(
        f"this model's tokenizer cannot be written as GGUF for certain: {why}; export it as a Hugging Face folder",
        code="model_unsupported",
    )
