"""Adds a model that was made elsewhere: from the Hugging Face hub, or from a folder or file on this machine.

A full model's files are kept as they are, so that its weights stay what their author published. A packed folder is
unpacked, GGUF becomes safetensors, an adapter is merged into its base, and a base model can get a chat template. Before
anything is kept, the model is loaded, checked and, if it speaks, asked for a short reply.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from training.contract import CARDS, KEPT, MODEL, AddSettings, InputError, Turn, hub_place, is_gguf, is_model_file
from training.data.chat_format import ChatFormat
from training.data.template_styles import STYLES, TemplateStyle, family_of
from training.engine.greedy_preview import greedy_reply
from training.models.archives import unpack
from training.models.checks import DAMAGE, check_source, check_vocabulary, damaged_folder
from training.models.compute import Compute, adapter_base, prepare
from training.models.gguf_models import gguf_to_folder
from training.models.hub import fetch_from_hub
from training.models.licenses import license_of
from training.models.loading import (
    CausalModel,
    load_causal,
    load_tokenizer,
    model_info,
    save_model,
    unwrap,
)
from training.models.model_files import check_room, copy_file, place_file
from training.models.new_tokens import give_template
from training.preferences.reward_model import load_reward
from training.run.run import Run

FETCHED: Final = "fetched"  # folders of a run that go when it has ended
UNPACKED: Final = "unpacked"
CONVERTED: Final = "converted"
GREETING: Final = "What is the capital of France?"


def main(run: Run[AddSettings]) -> None:
    config = run.config
    compute = prepare(run)
    with run.timed("fetching"):
        folder = model_folder(run)
    run.stop_if_asked()
    with run.timed("checking"), named_as_given(config.base, folder):
        refuse_own_code(folder)
        if is_reward_model(folder):
            if config.chat_template != "keep":
                raise InputError(
                    "chat_template: a reward model keeps the template that it learned to read replies in; set "
                    "chat_template to keep",
                    code="config_invalid",
                )
            reward, _ = load_reward(str(folder), compute)
            about = reward_info(reward.trunk, reward.max_tokens)
            model, tokenizer, style, changed = None, None, None, False
        else:
            tokenizer = load_tokenizer(str(folder), run)
            style = template_asked_for(run, folder, tokenizer)
            changed = style is not None or bool(adapter_base(str(folder)))
            if changed:
                compute = lossless(compute, stored_dtype(folder))
            model = load_causal(str(folder), compute)
            if style is not None:
                warn_of_new_tokens(run, give_template(unwrap(model), tokenizer, style))
            about = ask(run, model, tokenizer, compute)
    run.stop_if_asked()
    with run.timed("copying"), run.writing(MODEL) as target:
        if model is not None and tokenizer is not None and changed:
            stop_ids = ChatFormat(tokenizer, config.base).stop_ids if style is not None else []
            save_model(unwrap(model).to(stored_dtype(folder)), tokenizer, target, stop_ids)
            for path in (path for path in folder.iterdir() if CARDS.fullmatch(path.name)):
                shutil.copyfile(path, target / path.name)
        else:
            keep_files(run, folder, target)
    about |= {"license": license_of(folder), "base": config.base}
    run.finish({}, counts={"files": sum(path.is_file() for path in (run.folder / MODEL).iterdir())}, model=about)
    for name in (FETCHED, UNPACKED, CONVERTED):
        shutil.rmtree(run.folder / name, ignore_errors=True)


def model_folder(run: Run[AddSettings]) -> Path:
    """The model as a Hugging Face folder: where it lies, or in the run's folder."""
    source = Path(run.config.base)
    if not is_model_file(source.name) and not source.is_dir() and hub_place(run.config.base) is None:
        check_source(run.config.base, "model")
    if not source.exists() and hub_place(run.config.base) is not None:
        source = fetch_from_hub(
            run.config.base, run.config.revision, run.folder / FETCHED, progress_of(run, "fetching")
        )
    elif run.config.revision:
        raise InputError(
            "revision: this model does not come from the Hugging Face hub, so it has no revisions; leave it out",
            code="config_invalid",
        )
    if source.is_dir():
        if not adapter_base(str(source)):
            check_source(str(source), "model")
        return source
    if not source.is_file():
        raise InputError(f"{source.name}: there is no such file on the training machine", code="no_model")
    if not is_gguf(source.name):
        source = unpacked(run, source)
    ggufs = [source] if source.is_file() else gguf_files(source)
    return converted(run, ggufs) if ggufs else source


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of an unpacked folder; none if it has safetensors."""
    if any(folder.glob("*.safetensors")):
        return []
    return sorted(path for path in folder.iterdir() if is_gguf(path.name))


def unpacked(run: Run[AddSettings], archive: Path) -> Path:
    size, done = archive.stat().st_size, 0

    def step(written: int) -> None:
        nonlocal done
        run.stop_if_asked()
        done += written
        run.progress(done >> 20, max(1, done, size) >> 20, "unpacking MB")

    with run.writing(UNPACKED) as target:
        folder = unpack(archive, target, step)
    return run.folder / UNPACKED / folder.name


def converted(run: Run[AddSettings], ggufs: list[Path]) -> Path:
    """The folder that a GGUF file was turned into."""
    if len(ggufs) > 1:
        raise InputError(
            f"there are several GGUF files in it ({ggufs[0].name}, {ggufs[1].name}); add one of them by itself",
            code="no_model",
        )

    def step(done: int, total: int) -> None:
        run.stop_if_asked()
        run.progress(done, total, "converting tensors")

    with run.writing(CONVERTED) as target:
        gguf_to_folder(ggufs[0], target, step)
    return run.folder / CONVERTED


def progress_of(run: Run[AddSettings], phase: str) -> Callable[[int, int], None]:
    """Reports bytes that are done, of all, and stops where that is asked for."""

    def step(done: int, total: int) -> None:
        run.stop_if_asked()
        run.progress(done >> 20, max(1, total >> 20), f"{phase} MB")

    return step


@contextmanager
def named_as_given(source: str, folder: Path) -> Iterator[None]:
    """Errors about `folder` speak of what the person named or sent: they need not know where its files lie here."""
    try:
        yield
    except InputError as error:
        name = Path(source).name if Path(source).is_file() else source
        raise InputError(error.message.replace(str(folder), name), code=error.code) from error


def refuse_own_code(folder: Path) -> None:
    """Raises InputError if the model needs Python files of its own, which are not run here."""
    if "auto_map" in read_config(folder):
        raise InputError(
            f"{folder}: this model runs on code that comes with it, and code from elsewhere is not run here; take one "
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


def own_config(folder: Path) -> dict[str, Any]:
    """The model's config.json, an adapter's base's in its place."""
    base = adapter_base(str(folder))
    if not base or Path(base).is_dir():
        return read_config(Path(base or folder))
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(base).to_dict()
    except DAMAGE as error:
        raise damaged_folder(base, "model", error) from error
    return config


def reward_info(trunk: Any, max_tokens: int) -> dict[str, Any]:
    return {
        "kind": "reward",
        "parameters": sum(parameter.numel() for parameter in trunk.parameters()),
        "trainable": 0,
        "context": max_tokens,
        "vocabulary": trunk.config.get_text_config().vocab_size,
    }


def template_asked_for(run: Run[AddSettings], folder: Path, tokenizer: PreTrainedTokenizerBase) -> TemplateStyle | None:
    """The template to give the model; None if it keeps what it has. Raises InputError for a family that has another."""
    choice: str = run.config.chat_template
    if choice == "keep" or (choice == "family" and tokenizer.chat_template):
        return None
    if tokenizer.chat_template:
        run.warn(f"it had a chat template of its own, which {choice}'s replaces")
    if choice == "family":
        choice = family_of(str(own_config(folder).get("model_type", "")), tokenizer.get_vocab())
    return STYLES[choice]


def warn_of_new_tokens(run: Run[AddSettings], tokens: list[str]) -> None:
    if tokens:
        run.warn(
            f"{', '.join(tokens)}: their embeddings are new, so the model does not know yet what they mean; "
            "SFT teaches it"
        )


def lossless(compute: Compute, stored: torch.dtype) -> Compute:
    """Where and how to hold weights that are written again: no precision is lost on the way."""
    if stored in (compute.dtype, torch.float16) and compute.device.type == "cuda":
        return Compute(compute.device, stored)
    return compute if stored is compute.dtype else Compute(compute.device, torch.float32)


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
            "with chat_template set to family, or to one of those that any model can take"
        )
    return model_info(model, kind="full")


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision that the model's author, or its base's, published it in; float32 if the config does not say."""
    config = own_config(folder)
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"), None)
    return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32


def keep_files(run: Run[AddSettings], folder: Path, target: Path) -> None:
    """Give the run's own files a place in the model, and copy those of others."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and KEPT.fullmatch(path.name))
    own = folder.is_relative_to(run.folder)
    total, done = sum(path.stat().st_size for path in files), 0
    if not own:
        check_room(run.folder, total, "to copy it")
    report = progress_of(run, "copying")

    def step(written: int) -> None:
        nonlocal done
        done += written
        report(done, total)

    for path in files:
        (place_file if own else copy_file)(path, target / path.name, step)
