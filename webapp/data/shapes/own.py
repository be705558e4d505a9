"""Our own exports, which come back whole.

{id: "ranking:1", messages, replies, groups, strength, ratings, flags, reason, annotator, weight, split, state}
{id: "judgment:1", messages, reply, good, annotator, weight, split, state}
{id: "demonstration:1", messages, weight, split, state}         a turn of weight 0 is context only
{id: "prompt:1", messages, split, state}
{id: "document:1", text, format, corpus, license}
{id, title, project, messages: [{id, parent, role, content, state, thumb, better_answer, preferred_over}]}  our chat
{id: "prompt:1#0", prompt_id, messages, reply, tokens, finish, logprob}            a sample of a model

A strength of -1 and a rating of 0 were not given; flags stand as one text a reply, parted by commas. Rows as training
reads them (no state, masked_turns by index) are read, too. Sources: webapp/data/exports/rows.py,
training/contract/rows.py, webapp/chat/exports.py; before, a chat's messages had their thumb within `feedback`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from webapp.data.shapes.checks import BROKEN, demonstration, is_blank_text, is_broken, judgment, prompt, ranking
from webapp.data.shapes.model import DocumentItem, Item, LeftOut, Messages
from webapp.data.shapes.row import Row, Skip, annotator_field, binary, is_blank, label_fields, number, split_field
from webapp.data.shapes.turns import parse_chat

COUNTED: Final = frozenset({"", "live", "accepted"})
ORIGINS: Final = (
    "id", "source", "source_ref", "split", "heldout", "held_out", "created_at", "state", "guidelines", "active_seconds",
    "models", "review_verdict", "review_comment", "good", "withdrawn",
)  # fmt: skip
STRONGEST: Final = 3.0
NOT_GIVEN: Final = -1.0
RATINGS: Final = range(1, 8)
FLAGS: Final = frozenset({"wrong", "ignores", "off_topic", "unsafe", "rude", "long", "garbled", "private"})
UNJUDGED: Final = "a model's reply that nobody has judged"


def is_ranking(row: Row) -> bool:
    return row.is_list("messages") and row.is_list("replies") and row.is_list("groups")


def read_ranking(row: Row) -> Iterator[Item]:
    use_own(row)
    refuse_withdrawn(row, "ranking")
    messages = parse_chat(row.get("messages"), row, "messages").messages
    replies, groups = row.get("replies"), row.get("groups")
    ranks = ranks_of(groups, replies)
    if not all(isinstance(reply, str) for reply in replies):
        raise Skip("“replies” is not a list of texts")
    item = ranking(messages, replies, ranks, **own_fields(row))
    if len(item.replies) < len(replies):
        raise Skip("one of the replies is empty")
    yield item


def ranks_of(groups: Any, replies: list[Any]) -> list[float]:
    """For each reply the place of its group. Raises Skip unless each reply is in one group."""
    places: dict[int, float] = {}
    for rank, group in enumerate(groups):
        for index in group if isinstance(group, list) else [None]:
            if not isinstance(index, int) or isinstance(index, bool) or index in places:
                raise Skip("“groups” does not name each reply once")
            places[index] = float(rank)
    if sorted(places) != list(range(len(replies))):
        raise Skip("“groups” does not name each reply once")
    return [places[index] for index in range(len(replies))]


def own_fields(row: Row) -> dict[str, Any]:
    fields = own_label_fields(row)
    strength = number(row.get("strength"))
    if strength is not None and strength != NOT_GIVEN:
        if not 0 <= strength <= STRONGEST:
            raise Skip("“strength” is not a number from 0 to 3")
        fields["strength"] = strength
    fields["ratings"] = {i: int(rating) for i, rating in by_reply(row, "ratings") if is_rating(rating)}
    fields["flags"] = {i: flags for i, value in by_reply(row, "flags") if (flags := flags_of(value))}
    if row.is_text("reason"):
        fields["reason"] = row.get("reason")
    return fields


def own_label_fields(row: Row) -> dict[str, Any]:
    """As for any label, but a weight of 0 is kept: it was set here."""
    if number(row.peek("weight")) == 0:
        row.use("weight")
        return {"weight": 0.0, **annotator_field(row), **split_field(row), **time_fields(row)}
    return {**label_fields(row), **time_fields(row)}


def time_fields(row: Row) -> dict[str, Any]:
    """When the label was given, and how long somebody worked on it."""
    fields: dict[str, Any] = {}
    created_at = row.peek("created_at")
    if isinstance(created_at, str) and (time := past_time(created_at)) is not None:
        fields["created_at"] = time
    seconds = number(row.peek("active_seconds"))
    if seconds is not None and seconds > 0:
        fields["active_seconds"] = seconds
    return fields


def past_time(text: str) -> str | None:
    """The time as ISO text with its zone, where it is one that is not in the future."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return text if time.tzinfo is not None and time <= datetime.now(UTC) else None


def is_rating(value: Any) -> bool:
    return number(value) in RATINGS


def flags_of(value: Any) -> list[str]:
    flags = value.split(",") if isinstance(value, str) else value
    return [flag for flag in flags if isinstance(flag, str) and flag in FLAGS] if isinstance(flags, list) else []


def by_reply(row: Row, name: str) -> Iterator[tuple[int, Any]]:
    """What a column says of each reply: a list in the order of the replies, or an object by index."""
    value = row.get(name)
    count = len(row.peek("replies"))
    if isinstance(value, list) and len(value) == count:
        yield from ((i, element) for i, element in enumerate(value) if element is not None)
    elif isinstance(value, dict):
        for key, element in value.items():
            if str(key).isdecimal() and len(str(key)) < 3 and int(key) < count and element is not None:
                yield int(key), element
    elif not is_blank(value):
        row.nested.add(name)


def is_judgment(row: Row) -> bool:
    return row.is_list("messages") and row.is_text("reply") and binary(row.peek("good")) is not None


def read_judgment(row: Row) -> Iterator[Item]:
    use_own(row)
    refuse_withdrawn(row, "judgment")
    messages = parse_chat(row.get("messages"), row, "messages").messages
    yield judgment(messages, row.get("reply"), binary(row.peek("good")) is True, **own_label_fields(row))


def is_sample(row: Row) -> bool:
    return row.is_list("messages") and row.is_text("reply") and row.has("prompt_id", "finish")


def read_sample(row: Row) -> Iterator[Item]:
    """A sample's prompt; nobody has said yet what its reply is worth."""
    use_own(row)
    row.use("prompt_id", "reply", "tokens", "finish", "logprob", "reward")
    yield prompt(parse_chat(row.get("messages"), row, "messages").messages, **split_field(row))
    yield LeftOut(UNJUDGED)


def is_demonstration(row: Row) -> bool:
    return is_own(row, "demonstration:") and row.is_list("messages")


def is_own(row: Row, start: str) -> bool:
    name = row.peek("id")
    return isinstance(name, str) and name.startswith(start)


def read_demonstration(row: Row) -> Iterator[Item]:
    use_own(row)
    refuse_withdrawn(row, "demonstration")
    chat = parse_chat(row.get("messages"), row, "messages")
    masked = row.get("masked_turns") or chat.masked
    if not isinstance(masked, list) or not all(
        isinstance(i, int) and 0 <= i < len(chat.messages) and chat.messages[i]["role"] == "assistant" for i in masked
    ):
        raise Skip("“masked_turns” does not name turns of the assistant")
    if not chat.messages or chat.messages[-1]["role"] != "assistant" or len(chat.messages) - 1 in masked:
        raise Skip("a demonstration must end with the reply that is learned")
    *before, reply_turn = chat.messages
    yield demonstration(before, reply_turn["content"], masked_turns=sorted(set(masked)), **own_label_fields(row))


def is_exported_prompt(row: Row) -> bool:
    return is_own(row, "prompt:") and row.is_list("messages")


def read_exported_prompt(row: Row) -> Iterator[Item]:
    use_own(row)
    refuse_withdrawn(row, "prompt")
    yield prompt(parse_chat(row.get("messages"), row, "messages").messages, **split_field(row))


def is_exported_document(row: Row) -> bool:
    return is_own(row, "document:") and row.is_text("text")


def read_exported_document(row: Row) -> Iterator[Item]:
    use_own(row)
    text, corpus, licence = row.get("text"), row.get("corpus"), row.get("license")
    if is_blank_text(text):
        raise Skip("empty text")
    if is_broken(text):
        raise Skip(BROKEN)
    yield DocumentItem(
        text,
        "html" if row.get("format") == "html" else "text",
        str(corpus or "")[:100].strip(),
        str(licence or "")[:200].strip(),
    )


def use_own(row: Row) -> None:
    """Columns that say where a row came from; they need no word that they were not used."""
    row.use(*ORIGINS)


def refuse_withdrawn(row: Row, noun: str) -> None:
    """What did not count where it comes from does not count here."""
    state = str(row.peek("state") or "").lower()
    if row.peek("withdrawn") is True:
        state = "withdrawn"
    if state not in COUNTED:
        raise Skip(f"a {noun} that is {state[:40]}")


# --------------------------------------------------------------------------------------------------------------- chats


def is_exported_chat(row: Row) -> bool:
    messages = row.peek("messages")
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(m, dict) and m.keys() >= {"parent", "role", "content"} for m in messages)
        and all("feedback" in m or "thumb" in m for m in messages)
    )


def read_exported_chat(row: Row) -> Iterator[Item]:
    """What people said about a model's replies. A reply alone, however well it reads, is nobody's demonstration."""
    row.use("id", "title", "project", "created_at", "messages")
    messages = {m.get("id"): m for m in row.peek("messages") if isinstance(m.get("id"), int | str)}
    opinion_count = 0
    for message in messages.values():
        if message["role"] == "assistant":
            for item in feedback_items(message, messages):
                opinion_count += 1
                yield item
    if not opinion_count:
        yield LeftOut(UNJUDGED)


def feedback_items(message: dict[str, Any], messages: dict[Any, dict[str, Any]]) -> Iterator[Item]:
    feedback = message if "thumb" in message else message["feedback"]
    if not isinstance(feedback, dict):
        return
    try:
        before = branch_to(message.get("parent"), messages)
        reply = message["content"] if isinstance(message["content"], str) else ""
        thumb = feedback.get("thumb")
        if thumb in (1, -1):
            yield judgment(before, reply, thumb == 1)
        better = feedback.get("better_answer")
        if isinstance(better, str) and better.strip():
            yield demonstration(before, better)
        picked = feedback.get("preferred_over")
        rival = messages.get(picked) if isinstance(picked, int | str) else None
        if rival is not None:
            yield ranking(before, [reply, rival["content"]], [1, 2])
    except Skip as skip:
        yield LeftOut(str(skip))


def branch_to(parent: Any, messages: dict[Any, dict[str, Any]]) -> Messages:
    """The conversation down to a message."""
    branch: Messages = []
    for _ in range(len(messages)):
        node = messages.get(parent) if isinstance(parent, int | str) else None
        if node is None:
            break
        if node["role"] not in ("system", "user", "assistant") or not isinstance(node["content"], str):
            raise Skip("a message of the chat has no text")
        branch.insert(0, {"role": node["role"], "content": node["content"]})
        parent = node.get("parent")
    return branch
