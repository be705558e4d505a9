"""The formats of TRL's trainers, in their conversational form, one trainer each.

https://huggingface.co/docs/trl/dataset_formats. What they have no place for is left out: who said it, when and how
surely. Rows of weight 0 are not to be learned from, so they do not go out either.
"""

from __future__ import annotations

from collections.abc import Iterator

from webapp.accounts.models import Project
from webapp.data.exports.rows import (
    Row,
    exported_demonstrations,
    exported_judgments,
    exported_prompts,
    exported_rankings,
)
from webapp.data.exports.selection import Selection


def sft_rows(project: Project, chosen: Selection) -> Iterator[Row]:
    """Whole conversations, for SFTTrainer. It learns every assistant turn, so conversations with turns that are context
    only go out by `sft_last_reply` alone."""
    for row in exported_demonstrations(project, chosen):
        if row["weight"] and all(turn["weight"] for turn in row["messages"]):
            yield {"id": row["id"], "split": row["split"], "messages": [plain_turn(turn) for turn in row["messages"]]}


def sft_last_reply(project: Project, chosen: Selection) -> Iterator[Row]:
    """Prompt and completion, for SFTTrainer: it learns the last reply only."""
    for row in exported_demonstrations(project, chosen):
        if row["weight"]:
            *prompt, reply = [plain_turn(turn) for turn in row["messages"]]
            yield {"id": row["id"], "split": row["split"], "prompt": prompt, "completion": [reply]}


def preference(project: Project, chosen: Selection) -> Iterator[Row]:
    """Pairs, for DPOTrainer and RewardTrainer: each reply with each reply that is below it. Ties make no pair."""
    for row in exported_rankings(project, chosen):
        for better, worse in pairs(row["groups"]) if row["weight"] else ():
            yield {
                "id": f"{row['id']}#{better}>{worse}",
                "split": row["split"],
                "prompt": row["messages"],
                "chosen": [assistant(row["replies"][better])],
                "rejected": [assistant(row["replies"][worse])],
            }


def pairs(groups: list[list[int]]) -> Iterator[tuple[int, int]]:
    """(better, worse) of a ranking whose groups go from best to worst."""
    for rank, group in enumerate(groups):
        for lower in groups[rank + 1 :]:
            yield from ((better, worse) for better in group for worse in lower)


def kto_of_judgments(project: Project, chosen: Selection) -> Iterator[Row]:
    """Replies with a label, for KTOTrainer."""
    for row in exported_judgments(project, chosen):
        if row["weight"]:
            yield judged(row["id"], row, row["reply"], row["good"])


def kto_of_rankings(project: Project, chosen: Selection) -> Iterator[Row]:
    """The replies above the middle of their ranking as good and those below it as bad, as our own KTO stage reads
    rankings; those in the middle, and rankings that tie everything, say neither."""
    for row in exported_rankings(project, chosen):
        groups = row["groups"] if row["weight"] else []
        for rank, group in enumerate(groups):
            standing = 2 * rank - (len(groups) - 1)
            for number in group if standing else ():
                yield judged(f"{row['id']}#{number}", row, row["replies"][number], standing < 0)


def judged(name: str, row: Row, reply: str, good: bool) -> Row:
    return {
        "id": name,
        "split": row["split"],
        "prompt": row["messages"],
        "completion": [assistant(reply)],
        "label": good,
    }


def prompt_only(project: Project, chosen: Selection) -> Iterator[Row]:
    """Prompts, for GRPOTrainer and others that sample replies. Its reward functions get the other columns."""
    for row in exported_prompts(project, chosen):
        reference = row["reference"] or row["reference_json"]
        yield {
            "id": row["id"],
            "split": row["split"],
            "prompt": row["messages"],
            "reference": reference,
            "data": row["data"],
        }


def plain_turn(turn: Row) -> Row:
    return {"role": turn["role"], "content": turn["content"]}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}
