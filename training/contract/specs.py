"""What each stage is, declared once: its settings, its files, its models and how it may compute.

A stage is its module in `training/stages/`, its settings and its entry in SPECS. The launch form, the checks before a
run starts, what the worker puts into the run folder and the command line are all derived from the entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from training.contract.policy_stages import DPOSettings, GRPOSettings, KTOSettings, PPOSettings
from training.contract.rows import DemonstrationRow, JudgmentRow, PromptRow, RankingRow, Row, TextRow
from training.contract.settings import LoopSettings, Settings
from training.contract.text_stages import (
    CorpusSettings,
    PretrainSettings,
    RewardSettings,
    SFTSettings,
    TokenizerSettings,
)
from training.contract.using_stages import AddSettings, EvaluateSettings, ExportSettings, SampleSettings, ServeSettings


class Need(Enum):
    """Whether a stage takes an input."""

    NO = "does not take it"
    OPTIONAL = "may have it"
    REQUIRED = "cannot start without it"


@dataclass(frozen=True)
class DataFile:
    """A file that a stage reads: data/<name>.jsonl. It comes from a snapshot of the kind `snapshot`, or from
    output/<corpus_output> of a corpus run."""

    row: type[Row]
    required: bool
    snapshot: str = ""
    split: Literal["train", "heldout", "all"] = "train"
    corpus_output: str = ""


SNAPSHOT_ROWS: Final[dict[str, type[Row]]] = {
    "documents": TextRow,
    "prompts": PromptRow,
    "demonstrations": DemonstrationRow,
    "rankings": RankingRow,
    "judgments": JudgmentRow,
}


def snapshot_rows(kind: str, *, required: bool = True, split: Literal["train", "all"] = "train") -> DataFile:
    """The rows of a snapshot that a stage learns from or works on."""
    return DataFile(SNAPSHOT_ROWS[kind], required, snapshot=kind, split=split)


def heldout_rows(kind: str) -> DataFile:
    """The rows of a snapshot that were held out of training, to measure on."""
    return DataFile(SNAPSHOT_ROWS[kind], required=False, snapshot=kind, split="heldout")


def corpus_text(output: str, *, required: bool = True) -> DataFile:
    """A file that a corpus run wrote: cleaned text."""
    return DataFile(TextRow, required, corpus_output=output)


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    settings: type[Settings]
    about: str
    """One sentence for the person who chooses a stage."""
    data: Mapping[str, DataFile] = field(default_factory=dict)
    """By name of the file. The rows of a snapshot are in the file of its kind's name."""
    any_snapshot: bool = False
    """Whether one snapshot of any of the kinds is enough to learn from."""
    title: str = ""
    """The heading of its launch page; empty: Launch and its name."""
    base: Need = Need.NO
    names_base: bool = False
    """Whether its base is from elsewhere, and no model of the project."""
    exports: bool = False
    """Whether it writes a model of any kind for others, which is kept until somebody deletes it."""
    tokenizer: Need = Need.NO
    reward: Need = Need.NO
    baseline: Need = Need.NO
    needs_scores: bool = False
    """Whether it cannot start without a reward model or a computed reward."""
    usual_bases: tuple[str, ...] = ()
    """The stages whose newest model the launch form proposes as the base, the most likely first."""
    processes: Literal["one", "several", "sharded"] = "one"
    """Whether several processes can compute it together, and whether its model can be sharded among them (FSDP)."""
    generates: bool = False
    """Whether most of its work is to generate replies."""
    improves_policy: bool = False
    """Whether it makes a policy better by what people prefer."""
    launched: bool = True
    """Whether people launch it; what serves models is started by the operator or the supervisor."""

    @property
    def name(self) -> str:
        return str(self.settings.model_fields["stage"].default)

    @property
    def learns(self) -> bool:
        """Whether it takes gradient steps, and so has curves."""
        return issubclass(self.settings, LoopSettings)

    @property
    def snapshots(self) -> dict[str, Need]:
        """The kinds of snapshots that it takes."""
        needs = {file.snapshot: Need.OPTIONAL for file in self.data.values() if file.snapshot}
        return needs | {file.snapshot: Need.REQUIRED for file in self.data.values() if file.snapshot and file.required}

    @property
    def corpus_run(self) -> Need:
        required = [file.required for file in self.data.values() if file.corpus_output]
        return (Need.REQUIRED if any(required) else Need.OPTIONAL) if required else Need.NO

    def learns_from(self, kind: str) -> bool:
        """Whether a run takes rows of this kind unless a person leaves them out."""
        return self.any_snapshot or self.snapshots[kind] is Need.REQUIRED


SPECS: Final[dict[str, StageSpec]] = {
    spec.name: spec
    for spec in (
        StageSpec(
            settings=CorpusSettings,
            about="Clean collected text, drop copies and private data.",
            data={"documents": snapshot_rows("documents")},
        ),
        StageSpec(
            settings=TokenizerSettings,
            about="Learn how to cut text into tokens.",
            data={"corpus": corpus_text("corpus.jsonl")},
        ),
        StageSpec(
            settings=PretrainSettings,
            about="Learn language from cleaned text.",
            data={"corpus": corpus_text("corpus.jsonl"), "heldout": corpus_text("heldout.jsonl", required=False)},
            base=Need.OPTIONAL,
            tokenizer=Need.OPTIONAL,
            processes="sharded",
        ),
        StageSpec(
            settings=SFTSettings,
            about="Learn to answer from demonstrations.",
            data={"demonstrations": snapshot_rows("demonstrations"), "heldout": heldout_rows("demonstrations")},
            base=Need.REQUIRED,
            usual_bases=("pretrain",),
            processes="sharded",
        ),
        StageSpec(
            settings=RewardSettings,
            about="Learn from rankings what people prefer.",
            data={"rankings": snapshot_rows("rankings"), "heldout": heldout_rows("rankings")},
            base=Need.REQUIRED,
            usual_bases=("sft",),
            processes="sharded",
        ),
        StageSpec(
            settings=PPOSettings,
            about="Improve a model by what a reward model prefers, or by rewards that are computed.",
            data={
                "prompts": snapshot_rows("prompts"),
                "heldout": heldout_rows("prompts"),
                "corpus": corpus_text("corpus.jsonl", required=False),
            },
            base=Need.REQUIRED,
            reward=Need.OPTIONAL,
            needs_scores=True,
            usual_bases=("sft", "ppo", "grpo", "dpo", "kto"),
            processes="sharded",
            generates=True,
            improves_policy=True,
        ),
        StageSpec(
            settings=DPOSettings,
            about="Improve a model from rankings, without a reward model.",
            data={"rankings": snapshot_rows("rankings"), "heldout": heldout_rows("rankings")},
            base=Need.REQUIRED,
            usual_bases=("sft",),
            processes="several",
            improves_policy=True,
        ),
        StageSpec(
            settings=KTOSettings,
            about="Improve a model from what people found good and bad.",
            data={
                "rankings": snapshot_rows("rankings", required=False),
                "judgments": snapshot_rows("judgments", required=False),
                "heldout": heldout_rows("rankings"),
                "heldout_judgments": heldout_rows("judgments"),
            },
            any_snapshot=True,
            base=Need.REQUIRED,
            usual_bases=("sft",),
            processes="several",
            improves_policy=True,
        ),
        StageSpec(
            settings=GRPOSettings,
            about="Improve a model by comparing its replies to one prompt, scored by a reward model or by computed rewards.",
            data={"prompts": snapshot_rows("prompts"), "heldout": heldout_rows("prompts")},
            base=Need.REQUIRED,
            reward=Need.OPTIONAL,
            needs_scores=True,
            usual_bases=("sft", "grpo", "ppo", "dpo", "kto"),
            processes="several",
            generates=True,
            improves_policy=True,
        ),
        StageSpec(
            settings=EvaluateSettings,
            about="Measure models on what was held out of training.",
            data={
                "text": corpus_text("heldout.jsonl", required=False),
                "demonstrations": heldout_rows("demonstrations"),
                "rankings": heldout_rows("rankings"),
                "prompts": heldout_rows("prompts"),
            },
            base=Need.OPTIONAL,
            reward=Need.OPTIONAL,
            baseline=Need.OPTIONAL,
            usual_bases=("ppo", "grpo", "dpo", "kto", "sft"),
            generates=True,
        ),
        StageSpec(
            settings=SampleSettings,
            about="Let a model reply to prompts, so that people rank its replies.",
            data={"prompts": snapshot_rows("prompts", split="all")},
            base=Need.REQUIRED,
            reward=Need.OPTIONAL,
            usual_bases=("ppo", "grpo", "dpo", "kto", "sft"),
            generates=True,
        ),
        StageSpec(
            settings=AddSettings,
            title="Add a model",
            about="Bring a model from the Hugging Face hub or a folder. Then you can chat with it, sample from it and "
            "train it.",
            base=Need.REQUIRED,
            names_base=True,
        ),
        StageSpec(
            settings=ExportSettings,
            title="Export a model",
            about="Take a model away as files that other programs run. They are checked before you get them.",
            base=Need.REQUIRED,
            exports=True,
        ),
        StageSpec(settings=ServeSettings, about="Answer over HTTP until it is stopped.", launched=False),
    )
}
STAGES: Final = tuple(SPECS)
