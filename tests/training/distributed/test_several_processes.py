"""Two processes compute what one does.

Figures and weights are equal up to the rounding of sums in another order, which Adam enlarges where gradients are near
zero: WEIGHTS is absolute, for weights of size 1, FIGURES absolute below 1 and relative above.

Over 300 lines: every stage is run by the same two processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.training.toys import (
    PROJECT,
    events,
    prompts,
    run_folder,
    run_here,
    started_together,
    toy_policy,
    toy_tokenizer,
    turns,
)
from training.contract import SPECS, InputError, LoraWithDropoutSettings
from training.distributed.collectives import buckets, map_sharded
from training.distributed.launch import check_stage
from training.models.compute import Compute
from training.preferences.reward_model import reward_from_language_model, save_reward
from training.run.opening import open_run
from training.stages.grpo import main as improve_by_comparing

WEIGHTS = 5e-5
FIGURES = 2e-4
PATIENCE = 120  # seconds; processes that do not agree wait for each other
CLOCKS = {"tokens_per_second", "step_time", "time/rollout", "time/score", "time/update"}
DEMONSTRATIONS = [
    {"id": f"demonstration:{i}", "messages": turns(f"is the sky {i}", "yes " * (i % 5 + 1))} for i in range(12)
]
RANKINGS = [
    {
        "id": f"ranking:{i}", "messages": turns(f"the cat {i}"), "replies": ["yes", "no never", "of course the sky"],
        "groups": [[0], [1, 2]] if i % 3 else [[2], [0], [1]],
    }
    for i in range(20)
]  # fmt: skip
TEXTS = [{"id": f"text:{i}", "text": f"the cat sat on the mat {i} and the sky is blue"} for i in range(20)]
LOOP = {
    "batch_tokens": 128, "micro_tokens": 64, "learning_rate": 3e-3, "log_every": 1, "evaluate_every": 4, "epochs": 3,
}  # fmt: skip
STAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sft": ({"max_tokens": 64}, {"demonstrations": DEMONSTRATIONS, "heldout": DEMONSTRATIONS[:3]}),
    "pretrain": ({"context": 32, "layers": 2, "hidden": 32, "heads": 2}, {"corpus": TEXTS, "heldout": TEXTS[:3]}),
    "reward": ({"ties": "davidson", "min_rows": 5}, {"rankings": RANKINGS, "heldout": RANKINGS[:5]}),
    "ppo": (
        {
            "reward": "function:digits", "steps": 4, "prompts_per_step": 7, "epochs": 2, "minibatches": 2,
            "value_warmup": 1, "evaluate_every": 2, "ptx_weight": 0.1, "sampling": {"max_new_tokens": 8},
        },
        {"prompts": prompts(), "heldout": prompts(5), "corpus": TEXTS},
    ),
    "dpo": ({"min_rows": 5, "learning_rate": 1e-3}, {"rankings": RANKINGS, "heldout": RANKINGS[:5]}),
    "kto": ({"min_rows": 5, "learning_rate": 1e-3}, {"rankings": RANKINGS, "heldout": RANKINGS[:5]}),
    "grpo": (
        {
            "reward": "function:digits", "steps": 4, "prompts_per_step": 3, "samples_per_prompt": 4,
            "evaluate_every": 2, "micro_tokens": 32, "sampling": {"max_new_tokens": 8},
        },
        {"prompts": prompts(), "heldout": prompts(5)},
    ),
}  # fmt: skip
SOURCE = {"sft": "base", "reward": "base", "pretrain": "tokenizer"}  # of the others it is the policy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_policy(tmp_path_factory.mktemp("models") / "base")


def new_run(folder: Path, stage: str, base: Path, **changes: Any) -> Path:
    settings, data = STAGES[stage]
    loop = {name: value for name, value in LOOP.items() if name in SPECS[stage].settings.model_fields}
    source = SOURCE.get(stage, "policy")
    return run_folder(folder, {"stage": stage, source: str(base)} | loop | settings | changes, **data)


def run_together(folder: Path, **how: Any) -> None:
    with started_together(folder, **how) as child:
        told, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, told


def curves(folder: Path) -> dict[tuple[int, str], float]:
    """A step told twice, before and after a resume, counts once."""
    return {
        (event["step"], name): value
        for event in events(folder, "metric")
        for name, value in event["values"].items()
        if name not in CLOCKS
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: w for path in sorted((folder / "model").glob("*.safetensors")) for name, w in load_file(path).items()}


def assert_same(one: Path, two: Path) -> None:
    assert curves(two) == pytest.approx(curves(one), rel=FIGURES, abs=FIGURES)
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=WEIGHTS)
    assert [len(events(folder, "done")) for folder in (one, two)] == [1, 1]


@pytest.mark.fp32
def test_two_processes_fine_tune_as_one_does(tmp_path: Path, base: Path) -> None:
    one, two = new_run(tmp_path / "one", "sft", base), new_run(tmp_path / "two", "sft", base)
    before = load_file(base / "model.safetensors")
    run_together(two)
    result = run_here(one)
    assert_same(one, two)
    moved = max(float((weight - before[name]).abs().max()) for name, weight in weights(two).items())
    assert moved > 100 * WEIGHTS
    assert [event["reply"] for event in events(two, "sample")] == [event["reply"] for event in events(one, "sample")]
    assert result["device"] == "cpu, 1 threads"
    assert '"device": "cpu, 1 threads, 2 processes"' in (two / "result.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["parallel", "fsdp"])
@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("sft", {"epochs": 6, "batch_tokens": 64, "micro_tokens": 32}),  # steps of one row: a process without any
        ("sft", {"lora": {"rank": 4}}),
        ("pretrain", {}),
        ("reward", {}),
        ("reward", {"lora": {"rank": 4}}),
        ("ppo", {}),
        ("ppo", {"minibatches": 1, "sampling": {"max_new_tokens": 8, "temperature": 0.7}}),
        ("ppo", {"lora": {"rank": 4}}),
    ],
)
def test_two_processes_learn_what_one_does(
    tmp_path: Path, base: Path, stage: str, changes: dict[str, Any], config: str
) -> None:
    one, two = new_run(tmp_path / "one", stage, base, **changes), new_run(tmp_path / "two", stage, base, **changes)
    run_together(two, config=config)
    run_here(one)
    assert_same(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4}}, {"beta": 0, "shaping": "brevity=0.1"}])
def test_two_processes_improve_a_policy_by_comparing_replies_as_one_does(
    tmp_path: Path, base: Path, changes: dict[str, Any]
) -> None:
    one, two = new_run(tmp_path / "one", "grpo", base, **changes), new_run(tmp_path / "two", "grpo", base, **changes)
    run_together(two)
    run_here(one)
    assert_same(one, two)
    assert len((two / "output" / "frontier.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_what_trl_computes_runs_in_two_processes(tmp_path: Path, base: Path, stage: str) -> None:
    folder = new_run(tmp_path, stage, base, checkpoint_every=2)
    run_together(folder)
    losses = [value for (_, name), value in curves(folder).items() if name == "loss"]
    assert losses[-1] < losses[0]
    assert {path.name for path in folder.iterdir()} >= {"model", "result.json"}
    assert not list(folder.glob("*.partial"))
    assert len(events(folder, "done")) == 1


IN_PARTS = """
import sys, torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from training.distributed.collectives import all_gather, init_processes
from training.distributed.fsdp import full_tensor, remove_fsdp, reshard_like, shard, unsharded_weights

init_processes()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
kind = type(model.model.layers[0])
before = {name: p.detach().clone() for name, p in model.named_parameters()}
root = shard({"model": model}, torch.device("cpu"))
matrices = [p for p in model.parameters() if p.ndim == 2]
held = [p.to_local().numel() for p in matrices]
assert sum(held) < 0.6 * sum(p.numel() for p in before.values()), held
assert not any(isinstance(p, DTensor) for p in model.parameters() if p.ndim < 2)
for name, p in model.named_parameters():
    assert torch.equal(full_tensor(p), before[name])
    assert torch.equal(full_tensor(reshard_like(before[name], p)), before[name])
with unsharded_weights(root):
    assert all(type(p) is torch.nn.Parameter and torch.equal(p, before[name]) for name, p in model.named_parameters())
    model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4)
assert [p.to_local().numel() for p in model.parameters() if p.ndim == 2] == held
remove_fsdp(root)
assert all(type(p) is torch.nn.Parameter and torch.equal(p, before[name]) for name, p in model.named_parameters())
assert model.lm_head.weight is model.model.embed_tokens.weight
assert type(model.model.layers[0]) is kind and not model.model.layers[0]._forward_hooks
assert all(torch.equal(weight, before.get(name, weight)) for name, weight in model.state_dict().items())
assert all_gather(1) == [1, 1]
"""


@pytest.mark.slow
def test_weights_lie_in_parts_and_are_whole_when_they_are_wanted(tmp_path: Path, base: Path) -> None:
    run_in_two_processes(tmp_path, IN_PARTS, base)


def run_in_two_processes(tmp_path: Path, source: str, *models: Path, **environment: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    child = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", script, *models],
        cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT)} | environment, capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr


HELD_BYTES = """
import sys, torch
from transformers import AutoModelForCausalLM
from training.data.packing import text_batch
from training.distributed.collectives import init_processes
from training.distributed.fsdp import shard
from training.models.forward import Forward

init_processes()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], num_hidden_layers=4, ignore_mismatched_sizes=True)
layers = list(model.model.layers)
shapes = {tuple(p.shape) for p in layers[0].parameters() if p.ndim == 2}
numbers = sum(p.numel() for p in layers[0].parameters() if p.ndim == 2)
forward = Forward(model)
root = shard({"model": model}, torch.device("cpu"), torch.bfloat16)
batch = text_batch([list(range(60))] * 5, [[True] * 60] * 5, 0, torch.device("cpu"))
copies, within = {}, []

def note(x):
    if tuple(x.shape) in shapes or tuple(x.shape[::-1]) in shapes:
        copies[x.untyped_storage().data_ptr()] = x.untyped_storage()
    return x

for layer in layers:  # all layers' whole weights, at a moment inside one of them
    layer.mlp.register_forward_hook(lambda *_: within.append(sum(s.nbytes() for s in copies.values())))
with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), torch.autocast("cpu", torch.bfloat16):
    loss = root(lambda: forward.losses(batch).sum())
dtypes = {p.dtype for p in layers[0].parameters()}
assert len(within) == 4
assert max(within) <= 2 * numbers, (within, numbers)  # one layer, in bf16
assert sum(s.nbytes() for s in copies.values()) == 0, "nothing stays between forward and backward"
loss.backward()
assert all(p.grad.dtype == torch.float32 for p in model.parameters())
"""


@pytest.mark.slow
def test_in_bf16_no_process_holds_a_copy_of_all_layers(tmp_path: Path, base: Path) -> None:
    run_in_two_processes(tmp_path, HELD_BYTES, base)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "changes"),
    [("sft", {}), ("sft", {"lora": {"rank": 4}}), ("reward", {}), ("ppo", {}), ("ppo", {"lora": {"rank": 4}})],
)
def test_sharded_in_bf16_they_learn_what_one_does(
    tmp_path: Path, base: Path, stage: str, changes: dict[str, Any]
) -> None:
    changes = changes | {"precision": "bf16", "learning_rate": 1e-3, "activation_checkpointing": stage == "sft"}
    one, two = new_run(tmp_path / "one", stage, base, **changes), new_run(tmp_path / "two", stage, base, **changes)
    run_together(two, config="fsdp")
    run_here(one)
    name = "loss/policy_avg" if stage == "ppo" else "loss"
    losses = [[value for (_, key), value in sorted(curves(folder).items()) if key == name] for folder in (one, two)]
    assert losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02, abs=0.02)
    assert weights(two).keys() == weights(one).keys()
    assert {weight.dtype for weight in weights(two).values()} == {torch.float32}


FROZEN = """
import os, sys, torch
from torch.distributed.tensor import DTensor
from training.contract import PPOSettings, PromptRow, Turn
from training.distributed.collectives import init_processes
from training.distributed.launch import rank
from training.engine import Completion
from training.models.compute import Compute
from training.models.forward import Forward
from training.models.loading import load_causal
from training.preferences.reward_model import load_reward, score
from training.rl.heldout import ReplyKL
from training.rl.policies import load_policies
from training.rl.rollouts import EncodedPrompt, Sampled

policy, other, reward = sys.argv[1:]
init_processes()
compute = Compute(torch.device("cpu"), torch.bfloat16 if os.environ["TEST_DTYPE"] == "bf16" else torch.float32)

def held(module):
    return sum((p.to_local() if isinstance(p, DTensor) else p).nbytes for p in module.parameters())

def assert_close(ours, expected):
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=1e-4, atol=1e-4)

model, tokenizer = load_reward(reward, compute)
size = held(model)
talks = [[Turn(role="user", content="the cat " * i), Turn(role="assistant", content="yes")] for i in range(1, 8)]
with compute.autocast():
    expected = score(model, tokenizer, talks, micro_tokens=40)
    assert len(set(expected)) == len(expected)
    model.shard(compute)
    assert held(model) < 0.6 * size, (held(model), size)
    for count in (7, 1, 0):  # of the second process, which makes fewer passes
        mine = talks[: count if rank() else 7]
        assert_close(score(model, tokenizer, mine, micro_tokens=40), expected[: len(mine)])
assert held(model) < 0.6 * size, "nothing stays gathered"

replies = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14], [15]]
prompts = [EncodedPrompt(PromptRow(id=str(i), messages=[Turn(role="user", content="a")]), [3, 4, i]) for i in range(5)]
completions = [Completion(reply, [0.0] * len(reply), "", "stop") for reply in replies]
sampled = Sampled(prompts, completions, torch.zeros(5))
actor = Forward(load_causal(other, compute))
expected = ReplyKL(actor, Forward(load_causal(policy, compute)), compute, 0, 32)(sampled, 1.0)
assert min(map(abs, expected)) > 1e-3
os.environ["ACCELERATE_USE_FSDP"] = "true"
reference = load_policies(PPOSettings(policy=policy), compute).reference
size = held(load_causal(policy, compute))
assert held(reference.model) < 0.6 * size
for budget in (32, 8):  # with 8, the processes make three passes and two
    assert_close(ReplyKL(actor, reference.forward, compute, 0, budget)(sampled, 1.0), expected)
assert held(reference.model) < 0.6 * size
"""


def toy_reward(folder: Path, base: Path) -> Path:
    _, model = reward_from_language_model(
        str(base), Compute(torch.device("cpu"), torch.float32), LoraWithDropoutSettings()
    )
    save_reward(model, toy_tokenizer(), folder, {"max_tokens": 64, "temperature": 1.0})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_frozen_models_lie_in_parts_and_say_the_same(tmp_path: Path, base: Path, dtype: str) -> None:
    other, reward = toy_policy(tmp_path / "other", seed=1), toy_reward(tmp_path / "reward", base)
    run_in_two_processes(tmp_path, FROZEN, base, other, reward, TEST_DTYPE=dtype)


@pytest.mark.slow
@pytest.mark.fp32
def test_ppo_with_a_sharded_reward_model_learns_what_one_process_does(tmp_path: Path, base: Path) -> None:
    changes = {"reward": str(toy_reward(tmp_path / "reward", base)), "prompts_per_step": 3, "steps": 2}
    one, two = new_run(tmp_path / "one", "ppo", base, **changes), new_run(tmp_path / "two", "ppo", base, **changes)
    run_together(two, config="fsdp")
    run_here(one)
    assert_same(one, two)


# ------------------------------------------------------------------------------------------------- stopping and failing


def workers(launcher: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The processes of a run by their rank, as soon as all are there."""
    while True:
        assert launcher.poll() is None, launcher.communicate(timeout=PATIENCE)[0]
        found = {}
        for process in psutil.Process(launcher.pid).children(recursive=True):
            try:
                place, words = process.environ().get("RANK"), process.cmdline()
            except psutil.Error:  # it has just begun or ended
                continue
            if place is not None and "training" in words:
                found[int(place)] = process
        if len(found) == 2:
            return found
        time.sleep(0.05)


def when_it_learns(launcher: subprocess.Popen[str], folder: Path) -> None:
    while not list(folder.glob("checkpoint-*[0-9]")):
        assert launcher.poll() is None, launcher.communicate(timeout=PATIENCE)[0]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "changes", "config", "asked", "then"),
    [
        ("sft", {"epochs": 100}, "parallel", "launcher", 2),
        ("sft", {"epochs": 100}, "parallel", "one process", 1),
        ("sft", {"epochs": 100}, "fsdp", "one process", 2),
        ("ppo", {"steps": 60, "learning_rate": 1e-4}, "parallel", "one process", 2),
        ("grpo", {"steps": 60, "learning_rate": 1e-4}, "parallel", "one process", 2),
        ("grpo", {"steps": 60, "learning_rate": 1e-4}, "parallel", "launcher", 1),
    ],
)
def test_sigterm_stops_all_at_one_step_and_the_run_goes_on_from_there(
    tmp_path: Path, base: Path, stage: str, changes: dict[str, Any], config: str, asked: str, then: int
) -> None:
    changes = {"checkpoint_every": 3, "evaluate_every": 0, "log_every": 20, "learning_rate": 1e-3, **changes}
    one, two = new_run(tmp_path / "one", stage, base, **changes), new_run(tmp_path / "two", stage, base, **changes)
    with started_together(two, config=config) as child:
        process = workers(child)[1]
        when_it_learns(child, two)
        (child if asked == "launcher" else process).send_signal(signal.SIGTERM)
        assert child.wait(timeout=PATIENCE) != 0
    assert not (two / "result.json").exists()
    assert events(two)[-1]["type"] == "checkpoint"
    assert not list(two.glob("*.partial"))
    if then == 1:
        run_here(two)
    else:
        run_together(two, config=config)
    run_here(one)
    assert_same(one, two)


FAILING = """
import os
from training.preferences.reward_functions import reward_function

@reward_function("fails-in-one")
def fails_in_one(messages, reply):
    if os.environ.get("RANK") == "1":
        raise RuntimeError("the judge has gone home")
    return 0.0
"""


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_and_is_told(tmp_path: Path, base: Path) -> None:
    folder = new_run(tmp_path / "run", "ppo", base, reward="function:fails-in-one")
    (tmp_path / "failing.py").write_text(FAILING)
    with started_together(folder, TUTELAGE_REWARDS="failing", PYTHONPATH=str(tmp_path)) as child:
        told, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode != 0
    (failed,) = events(folder, "failed")
    assert failed["message"].startswith("reward fails-in-one: RuntimeError: the judge has gone home (failing.py:8)")
    assert "the judge has gone home" in told


@pytest.mark.slow
def test_an_error_that_all_find_is_told_once(tmp_path: Path, base: Path) -> None:
    folder = new_run(tmp_path, "sft", base, min_rows=1000)
    with started_together(folder) as child:
        child.communicate(timeout=PATIENCE)
        assert child.returncode != 0
    (failed,) = events(folder, "failed")
    assert failed["message"] == "sft: 12 demonstrations in the snapshot, at least 1000 are needed"


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_with_a_sentence(tmp_path: Path, base: Path) -> None:
    folder = new_run(tmp_path, "sft", base, epochs=1000, checkpoint_every=3, evaluate_every=0)
    with started_together(folder) as child:
        process = workers(child)[1]
        when_it_learns(child, folder)
        process.kill()
        child.communicate(timeout=PATIENCE)
        assert child.returncode != 0
    (failed,) = events(folder, "failed")
    assert failed["code"] == "process_lost"
    assert "another process of this run ended" in failed["message"]


@pytest.mark.parametrize(
    ("stage", "sharded"),
    [("evaluate", "false"), ("sample", "false"), ("corpus", "false"), ("dpo", "true"), ("grpo", "true")],
)
def test_what_several_processes_cannot_compute_is_refused(
    monkeypatch: pytest.MonkeyPatch, stage: str, sharded: str
) -> None:
    check_stage(stage)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", sharded)
    with pytest.raises(InputError, match=stage):
        check_stage(stage)


def test_replies_that_cannot_be_shared_evenly_are_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(new_run(tmp_path, "grpo", base)) as run, monkeypatch.context() as five:
        five.setenv("WORLD_SIZE", "5")
        with pytest.raises(InputError, match="a step's 12 replies cannot be shared evenly by 5 processes"):
            improve_by_comparing(run)


# ---------------------------------------------------------------------------------------------------------- small parts


def test_one_process_computes_everything() -> None:
    assert map_sharded([3, 1, 2], lambda part: [x + 1 for x in part]) == [4, 2, 3]


def test_tensors_are_added_up_in_bounded_buckets_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.distributed.collectives.BUCKET", 10)
    sizes = [4, 6, 1, 30, 2]
    tensors = [torch.zeros(size) for size in sizes] + [torch.zeros(2, dtype=torch.bfloat16)]
    assert [[len(tensor) for tensor in bucket] for bucket in buckets(tensors)] == [[4, 6], [1], [30], [2], [2]]
