"""Whatever ends a process, the next one ends with the same losses and the same weights, to the last bit.

Each run here is a process of its own, forked from this one, which has imported what the stages need; so a signal is
the kernel's, comes at a moment that is known exactly, and costs no imports. The slow tests do the same to processes
started as a caller starts them.

Over 300 lines: every case needs the forked child and the table of stages.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.training.stages.test_reward import rankings
from tests.training.toys import PROJECT, events, prompts, run_folder, start_child, toy_policy, toy_tokenizer, turns
from training.__main__ import main
from training.contract import SPECS, STAGES, RewardSettings
from training.data.chat_format import ChatFormat
from training.models.compute import Compute
from training.models.loading import save_model
from training.preferences.reward_model import reward_from_language_model, save_reward
from training.run.checkpoints import Stopped
from training.run.opening import open_run
from training.run.run import Run
from training.stages.sample import PROGRESS

KILLED, STOPPED, FAILED, REFUSED = -signal.SIGKILL, 143, 1, 2
LARGE = (
    "state.pt", "optimizer.pt", "model.safetensors", "adapter_model.safetensors", "tokenizer.json", "corpus.jsonl",
    "samples.jsonl",
)  # fmt: skip
HELD_OUT = re.compile(r"heldout_|bits_per_byte")
CLOCKS = re.compile(r"tokens_per_second|time/.*|step_time|.*_per_second|.*runtime")
WORKING = {
    "training",
    "learning",
    "sampling",
    "cleaning",
    "reading",
    "policy replies",
    "baseline replies",
}  # phases that count as work
DIES_AT, EVERY = 8, 5  # the step in which a run is ended, and how often it writes checkpoints
TOLD, EVALUATED = 6, 4  # steps that tell of learning, and of held-out rows
RARELY = {"log_every": TOLD // 2, "evaluate_every": EVALUATED, "checkpoint_every": EVERY}
TEXTS = ["the cat sat on the mat", "yes of course the sky is blue", "no never the sea is 1234567890"]
CORPUS = [{"id": f"text:{i}", "text": f"{TEXTS[i % 3]} and {i}"} for i in range(24)]
DEMONSTRATIONS = [{"id": f"demonstration:{i}", "messages": turns(f"is it {i}?", TEXTS[i % 3])} for i in range(12)]
Data = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A run to be disturbed. What its settings call POLICY, GPT2, ADAPTER, REWARD or TOKENIZER are models made here."""

    stage: str
    settings: dict[str, Any]
    data: Data = field(default_factory=dict)

    @property
    def gives(self) -> str:
        return "output" if self.stage in {"corpus", "sample", "evaluate"} else "model"


HEARD: Data = {"demonstrations": DEMONSTRATIONS, "heldout": DEMONSTRATIONS[:1]}
RANKED: Data = {"rankings": rankings(24, 1), "heldout": rankings(4, 2)}
ASKED: Data = {"prompts": prompts(10), "heldout": prompts(3)}
SFT = {"epochs": 3, "batch_tokens": 64, "micro_tokens": 64, "learning_rate": 0.01, "max_tokens": 64, **RARELY}
REWARD = {"base": "POLICY", "learning_rate": 3e-3, "epochs": 3, "batch_tokens": 300, **RARELY}
PPO = {
    "reward": "function:digits", "steps": 12, "prompts_per_step": 8, "epochs": 2, "learning_rate": 1e-2,
    "value_learning_rate": 1e-2, "value_warmup": 1, "sampling": {"max_new_tokens": 6}, "kl_target": 0.5,
    "normalize_rewards": True, **RARELY,
}  # fmt: skip
PAIRS = {"policy": "POLICY", "learning_rate": 2e-3, "epochs": 3, "batch_tokens": 800, **RARELY}
GRPO = {
    "policy": "POLICY", "reward": "function:digits", "steps": 12, "prompts_per_step": 2, "samples_per_prompt": 4,
    "learning_rate": 1e-2, "beta": 0.04, "sampling": {"max_new_tokens": 6}, "micro_tokens": 100, "epochs": 2,
    "minibatches": 2, **RARELY,
}  # fmt: skip
LORA = {"lora": {"rank": 4}}
VARIANT = {"lora": {"rank": 4, "use_dora": True, "use_rslora": True, "modules_to_save": "embed_tokens"}}
DORA = {"lora": {"rank": 4, "use_dora": True, "use_rslora": True}}
LORA_WITH_DROPOUT = {"lora": {"rank": 4, "dropout": 0.2}}
CASES: dict[str, Case] = {
    "corpus": Case("corpus", {"min_chars": 0, "heldout_fraction": 0.3}, {"documents": CORPUS}),
    "tokenizer": Case("tokenizer", {"vocabulary": 320}, {"corpus": CORPUS}),
    "pretrain": Case(
        "pretrain",
        {
            "tokenizer": "TOKENIZER",
            "layers": 1,
            "hidden": 16,
            "heads": 2,
            "context": 32,
            "epochs": 3,
            "batch_tokens": 120,
            "micro_tokens": 64,
            "learning_rate": 0.01,
            **RARELY,
        },
        {"corpus": CORPUS, "heldout": CORPUS[:3]},
    ),
    "sft": Case("sft", {"base": "GPT2", **SFT}, HEARD),
    "sft-lora": Case("sft", {"base": "POLICY", **SFT, **LORA_WITH_DROPOUT}, HEARD),
    "sft-dora": Case("sft", {"base": "POLICY", **SFT, **VARIANT}, HEARD),
    "sft-bf16": Case("sft", {"base": "POLICY", **SFT, "precision": "bf16"}, HEARD),
    "reward": Case("reward", {**REWARD, "ties": "davidson"}, RANKED),
    "reward-lora": Case("reward", {**REWARD, **LORA_WITH_DROPOUT}, RANKED),
    "reward-dora": Case("reward", {**REWARD, **VARIANT}, RANKED),
    "ppo": Case("ppo", {"policy": "POLICY", **PPO, "ptx_weight": 0.1, "batch_tokens": 64}, {**ASKED, "corpus": CORPUS}),
    "ppo-reward": Case("ppo", {"policy": "POLICY", **PPO, "reward": "REWARD", "minibatches": 2}, ASKED),
    "ppo-critic": Case("ppo", {"policy": "POLICY", **PPO, "reward": "REWARD", "critic": "own"}, ASKED),
    "ppo-critic-lora": Case("ppo", {"policy": "POLICY", **PPO, **LORA, "reward": "REWARD", "critic": "own"}, ASKED),
    "ppo-lora": Case("ppo", {"policy": "POLICY", **PPO, **LORA}, ASKED),
    "ppo-dora": Case("ppo", {"policy": "POLICY", **PPO, **VARIANT}, ASKED),
    "ppo-bf16": Case("ppo", {"policy": "POLICY", **PPO, "precision": "bf16"}, ASKED),
    "ppo-adapter": Case("ppo", {"policy": "ADAPTER", **PPO, **LORA}, ASKED),
    "dpo": Case("dpo", PAIRS, RANKED),
    "dpo-lora": Case("dpo", {**PAIRS, **LORA}, RANKED),
    "dpo-simpo": Case("dpo", {**PAIRS, "loss": "simpo"}, RANKED),
    "dpo-orpo-lora": Case("dpo", {**PAIRS, **LORA, "loss": "orpo"}, RANKED),
    "dpo-dora": Case("dpo", {**PAIRS, **DORA}, RANKED),
    "kto": Case("kto", {**PAIRS, "epochs": 4, "batch_tokens": 400}, RANKED),
    "kto-lora": Case("kto", {**PAIRS, **LORA, "epochs": 4, "batch_tokens": 400}, RANKED),
    "grpo": Case("grpo", GRPO, ASKED),
    "grpo-gpt2": Case("grpo", {**GRPO, "policy": "GPT2"}, ASKED),
    "grpo-lora": Case("grpo", {**GRPO, **LORA}, ASKED),
    "grpo-rloo": Case("grpo", {**GRPO, "loss": "rloo"}, ASKED),
    "grpo-dynamic": Case("grpo", {**GRPO, "dynamic_sampling": 2}, ASKED),
    "grpo-dora": Case("grpo", {**GRPO, **DORA}, ASKED),
    "add": Case("add", {"base": "POLICY"}),
    "export": Case("export", {"base": "POLICY"}),
    "sample": Case(
        "sample",
        {"policy": "POLICY", "reward": "function:digits", "replies": 3, "slots": 2, "sampling": {"max_new_tokens": 8}},
        {"prompts": prompts(48)},
    ),
    "evaluate": Case(
        "evaluate",
        {"policy": "POLICY", "baseline": "GPT2", "reward": "function:digits", "sampling": {"max_new_tokens": 8}},
        {"text": CORPUS, "demonstrations": DEMONSTRATIONS, "rankings": RANKED["rankings"], "prompts": prompts(8)},
    ),
}
LEARNING = [name for name, case in CASES.items() if SPECS[case.stage].learns]


def some(names: Iterable[str], quick: str) -> list[Any]:
    """All of these cases, those that are not among the `quick` ones as slow tests."""
    return [pytest.param(name, marks=[] if name in quick.split() else pytest.mark.slow) for name in names]


def test_every_stage_that_ends_is_here() -> None:
    assert {case.stage for case in CASES.values()} == set(STAGES) - {"serve"}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    toy_policy(folder / "POLICY")
    tokenizer, cpu = toy_tokenizer(), Compute(torch.device("cpu"), torch.float32)
    tokenizer.save_pretrained(folder / "TOKENIZER")
    torch.manual_seed(1)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.2, embd_pdrop=0.2,
            attn_pdrop=0.2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    save_model(gpt2, tokenizer, folder / "GPT2", ChatFormat(tokenizer).stop_ids)
    _, reward = reward_from_language_model(str(folder / "POLICY"), cpu, RewardSettings().lora)
    save_reward(reward, tokenizer, folder / "REWARD", {"max_tokens": 64, "temperature": 1.0})
    adapted = run_folder(
        folder / "adapted",
        {"stage": "sft", "base": str(folder / "POLICY"), "max_steps": 2, **LORA},
        demonstrations=DEMONSTRATIONS,
    )
    assert in_fork(adapted) == 0, log(adapted)
    (adapted / "model").rename(folder / "ADAPTER")
    return {name: str(folder / name) for name in ("POLICY", "TOKENIZER", "GPT2", "REWARD", "ADAPTER")}


def new_run(folder: Path, name: str, models: dict[str, str], **changes: Any) -> Path:
    case = CASES[name]
    settings = {key: models.get(str(value), value) for key, value in {**case.settings, **changes}.items()}
    return run_folder(folder, {"stage": case.stage, **settings}, **case.data)


# ------------------------------------------------------------------------------------------------------- ways of dying


def in_fork(
    folder: Path, sabotage: Callable[[], object] = lambda: None, run: Callable[[Path], int] | None = None
) -> int:
    """Runs the folder's stage in a process of its own, after `sabotage`; its exit status, or minus its signal."""
    return status_of(fork(folder, sabotage, run))


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork(folder: Path, sabotage: Callable[[], object] = lambda: None, run: Callable[[Path], int] | None = None) -> int:
    stage = json.loads((folder / "config.json").read_text())["stage"]
    import_module(f"training.stages.{stage}")
    child = os.fork()
    if child == 0:
        status = 70
        try:
            gc.freeze()  # what was inherited need not be looked through for garbage again and again
            signal.alarm(120)
            sys.stdout = sys.stderr = (folder / "log.txt").open("a", buffering=1)
            sabotage()
            status = run(folder) if run else main([stage, str(folder)])
        except BaseException:  # noqa: BLE001 - it must not reach pytest a second time
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def as_a_command(folder: Path) -> int:
    """Makes this process one that a caller has started."""
    stage = json.loads((folder / "config.json").read_text())["stage"]
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    os.chdir(PROJECT)
    os.execv(sys.executable, [sys.executable, "-m", "training", stage, str(folder)])  # noqa: S606 - a list, no shell


def log(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def at_work(number: int, how: signal.Signals) -> Callable[[], None]:
    """Sends this process a signal as it tells its progress for the nth time: for what learns, after the nth step."""

    def arm() -> None:
        told, progress = count(1), Run.progress

        def tell(run: Run[Any], step: int, total: int, phase: str = "") -> None:
            progress(run, step, total, phase)
            if phase in WORKING and next(told) == number:
                os.kill(os.getpid(), how)

        Run.progress = tell  # type: ignore[assignment]

    return arm


def at_telling(step: int, how: signal.Signals) -> Callable[[], None]:
    """Sends this process a signal as it tells a step's figures: the step is over, the next one has not begun."""

    def arm() -> None:
        metric = Run.metric

        def tell(run: Run[Any], at: int, values: dict[str, float]) -> None:
            metric(run, at, values)
            if at == step:
                os.kill(os.getpid(), how)

        Run.metric = tell  # type: ignore[assignment]

    return arm


def at_write(number: int, how: signal.Signals, among: str = "", kind: str = "") -> Callable[[], None]:
    """Sends this process a signal just before the nth time that it opens, makes, renames or removes a file or folder
    of its run whose path contains `among`."""
    kinds = {kind} if kind else {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

    def arm() -> None:
        seen = count(1)

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            if event in kinds:
                path = str(arguments[0])  # shutil.rmtree names files by their folder's descriptor
                own = "/run/" in path or not path.startswith("/")
                if own and among in path and next(seen) == number:
                    os.kill(os.getpid(), how)

        sys.addaudithook(look)

    return arm


def half_way(among: str) -> Callable[[], None]:
    """Kills this process in the middle of writing a file of tensors whose path contains `among`."""

    def arm() -> None:
        save = torch.save

        def die(state: Any, file: Any, *rest: Any, **named: Any) -> None:
            path = Path(getattr(file, "name", file))
            if among in str(path):
                whole = BytesIO()
                save(state, whole)
                path.write_bytes(whole.getvalue()[: whole.tell() // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            save(state, file, *rest, **named)

        torch.save = die  # type: ignore[assignment]

    return arm


def without_room(*names: str) -> Callable[[], None]:
    """To every large file in a new folder of these names the kernel says that the disk is full."""

    def arm() -> None:
        make = os.mkdir

        def full(path: Any, *rest: Any, **named: Any) -> None:
            make(path, *rest, **named)
            if Path(path).name in names:
                for name in LARGE:
                    (Path(path) / name).symlink_to("/dev/full")

        os.mkdir = full

    return arm


def without_large_files(size: int) -> Callable[[], None]:
    """No file of this process may grow beyond `size` bytes: the kernel takes what fits of a write and no more."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# ----------------------------------------------------------------------------------------------------- what must be so


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run gives, its clocks left out; a figure told twice, before and after a resume, counts once."""
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    result["metrics"] = {name: value for name, value in result["metrics"].items() if not CLOCKS.fullmatch(name)}
    if result["stage"] == "sample":  # its replies are drawn beside others after a stop, which rounds differently
        result["metrics"] = {name: round(value, 5) for name, value in result["metrics"].items()}
        result["files"] = sorted(result["files"])
    curves = {
        (event["step"], name): value
        for event in events(folder, "metric")
        for name, value in event["values"].items()
        if not CLOCKS.fullmatch(name)
    }
    samples = {
        (event["step"], event["prompt"]): (event["reply"], event["reward"]) for event in events(folder, "sample")
    }
    return {"result": result, "curves": curves, "samples": samples}


def assert_the_same(folder: Path, alone: Path, unreadable: int = 0) -> None:
    assert outcome(folder) == outcome(alone)
    assert len(events(folder, "done")) == 1
    assert sum("cannot be read" in event["message"] for event in events(folder, "warning")) == unreadable
    assert not list(folder.rglob("*.partial"))


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*[0-9]"))


def steps_told(told: Iterable[dict[str, Any]]) -> list[int]:
    return [event["step"] for event in told if event["type"] == "metric"]


_ALONE: dict[str, Path] = {}


@pytest.fixture
def alone(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of this name that nothing disturbs."""

    def left_alone(name: str) -> Path:
        if name not in _ALONE:
            folder = new_run(tmp_path_factory.mktemp(name) / "run", name, models)
            assert in_fork(folder) == 0, log(folder)
            _ALONE[name] = folder
        return _ALONE[name]

    return left_alone


# ------------------------------------------------------------------------------------------------------ in mid-work


@pytest.mark.parametrize("name", some(CASES, "corpus tokenizer pretrain sft sft-bf16 reward ppo evaluate"))
def test_killed_between_two_checkpoints_it_goes_on_from_the_first(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_work(DIES_AT if name in LEARNING else 2, signal.SIGKILL)) == KILLED, log(folder)
    assert not (folder / "result.json").exists()
    before = len(events(folder))
    if name in LEARNING:
        assert checkpoints(folder) == [EVERY]
        assert max(steps_told(events(folder))) > EVERY
    assert in_fork(folder) == 0, log(folder)
    if name in LEARNING:
        assert min(filter(None, steps_told(events(folder)[before:]))) > EVERY
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(CASES, "sft-lora ppo-lora sample"))
def test_asked_to_stop_it_goes_on_from_where_it_was(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_work(DIES_AT if name in LEARNING else 1, signal.SIGTERM)) == STOPPED, log(folder)
    assert not (folder / "result.json").exists()
    before = len(events(folder))
    if name in LEARNING:
        assert checkpoints(folder) == [EVERY, DIES_AT]
    assert in_fork(folder) == 0, log(folder)
    if name in LEARNING:
        since = [event for event in events(folder)[before:] if event["type"] == "metric" and event["step"]]
        learned = [event["step"] for event in since if not all(map(HELD_OUT.match, event["values"]))]
        assert min(learned) > DIES_AT
        assert min(steps_told(since)) >= DIES_AT  # it may have been stopped while it measured what that step reached
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("step", [EVALUATED, pytest.param(TOLD, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some(LEARNING, "dpo"))
def test_asked_to_stop_between_two_steps_it_takes_no_other(
    name: str, step: int, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_telling(step, signal.SIGTERM)) == STOPPED, log(folder)
    assert checkpoints(folder)[-1] == step
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(CASES, "reward pretrain"))
def test_asked_to_stop_before_its_first_step_it_begins_when_started_again(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_write(1, signal.SIGTERM, "/data/")) == STOPPED, log(folder)
    assert not any(steps_told(events(folder)))
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(LEARNING, "ppo-reward"))
def test_ended_again_and_again_it_comes_to_the_same_end(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    for steps, how, status in (
        (2, signal.SIGTERM, STOPPED), (5, signal.SIGKILL, KILLED), (2, signal.SIGTERM, STOPPED),
        (1, signal.SIGTERM, STOPPED), (1, signal.SIGKILL, KILLED),
    ):  # fmt: skip
        assert in_fork(folder, at_work(steps, how)) == status, log(folder)
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


# -------------------------------------------------------------------------------------------------- while it is saved

SECOND = f"checkpoint-{2 * EVERY}"


@pytest.mark.parametrize("name", some(LEARNING, "sft dpo"))
def test_killed_in_the_middle_of_a_checkpoint_it_goes_on_from_the_one_before(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, half_way(SECOND)) == KILLED, log(folder)
    assert checkpoints(folder) == [EVERY]
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(LEARNING, "ppo grpo"))
def test_asked_to_stop_while_a_checkpoint_is_written_it_is_written_whole(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_write(3, signal.SIGTERM, SECOND)) == STOPPED, log(folder)
    assert checkpoints(folder)[-1] == 2 * EVERY
    assert len(events(folder, "checkpoint")) == len({event["folder"] for event in events(folder, "checkpoint")})
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(CASES, "corpus tokenizer reward sample"))
def test_asked_to_stop_while_the_outcome_is_written_it_ends_first(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_write(3, signal.SIGTERM, f"{CASES[name].gives}.partial")) == 0, log(folder)
    assert_the_same(folder, alone(name))


MOMENTS = {
    "in it": (3, "{}.partial", ""),
    "before it has its name": (1, "{}.partial", "os.rename"),
    "before the result": (1, "result.json.partial", ""),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", some(CASES, "pretrain evaluate"))
def test_killed_while_the_outcome_is_written_there_is_no_half_of_it(
    name: str, moment: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, gives = new_run(tmp_path / "run", name, models), CASES[name].gives
    number, among, event = MOMENTS[moment]
    assert in_fork(folder, at_write(number, signal.SIGKILL, among.format(gives), event)) == KILLED, log(folder)
    assert (folder / gives).exists() == (moment == "before the result")
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


# ----------------------------------------------------------------------------------------------- if there is no room


def assert_told_that_the_disk_is_full(folder: Path) -> None:
    told = events(folder, "failed")
    assert [event["code"] for event in told] == ["disk_full"], log(folder)
    assert "goes on from its last checkpoint" in told[0]["message"]
    assert told[0]["message"] in log(folder)
    assert "Traceback" not in log(folder)


@pytest.mark.parametrize("name", some(LEARNING, "ppo-lora"))
def test_without_room_for_a_checkpoint_it_keeps_the_one_before_and_goes_on_when_there_is_some(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, without_room(SECOND, f"{SECOND}.partial")) == FAILED
    assert_told_that_the_disk_is_full(folder)
    if CASES[name].stage not in {"dpo", "kto", "grpo"}:  # theirs is written by torch, which does not say why it failed
        assert "the disk that holds" in log(folder)
    assert checkpoints(folder) == [EVERY]
    assert not list(folder.glob("*.partial"))
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(CASES, "corpus tokenizer sft sample"))
def test_without_room_for_the_outcome_it_goes_on_when_there_is_some(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, without_room(f"{CASES[name].gives}.partial")) == FAILED
    assert_told_that_the_disk_is_full(folder)
    assert not (folder / CASES[name].gives).exists()
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


@pytest.mark.parametrize("name", some(["sft", "ppo", "dpo", "sample"], "sample sft"))
def test_where_a_file_may_not_grow_further_nothing_torn_is_read_again(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, without_large_files(9_000)) == FAILED
    assert_told_that_the_disk_is_full(folder)
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name))


def test_replies_that_are_there_outlast_a_start_on_a_full_disk(models: dict[str, str], tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", "sample", models)
    assert in_fork(folder, at_work(5, signal.SIGTERM)) == STOPPED, log(folder)
    before = (folder / PROGRESS).read_text()
    assert len(before.splitlines()) > 1
    assert in_fork(folder, without_large_files(len(before) // 2)) == FAILED
    assert_told_that_the_disk_is_full(folder)
    assert (folder / PROGRESS).read_text() == before


# ----------------------------------------------------------------------------------------------------- at every moment


def count_up(folder: Path) -> int:
    """A stage that does nothing but what every stage does with its folder."""

    def save(step: int) -> None:
        with run.checkpoint(step) as aside:
            (aside / "sum").write_text(str(sum_))

    def load(checkpoint: Path) -> None:
        found.append(int((checkpoint / "sum").read_text()))

    found = [0]
    try:
        with open_run(folder) as run:
            if run.finished():
                return 0
            step = run.resume(load)
            sum_ = found[-1]
            while step < 5:
                run.stop_if_asked(step, save)
                step, sum_ = step + 1, sum_ + step
                run.metric(step, {"sum": sum_})
                if step % 2 == 0:
                    save(step)
            with run.writing("model") as aside:
                (aside / "sum").write_text(str(sum_))
            run.finish({"sum": sum_})
    except Stopped:
        return STOPPED
    return 0


OLD = "of a process that was killed before its result"


def test_killed_before_any_write_to_its_folder_it_loses_no_step_that_was_saved(tmp_path: Path) -> None:
    config = {"stage": "sft", "base": "none", "keep_checkpoints": 1}
    whole = run_folder(tmp_path / "whole", config)
    assert in_fork(whole, run=count_up) == 0
    for number in count(1):
        folder = run_folder(tmp_path / str(number) / "run", config)
        (folder / "model").mkdir()
        (folder / "model" / "sum").write_text(OLD)
        if in_fork(folder, at_write(number, signal.SIGKILL), run=count_up) == 0:
            break
        told = events(folder) if (folder / "events.jsonl").exists() else []
        saved = max((event["step"] for event in told if event["type"] == "checkpoint"), default=0)
        with open_run(folder):  # whatever moment it was, the old model is there or the new one
            assert (folder / "model" / "sum").read_text() in {OLD, "10"}
        assert count_up(folder) == 0
        again = steps_told(events(folder)[len(told) :])
        assert not again or again[0] > saved
        assert_the_same(folder, whole)
    assert number > 30


@pytest.mark.parametrize("name", some(["sft", "ppo", "dpo", "grpo-lora"], "sft"))
def test_a_checkpoint_that_is_damaged_is_passed_over(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = new_run(tmp_path / "run", name, models)
    assert in_fork(folder, at_work(DIES_AT, signal.SIGTERM)) == STOPPED, log(folder)
    largest = max((folder / f"checkpoint-{DIES_AT}").iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    assert in_fork(folder) == 0, log(folder)
    assert_the_same(folder, alone(name), unreadable=1)


# ----------------------------------------------------------------------------------------------- as a caller starts it


def test_a_second_process_is_refused_at_the_command_line_and_touches_nothing(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", "corpus", {})
    with open_run(folder):
        assert in_process(folder) == (REFUSED, f"{folder}: another process is working on this run\n")
    assert events(folder) == []
    assert in_process(folder) == (0, "")
    assert len(events(folder, "done")) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", some(LEARNING, ""))
def test_a_process_that_is_ended_at_some_moment_goes_on_in_another(
    name: str, how: signal.Signals, models: dict[str, str], tmp_path: Path
) -> None:
    end_at_some_moment(name, how, models, tmp_path, as_a_command)


def test_a_process_that_is_asked_to_stop_goes_on_in_another(models: dict[str, str], tmp_path: Path) -> None:
    end_at_some_moment("sft", signal.SIGTERM, models, tmp_path)


@pytest.mark.slow
def test_with_two_threads_it_goes_on_bit_for_bit_too(models: dict[str, str], tmp_path: Path) -> None:
    end_at_some_moment("ppo", signal.SIGKILL, models, tmp_path, as_a_command, threads=2)


def end_at_some_moment(
    name: str,
    how: signal.Signals,
    models: dict[str, str],
    tmp_path: Path,
    run: Callable[[Path], int] | None = None,
    **changes: Any,
) -> None:
    """Two runs of sixty steps, one of them ended from outside once it has told of a step past a checkpoint."""
    longer = {"steps": 60} if "steps" in CASES[name].settings else {"epochs": 100, "max_steps": 60}
    whole, ended = (new_run(tmp_path / part / "run", name, models, **longer, **changes) for part in ("a", "b"))
    child = fork(ended, run=run)
    while not any(step > EVERY for step in steps_told(told_so_far(ended))):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), log(ended)
        time.sleep(0.002)
    os.kill(child, how)
    assert status_of(child) == (STOPPED if how == signal.SIGTERM else KILLED), log(ended)
    assert in_fork(ended, run=run) == 0, log(ended)
    assert in_fork(whole, run=run) == 0, log(whole)
    assert_the_same(ended, whole)


def in_process(folder: Path) -> tuple[int, str]:
    with start_child(folder) as child:
        told, _ = child.communicate()
    return child.returncode, told


def told_so_far(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "ppo", "dpo", "grpo"])
def test_on_a_disk_that_fills_up_it_goes_on_after_the_disk_has_grown(
    name: str, models: dict[str, str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this user may not mount a file system")
    folder, disk = new_run(tmp_path / "run", name, models), tmp_path / "disk"
    disk.mkdir()
    checkpoint = alone(name) / f"checkpoint-{EVERY}"
    size = 100_000 + 8 * sum(path.stat().st_size for path in checkpoint.iterdir()) // 5
    stage = f"{sys.executable} -m training {CASES[name].stage} {disk}/run"
    script = (
        f"mount -t tmpfs -o size={size} tmpfs {disk} && cp -r {folder} {disk} && {stage}; echo ended $?; "
        f"ls {disk}/run; mount -o remount,size=100m {disk} && {stage} && cp -r {disk}/run/. {folder}"
    )
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert f"ended {FAILED}\n" in ran.stdout
    assert f"checkpoint-{EVERY}\n" in ran.stdout
    assert "goes on from its last checkpoint" in ran.stderr
    assert "internal error" not in ran.stderr
    assert_the_same(folder, alone(name))
