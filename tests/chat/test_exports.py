"""A person's own conversations, taken away."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from datasets import load_dataset

from tests import factories
from tests.chat.conftest import answer
from webapp.accounts.models import Project, User
from webapp.chat.exports import conversation_row, conversation_rows
from webapp.chat.models import Conversation, Feedback, Message
from webapp.chat.services import conversations


def test_every_reply_says_what_was_thought_of_it(talk: Conversation, answered: Message, tess: User) -> None:
    Feedback.objects.create(
        message=answered, user=tess, thumb=-1, reasons=["wrong", "rude"], comment="No.", better_answer="A countess."
    )
    question, reply = conversation_row(talk)["messages"]
    assert (reply["thumb"], reply["reasons"], reply["comment"]) == (-1, "wrong,rude", "No.")
    assert (reply["better_answer"], reply["parent"]) == ("A countess.", question["id"])
    assert (question["thumb"], question["better_answer"], question["parent"]) == (0, "", 0)


def test_a_pick_names_the_reply_that_was_worse(talk: Conversation, answered: Message, tess: User) -> None:
    conversations.regenerate(message=answered, token=uuid.uuid4())
    answer(talk, "The first programmer.")
    better = talk.messages.get(text="The first programmer.")
    Feedback.objects.create(message=better, user=tess, preferred_over=answered)
    rows = {row["id"]: row for row in conversation_row(talk)["messages"]}
    assert rows[better.pk]["preferred_over"] == answered.pk
    assert rows[answered.pk]["preferred_over"] == 0


def test_other_peoples_chats_stay_out(talk: Conversation, deployed: Project, ann: User) -> None:
    factories.conversation(ann, deployed, title="Private")
    assert [row["title"] for row in conversation_rows(talk.user, deployed)] == ["Who was Ada Lovelace?"]


def test_chats_load_as_a_dataset_whatever_was_said_first(
    talk: Conversation, answered: Message, tess: User, tmp_path: Path
) -> None:
    plain = json.dumps(conversation_row(talk))
    Feedback.objects.create(message=answered, user=tess, thumb=1, reasons=["correct"], better_answer="A countess.")
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{plain}\n" * (11_000_000 // len(plain)) + json.dumps(conversation_row(talk)) + "\n")
    found = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert found[-1]["messages"][1]["reasons"] == "correct"
    assert "Json" not in str(found.features)
