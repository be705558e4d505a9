"""TRL's trainers take our exports as they are: two steps of each on a model of some ten thousand parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from annotations.models import Demonstration, Task
from tests import factories
from webapp.accounts.models import Project, User
from webapp.data.exports import Selection, export_lines, format_of

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
COMMON: dict[str, Any] = {
    "max_steps": 2, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "bf16": False,
    "activation_checkpointing": False, "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture
def labeled(project: Project, ann: User) -> Project:
    """Four labels of each kind, one of them with a conversation before it."""
    for number in range(4):
        before = [{"role": "user", "content": "yes"}, {"role": "assistant", "content": "no"}] if number == 3 else []
        messages = [*before, {"role": "user", "content": f"the cat {number}"}]
        prompt = factories.prompt(project, messages=messages)
        factories.demonstration(project, ann, "yes of course", prompt=prompt, state=Demonstration.State.ACCEPTED)
        factories.judgment(project, ann, "no never", prompt=prompt, good=number % 2 == 0)
        task = factories.task(project, Task.Kind.RANK, replies=3, prompt=prompt)
        factories.ranking(project, ann, task=task, strength=2.0 if number == 3 else None)
    return project


@pytest.fixture
def export(labeled: Project, tmp_path: Path) -> Any:
    def write(kind: str, name: str) -> Dataset:
        path = tmp_path / f"{kind}-{name}.jsonl"
        path.write_text("".join(export_lines(format_of(kind, name), labeled, Selection())))
        return load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))

    return write


@pytest.fixture
def policy(tmp_path: Path) -> str:
    from tests.training.toys import toy_policy

    return str(toy_policy(tmp_path / "policy"))


def learned(trainer: Any) -> None:
    """Two steps were taken, and they moved the parameters."""
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 2
    assert any(not weight.equal(before[name]) for name, weight in trainer.model.named_parameters())


@pytest.mark.parametrize("name", ["tutelage", "sft", "sft-last-reply"])
def test_sft_trainer_takes_demonstrations(name: str, export: Any, policy: str, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(str(tmp_path / "out"), learning_rate=0.1, max_length=64, **COMMON)
    learned(SFTTrainer(policy, args=args, train_dataset=export("demonstrations", name)))


def test_dpo_trainer_takes_pairs(export: Any, policy: str, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(str(tmp_path / "out"), learning_rate=0.1, max_length=64, **COMMON)
    learned(DPOTrainer(policy, args=args, train_dataset=export("rankings", "preference")))


def test_reward_trainer_takes_pairs(export: Any, policy: str, tmp_path: Path) -> None:
    from trl import RewardConfig, RewardTrainer

    args = RewardConfig(str(tmp_path / "out"), learning_rate=0.1, max_length=64, **COMMON)
    learned(RewardTrainer(policy, args=args, train_dataset=export("rankings", "preference")))


@pytest.mark.parametrize("kind", ["judgments", "rankings"])
def test_kto_trainer_takes_good_and_bad_replies(kind: str, export: Any, policy: str, tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    args = KTOConfig(str(tmp_path / "out"), learning_rate=0.1, max_length=64, **COMMON)
    learned(KTOTrainer(policy, args=args, train_dataset=export(kind, "kto")))


def test_grpo_trainer_takes_prompts(export: Any, policy: str, tmp_path: Path) -> None:
    from trl import GRPOConfig, GRPOTrainer

    def length(completions: list[Any], **_: Any) -> list[float]:
        return [float(len(reply[0]["content"])) for reply in completions]

    args = GRPOConfig(
        str(tmp_path / "out"), learning_rate=0.1, max_completion_length=8, num_generations=2, temperature=2.0, **COMMON
    )
    learned(GRPOTrainer(policy, reward_funcs=length, args=args, train_dataset=export("prompts", "prompt-only")))
