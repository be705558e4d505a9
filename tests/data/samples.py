"""One row of each shape, all about the same question, and what it must be read as.

Over 300 lines: it is a table, one entry per shape.
"""

from __future__ import annotations

import json
from typing import Any

from webapp.data.shapes import DemonstrationItem, JudgmentItem, LeftOut, PromptItem, RankingItem

ASKED = "Why is the sky blue?"
GOOD, BAD, WORST = "Because of scattering.", "Because of paint.", "It is not."
ASK = [{"role": "user", "content": ASKED}]
GOOD_TURN, BAD_TURN = {"role": "assistant", "content": GOOD}, {"role": "assistant", "content": BAD}
LONGER = [*ASK, BAD_TURN, {"role": "user", "content": "Sure?"}]
SYSTEM = {"role": "system", "content": "Be brief."}


def won(messages: Any = None, **fields: Any) -> RankingItem:
    return RankingItem(messages or ASK, [GOOD, BAD], [[0], [1]], **fields)


def lost(**fields: Any) -> RankingItem:
    return RankingItem(ASK, [BAD, GOOD], [[1], [0]], **fields)


def tie(**fields: Any) -> RankingItem:
    return RankingItem(ASK, [GOOD, BAD], [[0, 1]], **fields)


def shown(messages: Any = None, **fields: Any) -> DemonstrationItem:
    return DemonstrationItem(messages or ASK, GOOD, **fields)


def asked(text: str) -> PromptItem:
    return PromptItem([{"role": "user", "content": text}])


def left(reason: str) -> LeftOut:
    return LeftOut(reason)


VOTE = {"model_a": "x", "model_b": "y", "conversation_a": [*ASK, GOOD_TURN], "conversation_b": [*ASK, BAD_TURN]}
KAGGLE = {"prompt": f'["{ASKED}"]', "response_a": f'["{GOOD}"]', "response_b": f'["{BAD}"]'}
ARGILLA = {"fields": {"instruction": ASKED, "response-1": GOOD, "response-2": BAD}, "status": "completed"}
LABEL_STUDIO = {"prompt": ASKED, "answer1": GOOD, "answer2": BAD}
ITEMS = [{"id": "x", "title": "1", "body": GOOD}, {"id": "y", "title": "2", "body": BAD}]
TREE = {
    "message_id": "t", "text": ASKED, "role": "prompter",
    "replies": [
        {"message_id": "a", "text": GOOD, "role": "assistant", "rank": 0, "replies": None},
        {"message_id": "b", "text": BAD, "role": "assistant", "rank": 1},
    ],
}  # fmt: skip
NODES = {
    "1": {"id": "1", "parentId": None, "role": "user", "content": ASKED},
    "2": {"id": "2", "parentId": "1", "role": "assistant", "content": GOOD, "annotation": {"rating": 1}},
    "3": {"id": "3", "parentId": "1", "role": "assistant", "content": BAD, "annotation": {"rating": -1}},
}


def task(*results: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "data": {"prompt": ASKED, **data},
        "annotations": [{"completed_by": 7, "was_cancelled": False, "result": list(results)}],
    }


def record(**answers: Any) -> dict[str, Any]:
    return {
        **ARGILLA,
        "responses": {
            question: [{"value": value, "user_id": "u", "status": "submitted"}] for question, value in answers.items()
        },
    }


def chat(*turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": list(turns), **fields}


def chatgpt(role: str, *parts: str, **fields: Any) -> dict[str, Any]:
    return {"author": {"role": role}, "content": {"content_type": "text", "parts": list(parts)}, **fields}


SAMPLES: dict[str, tuple[Any, list[Any]]] = {
    # our own exports
    "own ranking": (
        {
            "id": "ranking:1", "messages": ASK, "replies": [GOOD, BAD], "groups": [[0], [1]], "strength": -1.0,
            "ratings": [7, 0], "flags": ["", "wrong,long"], "models": ["", ""], "reason": "It is so.", "weight": 0.5,
            "annotator": "person:3", "split": "heldout", "source": "import", "source_ref": "a:1", "guidelines": 1,
            "created_at": "2026-01-01T00:00:00Z", "active_seconds": 1.5, "state": "live",
        },
        [
            won(
                annotator="person:3", weight=0.5, split="heldout", ratings={0: 7}, flags={1: ["wrong", "long"]},
                reason="It is so.", created_at="2026-01-01T00:00:00Z", active_seconds=1.5,
            )
        ],
    ),
    "own ranking, withdrawn": (
        {"id": "ranking:1", "messages": ASK, "replies": [GOOD, BAD], "groups": [[0], [1]], "state": "withdrawn"},
        [left("a ranking that is withdrawn")],
    ),
    "own ranking of weight 0": (
        {"id": "ranking:1", "messages": ASK, "replies": [GOOD, BAD], "groups": [[0], [1]], "weight": 0},
        [won(weight=0.0)],
    ),
    "own demonstration": (
        {
            "id": "demonstration:1",
            "messages": [*ASK, {**BAD_TURN, "weight": 0}, LONGER[2], {**GOOD_TURN, "weight": 1}],
            "weight": 2.0, "annotator": "person:3", "split": "train", "state": "accepted", "review_verdict": "accept",
        },
        [shown(LONGER, masked_turns=[1], weight=2.0, annotator="person:3")],
    ),
    "own demonstration, rejected": (
        {"id": "demonstration:1", "messages": [*ASK, GOOD_TURN], "state": "rejected"},
        [left("a demonstration that is rejected")],
    ),
    "own demonstration as training reads it": (
        {"id": "demonstration:1", "messages": [*LONGER, GOOD_TURN], "masked_turns": [1], "weight": 1.0, "source": "x"},
        [shown(LONGER, masked_turns=[1])],
    ),
    "own prompt of several turns": (
        {"id": "prompt:1", "messages": LONGER, "split": "heldout", "state": "live"},
        [PromptItem(LONGER, "heldout")],
    ),
    "own judgment": (
        {"id": "judgment:1", "messages": ASK, "reply": BAD, "good": False, "weight": 1.0, "annotator": "ann"},
        [JudgmentItem(ASK, BAD, False, annotator="ann")],
    ),
    "own sample": (
        {"id": "prompt:1#0", "prompt_id": "prompt:1", "messages": ASK, "reply": BAD, "tokens": 5, "finish": "stop"},
        [PromptItem(ASK), left("a model's reply that nobody has judged")],
    ),
    "own chat with a pick": (
        chat(
            {"id": 1, "parent": None, "role": "user", "content": ASKED, "state": "complete", "feedback": None},
            {"id": 2, "parent": 1, "role": "assistant", "content": BAD, "state": "complete", "feedback": None},
            {
                "id": 3, "parent": 1, "role": "assistant", "content": GOOD, "state": "complete",
                "feedback": {"thumb": 1, "reasons": [], "comment": "", "better_answer": "", "preferred_over": 2},
            },
        ),
        [JudgmentItem(ASK, GOOD, True), won()],
    ),
    "own chat without a word on it": (
        chat(
            {"id": 1, "parent": None, "role": "user", "content": ASKED, "state": "complete", "feedback": None},
            {"id": 2, "parent": 1, "role": "assistant", "content": BAD, "state": "complete", "feedback": None},
        ),
        [left("a model's reply that nobody has judged")],
    ),
    # demonstrations and prompts
    "Alpaca with system and history": (
        {"instruction": "Sure?", "input": "", "output": GOOD, "system": "Be brief.", "history": [[ASKED, BAD]]},
        [shown([SYSTEM, *LONGER])],
    ),
    "Alpaca with input": (
        {"instruction": "Sum it up.", "input": "It rained.", "output": "Rain."},
        [DemonstrationItem([{"role": "user", "content": "Sum it up.\n\nIt rained."}], "Rain.")],
    ),
    "an output that is no text": (
        {"instruction": ASKED, "input": "", "output": {"a": 1}},
        [left("“output” is not text")],
    ),
    "an empty output": ({"instruction": ASKED, "output": None}, [left("the reply is empty")]),
    "a demonstration with a weight": ({"prompt": ASKED, "completion": GOOD, "weight": 0.25}, [shown(weight=0.25)]),
    "a demonstration of weight 0": ({"prompt": ASKED, "completion": GOOD, "weight": 0}, [left("its weight is 0")]),
    "a demonstration judged in an unknown way": (
        {"prompt": ASKED, "completion": GOOD, "label": "sports"},
        [left("“label” judges it, in a way that is not known")],
    ),
    "a prompt with a score": (
        {"prompt": ASKED, "score": 3},
        [left("“score” judges it, in a way that is not known")],
    ),
    "a prompt with a word about its kind": ({"prompt": ASKED, "label": "safe"}, [PromptItem(ASK)]),
    "SQuAD": (
        {"id": "1", "question": ASKED, "context": "Light scatters.", "answers": {"text": ["x"], "answer_start": [0]}},
        [asked(f"{ASKED}\n\nLight scatters.")],
    ),
    "BoolQ": (
        {"question": ASKED, "passage": "Light scatters.", "answer": True},
        [asked(f"{ASKED}\n\nLight scatters.")],
    ),
    "a context that is no text": (
        {"question": ASKED, "context": {"title": ["x"]}, "answer": "yes"},
        [left("“context” is not text")],
    ),
    "ARC": (
        {"question": ASKED, "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"},
        [asked(f"{ASKED}\n\n1. a\n2. b")],
    ),
    "CommonsenseQA": (
        {"question": {"stem": ASKED, "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]}},
        [asked(f"{ASKED}\n\nA. x\nB. y")],
    ),
    "BBQ": (
        {"context": "c", "question": ASKED, "ans0": "x", "ans1": "y", "ans2": "z", "label": 1},
        [asked(f"{ASKED}\n\nc\n\nA. x\nB. y\nC. z")],
    ),
    "MT-bench": (
        {"question_id": 1, "turns": [ASKED, "And at night?"]},
        [PromptItem(ASK), left("a later turn, which needs the reply before it")],
    ),
    "self-instruct": ({"instruction": ASKED, "instances": [{"input": "", "output": GOOD}]}, [shown()]),
    # chats
    "OpenAI with a masked turn": (
        chat(*ASK, {**BAD_TURN, "weight": 0}, LONGER[2], {**GOOD_TURN, "weight": 1}),
        [shown(LONGER, masked_turns=[1])],
    ),
    "OpenAI whose last reply is masked": (
        chat(*ASK, GOOD_TURN, LONGER[2], {**BAD_TURN, "weight": 0}),
        [shown()],
    ),
    "a chat with a weight of its own": (chat(*ASK, GOOD_TURN, weight=0.5), [shown(weight=0.5)]),
    "a chat with a label": (chat(*ASK, BAD_TURN, label=False), [JudgmentItem(ASK, BAD, False)]),
    "Human and Assistant as roles": (
        {"conversations": [{"from": "Human", "value": ASKED}, {"from": "Assistant", "value": GOOD}]},
        [shown()],
    ),
    "a role that is not read": (
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "observation", "value": "4"}]},
        [left("turn 2: observation is no role that is read (system, user and assistant are)")],
    ),
    "a call of a tool": (
        chat(*ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}),
        [left("turn 2: calls a tool, which is not read")],
    ),
    "tools on offer": (
        chat(*ASK, GOOD_TURN, tools=[{"name": "x"}]),
        [left("it offers tools to the assistant, which are not read")],
    ),
    "an image": (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, GOOD_TURN),
        [left("turn 1: a part of type image_url, which is not text")],
    ),
    "Axolotl's input_output": (
        {"segments": [{"label": False, "text": ASKED}, {"label": True, "text": GOOD}]},
        [shown()],
    ),
    "Axolotl's input_output out of turn": (
        {"segments": [{"label": True, "text": ASKED}, {"label": True, "text": GOOD}]},
        [left("its segments are not question and answer in turn")],
    ),
    "Schema-Guided Dialogue": (
        {"turns": [{"speaker": "USER", "utterance": ASKED}, {"speaker": "SYSTEM", "utterance": GOOD}]},
        [shown()],
    ),
    # pairs
    "TRL implicit, texts": (
        {"chosen": GOOD, "rejected": BAD},
        [left("chosen and rejected are texts without a prompt")],
    ),
    "TRL implicit, conversational": ({"chosen": [*ASK, GOOD_TURN], "rejected": [*ASK, BAD_TURN]}, [won()]),
    "TRL explicit, conversational": ({"prompt": ASK, "chosen": [GOOD_TURN], "rejected": [BAD_TURN]}, [won()]),
    "TRL with a margin": ({"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "margin": 1.5}, [won(strength=1.5)]),
    "a negative margin": (
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "margin": -1.0},
        [left("its margin contradicts its order: it is below 0")],
    ),
    "TRL KTO, conversational": (
        {"prompt": ASK, "completion": [BAD_TURN], "label": False},
        [JudgmentItem(ASK, BAD, False)],
    ),
    "KTO in a table": ({"prompt": ASKED, "completion": BAD, "label": "0"}, [JudgmentItem(ASK, BAD, False)]),
    "UltraFeedback binarized": (
        {
            "prompt": ASKED, "prompt_id": "x", "chosen": [*ASK, GOOD_TURN], "rejected": [*ASK, BAD_TURN],
            "messages": [*ASK, GOOD_TURN], "score_chosen": 9.0, "score_rejected": 3.0,
        },
        [won(strength=2.0)],
    ),
    "UltraFeedback binarized, equal scores": (
        {
            "prompt": ASKED, "chosen": [*ASK, GOOD_TURN], "rejected": [*ASK, BAD_TURN], "score_chosen": 7.0,
            "score_rejected": 7.0,
        },
        [tie()],
    ),
    "scores on an unknown scale": (
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "chosen_score": 80, "rejected_score": 20},
        [won()],
    ),
    "scores that contradict the order": (
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "chosen_rating": 1, "rejected_rating": 5},
        [left("its scores contradict its order: rejected has the higher one")],
    ),
    "OpenAI preference": (
        {
            "input": {"messages": ASK, "tools": [], "parallel_tool_calls": True}, "preferred_output": [GOOD_TURN],
            "non_preferred_output": [BAD_TURN],
        },
        [won()],
    ),
    "LLaMA-Factory sharegpt ranking": (
        {
            "conversations": [{"from": "human", "value": ASKED}], "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD}, "system": "Be brief.",
        },
        [won([SYSTEM, *ASK])],
    ),
    "LLaMA-Factory's older ranking": ({"instruction": ASKED, "input": "", "output": [GOOD, BAD]}, [won()]),
    "LLaMA-Factory's KTO": (
        {"instruction": ASKED, "input": "", "output": BAD, "kto_tag": False},
        [JudgmentItem(ASK, BAD, False)],
    ),
    "a pair without its second reply": (
        {"prompt": ASKED, "chosen": GOOD, "rejected": None},
        [left("fewer than two replies that are not empty")],
    ),
    "a chosen reply alone": (
        {"prompt": ASKED, "chosen": GOOD},
        [left("“chosen” judges it, in a way that is not known")],
    ),
    "a label that is empty": (
        {"prompt": ASKED, "completion": GOOD, "label": None},
        [left("its “label” is empty")],
    ),
    "a transcript that waits for its reply": (
        {"prompt": f"\n\nHuman: {ASKED}\n\nAssistant:", "completion": f" {GOOD}"},
        [shown()],
    ),
    "HH with another prompt": (
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"},
        [left("chosen and rejected answer different prompts")],
    ),
    # several replies
    "replies with ranks that tie": (
        {"prompt": ASKED, "replies": [GOOD, BAD, WORST], "ranks": [1, 2, 2]},
        [RankingItem(ASK, [GOOD, BAD, WORST], [[0], [1, 2]])],
    ),
    "replies with equal scores": ({"prompt": ASKED, "responses": [GOOD, BAD], "scores": [5, 5]}, [tie()]),
    "replies without an order": (
        {"prompt": ASKED, "replies": [GOOD, BAD]},
        [left("several replies without ranks or scores")],
    ),
    "replies with a list of ratings": (
        {"system": "Be brief.", "input": ASKED, "generations": [GOOD, BAD], "rating": [9.0, 7.0]},
        [won([SYSTEM, *ASK])],
    ),
    "Stack Exchange": (
        {"question": ASKED, "answers": [{"text": GOOD, "pm_score": 4}, {"text": BAD, "pm_score": 1}]},
        [won()],
    ),
    "answers with a verdict that is not known": (
        {"question": ASKED, "answers": [{"text": GOOD, "quality": "high"}, {"text": BAD}]},
        [left("several replies in “answers” with verdicts that are not known")],
    ),
    "a thumb down": ({"prompt": ASKED, "response": BAD, "thumb": -1}, [JudgmentItem(ASK, BAD, False)]),
    "a rating of 1, which may be the worst": (
        {"prompt": ASKED, "response": BAD, "rating": 1},
        [left("a reply with a score (“rating”), and no other reply to its prompt beside it")],
    ),
    "a single scored reply": (
        {"prompt": ASKED, "response": GOOD, "score": 4},
        [left("a reply with a score (“score”), and no other reply to its prompt beside it")],
    ),
    "HelpSteer3": (
        {"context": ASK, "response1": GOOD, "response2": BAD, "overall_preference": -2, "domain": "general"},
        [won(strength=2.0)],
    ),
    "HelpSteer2-preference without a preference": (
        {"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference_strength": 0},
        [tie()],
    ),
    "SHP whose scores contradict its label": (
        {"history": ASKED, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 0, "score_A": 9, "score_B": 2},
        [left("its scores contradict its label")],
    ),
    "PandaLM": (
        {
            "instruction": ASKED, "input": "", "response1": GOOD, "response2": BAD, "annotator1": 1, "annotator2": 0,
            "annotator3": 1,
        },
        [won(annotator="annotator1"), tie(annotator="annotator2"), won(annotator="annotator3")],
    ),
    "PKU-SafeRLHF": (
        {
            "prompt": ASKED, "response_0": BAD, "response_1": GOOD, "is_response_0_safe": True, "better_response_id": 1,
            "safer_response_id": 0,
        },
        [lost()],
    ),
    "WebGPT": (
        {
            "question": {"dataset": "eli5", "id": "x", "full_text": ASKED}, "answer_0": BAD, "answer_1": GOOD,
            "score_0": -1.0, "score_1": 1.0, "tokens_0": {},
        },
        [lost(strength=3.0)],
    ),
    "WebGPT, a tie": (
        {"question": {"full_text": ASKED}, "answer_0": GOOD, "answer_1": BAD, "score_0": 0.0, "score_1": 0.0},
        [tie()],
    ),
    "summarize-from-feedback": (
        {
            "info": {"id": "x", "post": "It rained.", "title": "Rain", "subreddit": "r/x"},
            "summaries": [{"text": BAD, "policy": "p"}, {"text": GOOD}], "choice": 1, "worker": "w", "split": "train",
        },
        [
            RankingItem(
                [{"role": "user", "content": "SUBREDDIT: r/x\n\nTITLE: Rain\n\nPOST: It rained.\n\nTL;DR:"}],
                [BAD, GOOD], [[1], [0]], annotator="w",
            )
        ],
    ),
    "LLMBar": ({"input": ASKED, "output_1": BAD, "output_2": GOOD, "label": 2}, [lost()]),
    "PIQA": ({"goal": ASKED, "sol1": GOOD, "sol2": BAD, "label": 0}, [won()]),
    "two replies and a winner": (
        {"prompt": ASKED, "response_a": GOOD, "response_b": BAD, "winner": "model_a"},
        [won()],
    ),
    "two replies and a number": (
        {"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "label": 1},
        [left("which of its two replies won is not known from its label")],
    ),
    "two replies and no verdict": (
        {"prompt": ASKED, "response_1": GOOD, "response_2": BAD},
        [left("two replies without a word which of them is better")],
    ),
    # arenas
    "Arena": ({**VOTE, "winner": "model_a", "judge": "arena_user_1", "turn": 1}, [won(annotator="arena_user_1")]),
    "Arena, a tie": ({**VOTE, "winner": "tie"}, [tie()]),
    "Arena, both bad": (
        {**VOTE, "winner": "tie (bothbad)"},
        [JudgmentItem(ASK, GOOD, False), JudgmentItem(ASK, BAD, False)],
    ),
    "Arena, both bad in other words": (
        {**VOTE, "winner": "Tie (both bad)"},
        [JudgmentItem(ASK, GOOD, False), JudgmentItem(ASK, BAD, False)],
    ),
    "Arena, several turns": (
        {
            **VOTE, "winner": "model_b", "turn": 2, "conversation_a": [*ASK, GOOD_TURN, LONGER[2], GOOD_TURN],
            "conversation_b": [*ASK, BAD_TURN, LONGER[2], GOOD_TURN],
        },
        [left("the two conversations part before their last reply")],
    ),
    "MT-bench judgment of the first turn": (
        {
            **VOTE, "winner": "model_a", "turn": 1, "conversation_a": [*ASK, GOOD_TURN, LONGER[2], GOOD_TURN],
            "conversation_b": [*ASK, BAD_TURN, LONGER[2], GOOD_TURN],
        },
        [won()],
    ),
    "Kaggle, a tie": ({**KAGGLE, "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}, [tie()]),
    # trees
    "a tree": ({"message_tree_id": "t", "prompt": TREE}, [won(), shown()]),
    # tools for labeling
    "Argilla, a ranking": (
        record(ranking=[{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 2}]),
        [won(annotator="u")],
    ),
    "Argilla, a choice": (record(preference="response-1"), [won(annotator="u")]),
    "Argilla, a draft": (
        {**ARGILLA, "responses": {"preference": [{"value": "response-1", "user_id": "u", "status": "draft"}]}},
        [left("nobody has answered it")],
    ),
    "Argilla, a rating": (
        {
            "fields": {"instruction": ASKED, "response": GOOD},
            "responses": {"quality": [{"value": 4, "user_id": "u", "status": "submitted"}]},
        },
        [left("a reply with a score (“quality”), and no other reply to its prompt beside it")],
    ),
    "Argilla, a rating in a flat table": (
        {"instruction": ASKED, "response": GOOD, "rating.responses": [4], "rating.responses.users": ["u"]},
        [left("a reply with a score (“rating”), and no other reply to its prompt beside it")],
    ),
    "Argilla, a correction": (
        {
            "fields": {"instruction": ASKED, "response": BAD},
            "responses": {"corrected": [{"value": GOOD, "user_id": "u", "status": "submitted"}]},
        },
        [shown(annotator="u")],
    ),
    "Label Studio, pairwise": (
        task(
            {"type": "pairwise", "from_name": "p", "to_name": "answer1,answer2", "value": {"selected": "right"}},
            answer1=BAD, answer2=GOOD,
        ),
        [lost(annotator="7")],
    ),
    "Label Studio, ranker": (
        task({"type": "ranker", "from_name": "rank", "value": {"ranker": {"rank": ["y", "x"]}}}, items=ITEMS),
        [RankingItem(ASK, [GOOD, BAD], [[1], [0]], annotator="7")],
    ),
    "Label Studio, textarea": (
        task({"type": "textarea", "from_name": "response", "value": {"text": [GOOD]}}),
        [shown(annotator="7")],
    ),
    "Label Studio, rating": (
        task({"type": "rating", "from_name": "quality", "value": {"rating": 4}}, response=GOOD),
        [left("a reply with a score (“quality”), and no other reply to its prompt beside it")],
    ),
    "Label Studio, choices": (
        task({"type": "choices", "from_name": "ok", "value": {"choices": ["Good"]}}, response=GOOD),
        [JudgmentItem(ASK, GOOD, True, annotator="7")],
    ),
    "Label Studio, unanswered": ({"id": 1, "data": LABEL_STUDIO, "annotations": []}, [left("nobody has answered it")]),
    "JSON-MIN, textarea": (
        {"id": 1, "prompt": ASKED, "response": GOOD, "annotator": 2, "annotation_id": 3, "lead_time": 1.0},
        [shown(annotator="2")],
    ),
    "JSON-MIN, ranker": (
        {
            "id": 1, "prompt": ASKED, "items": ITEMS, "rank": {"rank": ["y", "x"]}, "annotator": 2, "annotation_id": 3,
        },
        [RankingItem(ASK, [GOOD, BAD], [[1], [0]], annotator="2")],
    ),
    "Open WebUI feedback with a rated sibling": (
        {
            "type": "rating", "user_id": "u", "data": {"rating": 1}, "meta": {"message_id": "2"},
            "snapshot": {"chat": {"chat": {"history": {"messages": NODES, "currentId": "2"}}}},
        },
        [JudgmentItem(ASK, GOOD, True, annotator="u"), won(annotator="u")],
    ),
    "Open WebUI chat whose reply was thumbed down": (
        {
            "id": "c", "user_id": "u",
            "chat": {"history": {"messages": {"1": NODES["1"], "3": NODES["3"]}, "currentId": "3"}, "messages": []},
        },
        [JudgmentItem(ASK, BAD, False, annotator="u")],
    ),
    # columns by other names
    "columns with capitals and spaces": (
        {"Prompt": ASKED, "Response A": GOOD, "Response B": BAD, "Winner": "Response A"},
        [won()],
    ),
    "a pair by other names": ({"question": ASKED, "response_j": GOOD, "response_k": BAD}, [won()]),
    "preferred and non-preferred output beside a prompt": (
        {"prompt": ASKED, "preferred_output": GOOD, "non_preferred_output": BAD},
        [won()],
    ),
    "UltraFeedback binarized, its older columns": (
        {
            "instruction": ASKED, "chosen_response": GOOD, "rejected_response": BAD, "chosen_avg_rating": 2.0,
            "rejected_avg_rating": 4.0,
        },
        [left("its scores contradict its order: rejected_response has the higher one")],
    ),
    "passages for retrieval": (
        {"query": ASKED, "positive": GOOD, "negative": BAD},
        [left("“positive” judges it, in a way that is not known")],
    ),
    "names of models that won and lost": (
        {"prompt": ASKED, "winner": "x", "loser": "y"},
        [left("“winner” judges it, in a way that is not known")],
    ),
    "RewardBench 2": (
        {"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD, WORST], "num_correct": 1},
        [RankingItem(ASK, [GOOD, BAD, WORST], [[0], [1, 2]])],
    ),
    "HelpSteer3, an edit": (
        {"context": ASK, "original_response": BAD, "edited_response": GOOD, "change_summary": "x"},
        [RankingItem(ASK, [GOOD, BAD], [[0], [1]])],
    ),
    # verdicts by other names
    "BeaverTails": (
        {"prompt": ASKED, "response": BAD, "category": {"x": True}, "is_safe": False},
        [JudgmentItem(ASK, BAD, False)],
    ),
    "a label as tables have it": (
        {"prompt": ASKED, "completion": BAD, "label": "0.0"},
        [JudgmentItem(ASK, BAD, False)],
    ),
    "a reply that is toxic": (
        {"prompt": ASKED, "response": BAD, "toxic": True},
        [left("“toxic” says that something is wrong with it")],
    ),
    "a reply that is not toxic": ({"prompt": ASKED, "response": GOOD, "toxic": False}, [shown()]),
    "a reply with a grade": (
        {"prompt": ASKED, "response": BAD, "grade": "F"},
        [left("“grade” judges it, in a way that is not known")],
    ),
    "OffsetBias": ({"instruction": ASKED, "output_1": BAD, "output_2": GOOD, "label": 2, "bias": "length"}, [lost()]),
    "AlpacaFarm": (
        {"instruction": "Sum it up.", "input": "It rained.", "output_1": GOOD, "output_2": BAD, "preference": 2},
        [RankingItem([{"role": "user", "content": "Sum it up.\n\nIt rained."}], [GOOD, BAD], [[1], [0]])],
    ),
    "AlpacaEval, a tie": ({"instruction": ASKED, "output_1": GOOD, "output_2": BAD, "preference": 1.5}, [tie()]),
    "summarize-from-feedback, one rated summary": (
        {"info": {"post": "It rained."}, "summary": {"text": GOOD, "axes": {"overall": 6}}, "worker": "w"},
        [left("a reply with a score (“summary.axes.overall”), and no other reply to its prompt beside it")],
    ),
    "replies that are no list": (
        {"prompt": ASKED, "replies": 5, "ranks": [1]},
        [left("“replies” is not a list of replies")],
    ),
    "one reply with a rank": (
        {"prompt": ASKED, "replies": [GOOD], "ranks": [1]},
        [left("fewer than two replies in “replies”")],
    ),
    "ranks without replies": (
        {"prompt": ASKED, "ranks": [1, 2]},
        [left("“ranks” judges it, in a way that is not known")],
    ),
    "replies with an order of an unknown kind": (
        {"prompt": ASKED, "responses": [GOOD, BAD], "ranking": "1>2"},
        [left("several replies, and “ranking” judges them, in a way that is not known")],
    ),
    "TRL, steps with labels": (
        {"prompt": ASKED, "completions": [GOOD, BAD], "labels": [True, False]},
        [left("“completions” are steps of one reply with a label each, which are not read")],
    ),
    "a reply in a column of an unknown name": (
        {"prompt": ASKED, "gpt4_response": GOOD},
        [left("“gpt4_response” looks like a reply, and what it is worth is not known")],
    ),
    "Stack Exchange with authors": (
        {"question": ASKED, "answers": [{"text": GOOD, "author": "Al", "pm_score": 4}, {"text": BAD, "pm_score": 1}]},
        [won()],
    ),
    # more chats
    "distilabel, one generation": ({"instruction": ASKED, "generation": GOOD, "model_name": "x"}, [shown()]),
    "LIMA": ({"conversations": [ASKED, BAD, "Sure?", GOOD], "source": "x"}, [shown(LONGER)]),
    "Capybara": (
        {"conversation": [{"input": ASKED, "output": BAD}, {"input": "Sure?", "output": GOOD}]},
        [shown(LONGER)],
    ),
    "a chat with pictures": (
        chat({"role": "user", "content": "<image>What is it?"}, GOOD_TURN, images=["a.png"]),
        [left("“images” belongs to it, and only text is read")],
    ),
    "a reply of which parts are not learned": (
        chat(*ASK, {**GOOD_TURN, "train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}),
        [left("turn 2: parts of it are not to be learned, which is not read")],
    ),
    "reasoning beside a reply": (chat(*ASK, {**GOOD_TURN, "reasoning_content": "Light …"}), [shown()]),
    "SVAMP": ({"Body": "Light scatters.", "Question": ASKED, "Answer": 4.0}, [asked(f"{ASKED}\n\nLight scatters.")]),
    "ChatGPT's export": (
        {
            "title": "Sky", "current_node": "b", "moderation_results": [],
            "mapping": {
                "r": {"message": None, "parent": None},
                "s": {"message": chatgpt("system", "", weight=0), "parent": "r"},
                "a": {"message": chatgpt("user", ASKED), "parent": "s"},
                "b": {"message": chatgpt("assistant", GOOD), "parent": "a"},
                "c": {"message": chatgpt("assistant", BAD), "parent": "a"},
            },
        },
        [shown()],
    ),
    "ChatGPT's export with a tool": (
        {"current_node": "a", "mapping": {"a": {"message": chatgpt("tool", "4"), "parent": None}}},
        [left("a message of the role tool and the type text, which is not read")],
    ),
    # more tools for labeling
    "Prodigy, choices": (
        {
            "prompt": ASKED, "options": [{"id": 1, "text": GOOD}, {"id": 2, "text": BAD}], "accept": [1],
            "answer": "accept", "_annotator_id": "ann",
        },
        [won(annotator="ann")],
    ),
    "Prodigy, one reply": (
        {"prompt": ASKED, "response": BAD, "answer": "reject", "_task_hash": 1},
        [JudgmentItem(ASK, BAD, False)],
    ),
    "Prodigy, ignored": (
        {"prompt": ASKED, "response": BAD, "answer": "ignore", "_task_hash": 1},
        [left("its annotator ignored it")],
    ),
    "Argilla's flat table, unanswered": (
        {"prompt": ASKED, "response": GOOD, "quality.responses": None, "quality.suggestion": "good"},
        [left("nobody has answered it")],
    ),
    "Argilla 1's table": (
        {"prompt": ASKED, "response": BAD, "good": [{"user_id": "u", "value": "no", "status": "submitted"}]},
        [JudgmentItem(ASK, BAD, False, annotator="u")],
    ),
    "JSON-MIN, the class of a text": (
        {"text": ASKED, "sentiment": "Positive", "annotator": 2, "annotation_id": 3, "lead_time": 1.0},
        [left("an answer to “sentiment” that is no verdict which is known")],
    ),
    # what stands beside
    "three replies in columns of their own": (
        {"prompt": ASKED, "response_a": GOOD, "response_b": BAD, "response_c": WORST, "winner": "a"},
        [left("more than two replies in columns of their own (“response_c”), which are not read")],
    ),
    "two replies with a score each": (
        {"prompt": ASKED, "response_1": BAD, "response_2": GOOD, "score_1": 0.2, "score_2": 0.9},
        [lost()],
    ),
    "two replies with votes of an unknown kind": (
        {"prompt": ASKED, "response_a": GOOD, "response_b": BAD, "votes": ["a", "b"]},
        [left("two replies, and “votes” judges them, in a way that is not known")],
    ),
    "two replies and the name of the chosen one": (
        {"prompt": ASKED, "response_1": BAD, "response_2": GOOD, "chosen": "response_2"},
        [lost()],
    ),
    "answers with votes": (
        {"prompt": ASKED, "answers": [{"text": GOOD, "votes": 5}, {"text": BAD, "votes": 2}]},
        [won()],
    ),
    "replies of which one is marked": (
        {"prompt": ASKED, "outputs": [{"output": GOOD, "chosen": True}, {"output": BAD, "chosen": False}]},
        [left("several replies in “outputs” with verdicts that are not known")],
    ),
    "one chosen reply and two rejected ones": (
        {"prompt": ASKED, "chosen": GOOD, "rejected": [BAD, WORST]},
        [RankingItem(ASK, [GOOD, BAD, WORST], [[0], [1, 2]])],
    ),
    "replies with the marker of their transcript": (
        {"prompt": f"\n\nHuman: {ASKED}", "chosen": f"\n\nAssistant: {GOOD}", "rejected": f"\n\nAssistant: {BAD}"},
        [won()],
    ),
    "a chat as JSON in a text": ({"messages": json.dumps([*ASK, GOOD_TURN])}, [shown()]),
    "a demonstration that its status rejects": (
        {"prompt": ASKED, "response": BAD, "status": "rejected"},
        [left("“status” says that something is wrong with it")],
    ),
    "a demonstration that is of no help": (
        {"prompt": ASKED, "response": BAD, "is_helpful": False},
        [left("“is_helpful” judges it, in a way that is not known")],
    ),
    "a demonstration with ratings inside": (
        {"prompt": ASKED, "response": BAD, "annotations": [{"rating": 1}]},
        [left("“annotations” judges it, in a way that is not known")],
    ),
    "a demonstration that is not to be learned": (
        chat(*ASK, BAD_TURN, train=False),
        [left("“train” says that it is not to be learned")],
    ),
    "ms-swift with a masked turn": (
        chat(*ASK, {**BAD_TURN, "loss": False}, LONGER[2], {**GOOD_TURN, "loss": True}),
        [shown(LONGER, masked_turns=[1])],
    ),
    "a turn with a mask": (chat(*ASK, {**GOOD_TURN, "mask": [1]}), [left("turn 2: it has a mask, which is not read")]),
    "earlier turns by another name": (
        {"query": "Sure?", "response": GOOD, "chat_history": [[ASKED, BAD]]},
        [shown(LONGER)],
    ),
    "documents beside a question": (
        {"question": ASKED, "answer": GOOD, "documents": ["Light scatters."]},
        [left("“documents” looks like context, which is not read from there")],
    ),
    "two columns that ask": (
        {"instruction": "Answer in French.", "prompt": ASKED, "completion": GOOD},
        [left("“prompt” asks something, too")],
    ),
    "choices by their letters": (
        {"question": ASKED, "options": {"A": "x", "B": "y"}, "answer": "A"},
        [DemonstrationItem([{"role": "user", "content": f"{ASKED}\n\nA. x\nB. y"}], "A")],
    ),
    "a choice a column": (
        {"question": ASKED, "opa": "x", "opb": "y", "opc": "z", "opd": "w", "cop": 1},
        [asked(f"{ASKED}\n\nA. x\nB. y\nC. z\nD. w")],
    ),
    "a reply that is a number": (
        {"prompt": ASKED, "completion": 1.5},
        [left("“completion” looks like a reply, and what it is worth is not known")],
    ),
    "Label Studio, a verdict on one of two replies": (
        task(
            {"type": "choices", "from_name": "ok", "to_name": "answer2", "value": {"choices": ["Bad"]}},
            answer1=GOOD, answer2=BAD,
        ),
        [JudgmentItem(ASK, BAD, False, annotator="7")],
    ),
    "Label Studio, a rating of each of two replies": (
        task(
            {"type": "rating", "from_name": "r1", "to_name": "answer1", "value": {"rating": 4}},
            {"type": "rating", "from_name": "r2", "to_name": "answer2", "value": {"rating": 2}},
            answer1=GOOD, answer2=BAD,
        ),
        [won(annotator="7")],
    ),
}  # fmt: skip
