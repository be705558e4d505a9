"""Models and run folders so small that a stage takes a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from training.__main__ import run_stage
from training.contract.settings import LoopSettings
from training.contract.specs import SPECS
from training.data.chat_format import ChatFormat
from training.models.loading import save_model
from training.stages.tokenizer import learn_vocabulary, wrap

PROJECT = Path(__file__).parents[2]
TEXTS = ["the cat sat on the mat", "yes of course the sky is blue", "no never the sea is 1234567890"] * 3


@cache
def toy_tokenizer() -> PreTrainedTokenizerFast:
    return wrap(learn_vocabulary(iter(TEXTS), 300, len(TEXTS)), 64)


def toy_policy(folder: Path, seed: int = 0, hidden: int = 32) -> Path:
    """A random chat model of some ten thousand parameters."""
    torch.manual_seed(seed)
    tokenizer = toy_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    save_model(LlamaForCausalLM(config), tokenizer, folder, ChatFormat(tokenizer).stop_ids)
    return folder


def run_folder(folder: Path, config: dict[str, Any], **data: Iterable[dict[str, Any]]) -> Path:
    """A run folder with its config and the rows of data/*.jsonl. TEST_PRECISION, where set, is the precision."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    stage = SPECS.get(config.get("stage", ""))
    fields = stage.settings.model_fields if stage else {}
    defaults: dict[str, Any] = {
        name: value for name, value in {"device": "cpu", "threads": 1}.items() if name in fields
    }
    precision = os.environ.get("TEST_PRECISION")
    if precision and stage is not None and issubclass(stage.settings, LoopSettings):
        defaults["precision"] = precision
    (folder / "config.json").write_text(json.dumps(defaults | config))
    for name, rows in data.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_here(folder: Path) -> dict[str, Any]:
    """Runs the folder's stage in this process; its result."""
    assert run_stage(json.loads((folder / "config.json").read_text())["stage"], folder) == 0
    return json.loads((folder / "result.json").read_text())


def start_child(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Runs the folder's stage as its caller does, in a process of its own."""
    stage = json.loads((folder / "config.json").read_text())["stage"]
    return subprocess.Popen(
        [sys.executable, "-m", "training", stage, str(folder)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment,
    )  # fmt: skip


@contextmanager
def started_together(
    folder: Path, processes: int = 2, config: str = "parallel", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Runs the folder's stage in several processes, as a person does who has several GPUs; none outlives the block."""
    stage = json.loads((folder / "config.json").read_text())["stage"]
    launcher = subprocess.Popen(
        [
            sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", f"training/accelerate/{config}.yaml", "--num_processes", str(processes),
            "-m", "training", stage, str(folder),
        ],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    workers: list[psutil.Process] = []
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            workers = psutil.Process(launcher.pid).children(recursive=True)
        for process in [launcher, *workers]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        launcher.communicate()


def events(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if not kind or event["type"] == kind]


def turns(*contents: str) -> list[dict[str, str]]:
    """A conversation that the user begins."""
    return [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]


def prompts(n: int = 12) -> list[dict[str, Any]]:
    return [{"id": f"prompt:{i}", "messages": turns(f"the cat {i}")} for i in range(n)]


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALTERNATES = (  # as Gemma's: no system turn, and the sides take turns
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETS_THOUGHTS = (  # what the assistant thought, up to the bracket, is gone once the talk goes on
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ m['content'] if loop.last else m['content'].split('] ')[-1] }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
USER_FIRST = (  # refuses a conversation that the assistant begins
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('the user speaks first') }}{% endif %}" + CHATML
)
NO_END = (  # its turns end with no special token, so the end of text has to end them
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def foreign_tokenizer(
    template: str | None,
    *,
    adds_bos: bool = False,
    extra: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    **special: str,
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer as another project might have made it. adds_bos: it puts <s> before every text that it is
    not asked to leave alone. extra: its further special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.add_special_tokens(["<s>"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
        special["bos_token"] = "<s>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", chat_template=template,
        extra_special_tokens=list(extra), **special,
    )  # fmt: skip


def foreign_policy(folder: Path, tokenizer: PreTrainedTokenizerFast, **changed: Any) -> Path:
    """A random model with a tokenizer from elsewhere, saved as transformers saves them: nothing names the stop tokens
    but the tokenizer's end of text."""
    model = tiny_model("llama", **{"vocab_size": len(tokenizer), "max_position_embeddings": 128, **changed})
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        settings.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


WIDTH, CONTEXT = 32, 64
LLAMA_LIKE = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
}  # fmt: skip
GEMMA_LIKE = {**LLAMA_LIKE, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 40}
ARCHITECTURES: dict[str, dict[str, Any]] = {  # by transformers' model type: a tiny one of each
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": {**LLAMA_LIKE, "head_dim": 16},
    "mistral": {**LLAMA_LIKE, "sliding_window": 48},
    "gemma": {**LLAMA_LIKE, "head_dim": 8},
    "gemma2": GEMMA_LIKE,
    "gemma3_text": GEMMA_LIKE,
    "phi3": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
    "smollm3": LLAMA_LIKE,
    "stablelm": LLAMA_LIKE,
    "granite": {**LLAMA_LIKE, "logits_scaling": 2.0, "embedding_multiplier": 3.0},
    "cohere": {**LLAMA_LIKE, "logit_scale": 0.25},
    "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "gpt_neox": {**LLAMA_LIKE, "num_key_value_heads": None},
    "opt": {
        "hidden_size": WIDTH, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "word_embed_proj_dim": 16, "max_position_embeddings": CONTEXT,
    },
    "bloom": {"hidden_size": WIDTH, "n_layer": 2, "n_head": 4},
    "falcon": {
        "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": CONTEXT,
    },
}  # fmt: skip


def tiny_model(kind: str, seed: int = 0, **changed: Any) -> PreTrainedModel:
    """A random model of an architecture, as large as the toy tokenizer; its weights are drawn so widely that what an
    architecture adds to the common sum can be seen."""
    torch.manual_seed(seed)
    tokenizer = toy_tokenizer()
    shape = {name: value for name, value in ARCHITECTURES.get(kind, {}).items() if value is not None}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(kind, **{"vocab_size": len(tokenizer), **special, **shape, **changed})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.15)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tiny_folder(folder: Path, kind: str, **changed: Any) -> Path:
    """A chat model of an architecture, as a folder."""
    save_model(tiny_model(kind, **changed), toy_tokenizer(), folder, ChatFormat(toy_tokenizer()).stop_ids)
    return folder
