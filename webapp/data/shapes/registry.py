"""All shapes, in the order in which they are tried: the narrow ones first, the plain ones last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from webapp.data.shapes import (
    arena,
    argilla,
    dialogs,
    labelstudio,
    lists,
    openai,
    openwebui,
    own,
    pairs,
    prodigy,
    prompts,
    questions,
    trees,
    two_replies,
)
from webapp.data.shapes.model import Item, Part
from webapp.data.shapes.row import ANNOTATORS, SPLITS, Row
from webapp.data.shapes.turns import parse_json_text

MAX_CACHED: Final = 1000


@dataclass(frozen=True)
class Shape:
    """`needs` are columns without which it cannot fit; `one_of`, some of which must be there."""

    fits: Callable[[Row], bool]
    read: Callable[[Row], Iterator[Item | Part]]
    needs: frozenset[str] = frozenset()
    one_of: frozenset[str] = frozenset()
    ending: str = ""

    def may_fit(self, columns: frozenset[str]) -> bool:
        """`ending` is how the name of one of them must end."""
        if self.ending and not any(str(name).endswith(self.ending) for name in columns):
            return False
        return self.needs <= columns and (not self.one_of or not self.one_of.isdisjoint(columns))


def shape(
    fits: Callable[[Row], bool], read: Callable[[Row], Iterator[Any]], needs: str = "", one_of: Any = ()
) -> Shape:
    return Shape(fits, read, frozenset(needs.split()), frozenset(one_of))


SHAPES: Final = (
    shape(own.is_ranking, own.read_ranking, "messages replies groups"),
    shape(own.is_judgment, own.read_judgment, "messages reply good"),
    shape(own.is_sample, own.read_sample, "messages reply prompt_id finish"),
    shape(own.is_demonstration, own.read_demonstration, "id messages"),
    shape(own.is_exported_prompt, own.read_exported_prompt, "id messages"),
    shape(own.is_exported_document, own.read_exported_document, "id text"),
    shape(own.is_exported_chat, own.read_exported_chat, "messages"),
    shape(trees.is_tree, trees.read_tree, "prompt"),
    shape(trees.is_message, trees.read_message, "message_id message_tree_id text role"),
    shape(pairs.is_openai_pair, pairs.read_openai_pair, "input preferred_output non_preferred_output"),
    shape(arena.is_vote, arena.read_vote, "winner conversation_a conversation_b"),
    shape(arena.is_one_hot, arena.read_one_hot, "prompt response_a response_b winner_model_a"),
    shape(labelstudio.is_task, labelstudio.read_task, "data annotations"),
    shape(labelstudio.is_min, labelstudio.read_min, "annotation_id"),
    shape(argilla.is_record, argilla.read_record, "fields responses"),
    Shape(argilla.is_flat, argilla.read_flat, ending=argilla.ENDING),
    shape(argilla.is_old_flat, argilla.read_old_flat, one_of=prompts.ASKED),
    shape(prodigy.is_annotation, prodigy.read_annotation, "answer"),
    shape(openai.is_openai_chat, openai.read_openai_chat, "mapping"),
    shape(openwebui.is_feedback, openwebui.read_feedback, "snapshot data type"),
    shape(openwebui.is_openwebui_chat, openwebui.read_openwebui_chat, "chat"),
    *(
        Shape(known.fits, known.read, frozenset((*known.replies, *known.marks, *known.prompt)))
        for known in two_replies.KNOWN
    ),
    shape(two_replies.is_webgpt, two_replies.read_webgpt, "question answer_0 answer_1 score_0 score_1"),
    shape(two_replies.is_summaries, two_replies.read_summaries, "info summaries choice"),
    shape(two_replies.is_rated_summary, two_replies.read_rated_summary, "info summary"),
    shape(pairs.is_pair, pairs.read_pair, "chosen rejected"),
    shape(pairs.is_other_pair, pairs.read_other_pair, one_of=[better for better, _ in pairs.OTHER_SIDES]),
    shape(lists.is_ranked, lists.read_ranked, one_of=lists.REPLIES),
    shape(lists.is_output_list, lists.read_output_list, "output"),
    shape(two_replies.is_named_pair, two_replies.read_named_pair, one_of=[a for a, _ in two_replies.NAMED_PAIRS]),
    shape(dialogs.is_rewarded, dialogs.read_rewarded, "context generation reward"),
    shape(lists.is_judged, lists.read_judged, one_of=lists.VERDICTS),
    shape(lists.is_scored, lists.read_scored, one_of=lists.SCORES),
    shape(lists.is_unranked, lists.read_unranked, one_of=lists.REPLIES),
    shape(dialogs.is_segments, dialogs.read_segments, "segments"),
    shape(dialogs.is_instances, dialogs.read_instances, "instruction instances"),
    shape(dialogs.is_dialogue, dialogs.read_dialogue, one_of=("turns", "utterances")),
    shape(dialogs.is_talk, dialogs.read_talk, "content"),
    shape(dialogs.is_dialog, dialogs.read_dialog, one_of=prompts.CHATS),
    shape(questions.is_answered, questions.read_answered, one_of=questions.ANSWERS),
    shape(questions.is_turns, questions.read_turns, "turns"),
    shape(questions.is_stem, questions.read_stem, "question"),
    shape(questions.is_prompt, questions.read_prompt, one_of=prompts.ASKED),
    shape(questions.is_document, questions.read_document, "text"),
)
KNOWN_COLUMNS: Final = frozenset().union(*(found.needs | found.one_of for found in SHAPES))
BESIDE: Final = frozenset((  # what no shape needs, and many read
    *(name for names in (*two_replies.NAMED_PAIRS, *pairs.OTHER_SIDES, *pairs.SCORES) for name in names),
    *two_replies.WINNER_COLUMNS, *lists.REPLIES, *lists.REPLY, *lists.RANKS, *lists.SCORE_LISTS, *prompts.SYSTEMS,
    *prompts.CONTEXTS, *prompts.CHOICES, *pairs.STRENGTHS, *ANNOTATORS, *SPLITS, "history", "weight",
))  # fmt: skip
NAMES: Final = KNOWN_COLUMNS | BESIDE
CHAT_COLUMNS: Final = ("messages", "conversations", "conversation", "chosen", "rejected")
CHAT_TEXT: Final = re.compile(r'\[\s*\{\s*"(?:role|content|from|value)"\s*:')
RENAMED: dict[frozenset[Any], dict[Any, str]] = {}
CANDIDATES: dict[frozenset[str], tuple[Shape, ...]] = {}


def is_chat_text(value: Any) -> bool:
    return isinstance(value, str) and value[:1] == "[" and CHAT_TEXT.match(value) is not None


def usual_names(columns: frozenset[Any]) -> dict[Any, str]:
    """For columns that are named like ones that are read, but for capitals and spaces (Response A), those names."""
    renamed = RENAMED.get(columns)
    if renamed is None:
        renamed = {}
        for name in sorted(columns - NAMES, key=str):
            usual = re.sub(r"[\s_\-]+", "_", str(name).strip().lower())
            if usual in NAMES and usual not in columns and usual not in renamed.values():
                renamed[name] = usual
        if len(RENAMED) < MAX_CACHED:
            RENAMED[columns] = renamed
    return renamed


def row_of(record: dict[str, Any]) -> Row:
    """The record with its columns by the names that are read, and chats that stand as JSON in a text."""
    chats = {name: parse_json_text(value) for name in CHAT_COLUMNS if is_chat_text(value := record.get(name))}
    record = {**record, **chats} if chats else record
    renamed = usual_names(frozenset(record))
    if not renamed:
        return Row(record)
    named = {renamed.get(name, name): value for name, value in record.items()}
    return Row(named, {usual: str(name) for name, usual in renamed.items()})


def shape_of(row: Row) -> Shape | None:
    """The first shape that fits. Which ones may fit is remembered by the columns, for rows of a file have the same."""
    columns = frozenset(row.record)
    candidates = CANDIDATES.get(columns)
    if candidates is None:
        candidates = tuple(candidate for candidate in SHAPES if candidate.may_fit(columns))
        if len(CANDIDATES) < MAX_CACHED:
            CANDIDATES[columns] = candidates
    return next((candidate for candidate in candidates if candidate.fits(row)), None)
