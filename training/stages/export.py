"""Writes a model as others run it: a Hugging Face folder, an adapter alone, or a GGUF file with an Ollama Modelfile.

What was written is read back and asked the same questions as the model it came from, before it is offered, and before
it is pushed to the hub. about.json in the run folder, where there is one, says what the model is called and where it
comes from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from transformers import AutoConfig

from training.contract import ABOUT, OUTPUT, ExportAbout, ExportSettings, InputError
from training.export.answers import Questions
from training.export.card import write_card
from training.export.gguf_architectures import Architecture
from training.export.gguf_check import check_gguf
from training.export.gguf_file import About, Tokens, file_bytes, write_gguf
from training.export.gguf_tokenizer import vocabulary_of
from training.export.hugging_face import (
    DTYPES,
    copy_license,
    write_adapter,
    write_generation_config,
    write_model,
    write_tokenizer,
)
from training.export.hugging_face_check import check_adapter, check_policy, check_reward
from training.export.ollama import modelfile, pieces_of
from training.export.pushing import Step, push
from training.export.weights import Weights, open_weights, plain_folder
from training.models.compute import Compute, adapter_base, prepare
from training.models.loading import load_tokenizer
from training.preferences.reward_model import member_folders
from training.run.run import Run

GGUF: Final = "gguf-"
COPIES: Final = 2  # in the run folder, and where the site keeps it
CHECKS: Final = "checks.json"  # what was checked, for a run that is resumed when all but the push is done


def main(run: Run[ExportSettings]) -> None:
    config, output, pushed = run.config, run.folder / OUTPUT, {}
    if not output.exists():
        write_export(run)
    checks = json.loads((run.folder / CHECKS).read_text())
    if config.push_to:
        with run.timed("pushing"):
            address = push(
                output,
                config.push_to,
                public=config.public,
                token=os.environ.get("HF_TOKEN", ""),
                message=f"Export as {config.format}",
                step=pushing_step(run),
            )
        pushed = {"hub": address}
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    run.finish({}, model={"format": config.format, "bytes": size, "checks": checks} | pushed)


def write_export(run: Run[ExportSettings]) -> None:
    """Writes and checks output/."""
    config, compute = run.config, prepare(run)
    about = read_about(run)
    with run.writing(OUTPUT) as target:
        if config.format.startswith(GGUF):
            checks, usage = export_gguf(run, about, target), "gguf"
        elif config.format == "adapter":
            checks, usage = export_adapter(run, compute, about, target), "adapter"
        elif is_reward(config.base):
            checks, usage = export_reward(run, compute, target), "reward"
        else:
            checks, usage = export_policy(run, compute, target), "folder"
        copy_license(plain_folder(config.base), target)
        write_card(target, about, config.format, checks, plain_folder(config.base), usage)
        (run.folder / CHECKS).write_text(json.dumps(checks))


def read_about(run: Run[ExportSettings]) -> ExportAbout:
    path = run.folder / ABOUT
    return ExportAbout.model_validate_json(path.read_bytes()) if path.exists() else ExportAbout()


def is_reward(source: str) -> bool:
    kinds = AutoConfig.from_pretrained(plain_folder(source)).architectures or []
    return any(str(kind).endswith("ForSequenceClassification") for kind in kinds)


# ---------------------------------------------------------------------------------------------------- the four formats


def export_policy(run: Run[ExportSettings], compute: Compute, target: Path) -> list[str]:
    """A language model, an adapter merged into it, as a Hugging Face folder."""
    source, dtype = run.config.base, DTYPES[run.config.format]
    tokenizer = load_tokenizer(source)
    questions = Questions(tokenizer, source)
    with open_weights(source) as weights:
        tell_unknown(run, weights)
        check_disk(run, weights.numbers * dtype.itemsize)
        with run.timed("writing"):
            write_model(weights, target, dtype, writing_step(run, weights.numbers))
        write_tokenizer(tokenizer, Path(source), target)
        write_generation_config(Path(source), target, questions.stop_ids, questions.pad_id)
    with run.timed("checking"):
        return check_policy(source, target, dtype, compute.device, questions, run.measuring("checking answers"))


def export_adapter(run: Run[ExportSettings], compute: Compute, about: ExportAbout, target: Path) -> list[str]:
    """The adapter alone, for those who have its base."""
    source = run.config.base
    if not adapter_base(source):
        raise InputError(
            "this model is whole, it has no adapter to take alone; choose another format", code="no_adapter"
        )
    check_disk(run, (Path(source) / "adapter_model.safetensors").stat().st_size)
    tokenizer = load_tokenizer(source)
    questions = Questions(tokenizer, source)
    if not about.base:
        run.warn(
            "its base is not on the Hugging Face hub, so export the base, too: the adapter is of no use without it"
        )
    write_adapter(Path(source), target, about.base)
    write_tokenizer(tokenizer, Path(source), target)
    write_generation_config(Path(source), target, questions.stop_ids, questions.pad_id)
    with run.timed("checking"):
        return check_adapter(source, target, compute, questions, run.measuring("checking answers"))


def export_reward(run: Run[ExportSettings], compute: Compute, target: Path) -> list[str]:
    """A reward model as transformers' sequence classification; of an ensemble, every member in a folder of its own."""
    source, dtype, checks = run.config.base, DTYPES[run.config.format], []
    members = member_folders(Path(source))
    for member in members:
        member_folder = target if len(members) == 1 else target / f"member-{members.index(member) + 1}"
        member_folder.mkdir(exist_ok=True)
        with open_weights(str(member)) as weights:
            tell_unknown(run, weights)
            check_disk(run, weights.numbers * dtype.itemsize * len(members))
            with run.timed("writing"):
                write_model(weights, member_folder, dtype, writing_step(run, weights.numbers))
        write_tokenizer(load_tokenizer(str(member)), member, member_folder)
        with run.timed("checking"):
            checks = check_reward(str(member), member_folder, dtype, compute.device)
    if len(members) > 1:
        checks.append(f"This is an ensemble of {len(members)} reward models; its score is the mean of theirs.")
    return checks


def export_gguf(run: Run[ExportSettings], about: ExportAbout, target: Path) -> list[str]:
    """A GGUF file and an Ollama Modelfile."""
    source, quantization = run.config.base, run.config.format.removeprefix(GGUF)
    if is_reward(source):
        raise InputError(
            "reward models leave as a Hugging Face folder; choose bf16, fp16 or fp32", code="config_invalid"
        )
    tokenizer = load_tokenizer(source)
    questions = Questions(tokenizer, source)
    architecture = Architecture(AutoConfig.from_pretrained(plain_folder(source)))
    vocabulary = vocabulary_of(tokenizer, architecture.config.vocab_size)
    if vocabulary.nearly:
        run.warn(vocabulary.nearly)
    if architecture.window:
        run.warn(
            f"its attention sees {architecture.window} tokens back, and llama.cpp all: the file allows "
            f"{architecture.context} tokens, up to which both are the same"
        )
    tokens = Tokens.of(tokenizer, questions)
    path = target / f"{run.config.name or 'model'}-{quantization}.gguf"
    with open_weights(source) as weights:
        tell_unknown(run, weights)
        check_disk(run, file_bytes(weights, architecture, quantization))
        with run.timed("writing"):
            name = about.name or run.config.name or "model"
            write_gguf(
                path, weights, architecture, vocabulary, tokens, About(name, about.license), quantization,
                writing_step(run, weights.numbers),
            )  # fmt: skip
        pieces = pieces_of(questions.render) if tokens.template else None
        stops = [str(tokenizer.convert_ids_to_tokens(i)) for i in tokens.stop_ids]
        bos = tokenizer.bos_token if tokens.adds_bos else ""
        (target / "Modelfile").write_text(
            modelfile(path.name, pieces and pieces.without_bos(bos), stops, architecture.context), encoding="utf-8"
        )
        with run.timed("checking"):
            return check_gguf(
                path, weights, architecture, quantization, tokenizer, questions, run.measuring("checking answers")
            )


# ------------------------------------------------------------------------------------------------------- on the way


def tell_unknown(run: Run[ExportSettings], weights: Weights) -> None:
    if weights.unknown:
        run.warn(f"left out {len(weights.unknown)} tensors that are no part of the model, such as {weights.unknown[0]}")


def check_disk(run: Run[ExportSettings], needed: int) -> None:
    """Raises InputError, with both figures, where the disk cannot hold what is to be written."""
    free = shutil.disk_usage(run.folder).free
    if needed * COPIES > free:
        raise InputError(
            f"{needed * COPIES / 1e9:.1f} GB are needed to write and keep this export, and {free / 1e9:.1f} GB are "
            f"free on the disk of {run.folder}; free some space or take a smaller format",
            code="disk_full",
        )


def writing_step(run: Run[ExportSettings], numbers: int) -> Callable[[int], None]:
    done = 0

    def step(count: int) -> None:
        nonlocal done
        run.stop_if_asked()
        done += count
        run.progress(done // 1000, max(1, numbers // 1000), "writing, thousand parameters")

    return step


def pushing_step(run: Run[ExportSettings]) -> Step:
    def step(phase: str, done: int, total: int) -> None:
        run.stop_if_asked()
        run.progress(done >> 20, max(1, total >> 20), phase)

    return step
