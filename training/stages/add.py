"""Adds a model that was made elsewhere: from the Hugging Face hub, or from a folder on this machine.

A full model's files are copied as they are, so that its weights stay what their author published. An adapter is merged
into its base, and a base model can get a chat template. Before anything is kept, the model is loaded, checked and, if
it speaks, asked for a short reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from training.contract import MODEL, AddSettings, InputError, Turn
from training.data.chat_format import ChatFormat
from training.engine.greedy_preview import greedy_reply
from training.models.checks import check_source, check_vocabulary
from training.models.compute import Compute, adapter_base, prepare
from training.models.licenses import license_of
from training.models.loading import (
    CausalModel,
    load_causal,
    load_tokenizer,
    merged,
    model_info,
    save_model,
    unwrap,
)
from training.preferences.reward_model import load_reward
from training.run.run import Run

# Weights, settings, tokenizers, chat templates, and what says who made the model. Nothing that runs as code.
KEPT: Final = re.compile(
    r"[^/]+\.(safetensors|safetensors\.index\.json|json|jinja|model|txt)|LICENSE[^/]*|README\.md", re.IGNORECASE
)
BLOCK: Final = 16 << 20
CHATML_TOKENS: Final = ["<|im_start|>", "<|im_end|>"]
CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GREETING: Final = "What is the capital of France?"


def main(run: Run[AddSettings]) -> None:
    config = run.config
    if not adapter_base(config.base):
        check_source(config.base, "model")
    compute = prepare(run)
    with run.timed("fetching"):
        folder = Path(config.base) if Path(config.base).is_dir() else fetched(run, config.base, config.revision)
    refuse_own_code(config.base, folder)
    run.stop_if_asked()
    with run.timed("checking"):
        if is_reward_model(folder):
            if config.chat_template != "keep":
                raise InputError(
                    "chat_template: a reward model keeps the template that it learned to read replies in; set "
                    "chat_template to keep",
                    code="config_invalid",
                )
            reward, _ = load_reward(str(folder), compute)
            about = reward_info(reward.trunk, reward.max_tokens)
            model, tokenizer = None, None
        else:
            model = load_causal(str(folder), compute)
            tokenizer = load_tokenizer(str(folder), run)
            if config.chat_template == "chatml":
                give_chatml(model, tokenizer)
            about = ask(run, model, tokenizer, compute)
    run.stop_if_asked()
    with run.timed("copying"), run.writing(MODEL) as target:
        changed = isinstance(model, PeftModel) or config.chat_template != "keep"
        if model is not None and tokenizer is not None and changed:
            whole = merged(model) if isinstance(model, PeftModel) else model
            save_model(whole.to(stored_dtype(folder)), tokenizer, target, [])
        else:
            copy_files(run, folder, target)
    about |= {"license": license_of(folder), "base": config.base}
    run.finish({}, counts={"files": sum(path.is_file() for path in (run.folder / MODEL).iterdir())}, model=about)


def fetched(run: Run[AddSettings], name: str, revision: str) -> Path:
    """The folder of a model of the hub, in the hub's cache; files that are there already are not fetched again."""
    with hub_errors(name):
        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
    wanted = [file for file in info.siblings or [] if KEPT.fullmatch(file.rfilename)]
    total, done, path = sum(file.size or 0 for file in wanted), 0, ""
    for file in wanted:
        run.stop_if_asked()
        run.progress(done >> 20, max(1, total >> 20), "fetching MB")
        with hub_errors(name):
            path = hf_hub_download(name, file.rfilename, revision=info.sha)
        done += file.size or 0
    if not path:
        raise InputError(f"{name}: there are no files of a model there", code="no_model")
    return Path(path).parent


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turns what the hub, or the way there, refuses into an InputError."""
    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{name}: its authors let only people who accepted its license download it; accept it on the hub, and "
            "store a token of yours on your profile page (or give the training worker one in HF_TOKEN)",
            code="no_model",
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{name}: the hub has no such model", code="no_model") from error
    except Exception as error:  # the hub's library raises those of its HTTP client as they are
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise InputError(f"{name}: the hub cannot be reached or refuses ({reason})", code="no_model") from error


def refuse_own_code(source: str, folder: Path) -> None:
    """Raises InputError if the model needs Python files of its own, which are not run here."""
    if "auto_map" in read_config(folder):
        raise InputError(
            f"{source}: this model runs on code that comes with it, and code from elsewhere is not run here; take one "
            "whose architecture transformers has",
            code="model_unsupported",
        )


def is_reward_model(folder: Path) -> bool:
    architectures = read_config(folder).get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in architectures)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, empty if there is none to read: loading says what is wrong with it."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def reward_info(trunk: Any, max_tokens: int) -> dict[str, Any]:
    return {
        "kind": "reward",
        "parameters": sum(parameter.numel() for parameter in trunk.parameters()),
        "trainable": 0,
        "context": max_tokens,
        "vocabulary": trunk.config.get_text_config().vocab_size,
    }


def give_chatml(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """ChatML's template, and its two tokens where the tokenizer lacks them: their embeddings begin at the mean of all
    others, and fine-tuning teaches them."""
    tokenizer.add_special_tokens({"additional_special_tokens": CHATML_TOKENS}, replace_extra_special_tokens=False)
    tokenizer.chat_template = CHATML
    inner = unwrap(model)
    if len(tokenizer) > inner.get_input_embeddings().weight.shape[0]:
        inner.resize_token_embeddings(len(tokenizer))


def ask(
    run: Run[AddSettings], model: CausalModel, tokenizer: PreTrainedTokenizerBase, compute: Compute
) -> dict[str, Any]:
    """What is known of a language model, after it has replied once; without a chat template it is not asked."""
    if tokenizer.chat_template:
        chat = ChatFormat(tokenizer, run.config.base)
        check_vocabulary(chat, model, run.config.base)
        run.sample(0, GREETING, greedy_reply(model, chat, [Turn(role="user", content=GREETING)], compute))
    else:
        run.warn(
            "its tokenizer has no chat template, so it can neither chat nor learn from conversations; add it again "
            "with chat_template set to chatml"
        )
    return model_info(model, kind="full")


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision that the model's author published it in; float32 if its config does not say."""
    config = read_config(folder)
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"), None)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32


def copy_files(run: Run[AddSettings], folder: Path, target: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.is_file() and KEPT.fullmatch(path.name))
    total, done = sum(path.stat().st_size for path in files), 0
    for path in files:
        with (target / path.name).open("wb") as copy:
            for block in blocks_of(path):
                run.stop_if_asked()
                copy.write(block)
                done += len(block)
                run.progress(done >> 20, max(1, total >> 20), "copying MB")


def blocks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block
