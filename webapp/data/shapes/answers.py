"""What a prompt's row says for rewards that check replies: the right answer and, in an object, what else they need.

{…, reference} {…, ground_truth} {…, expected_answer} {…, final_answer}     the right answer: text or other JSON
{…, reference_json, data}        of our own exports: JSON in texts
{…, data: {…}}                   an object for rewards
{…, tests} {…, test_list}        unit tests of code (MBPP), which become data.tests
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from webapp.data.shapes.model import PromptItem
from webapp.data.shapes.row import Row, Skip, is_blank

REFERENCES: Final = ("reference", "ground_truth", "expected_answer", "final_answer")
TESTS: Final = ("tests", "test_list")


def with_answer(item: PromptItem, row: Row) -> PromptItem:
    """The prompt with what its row says of right answers. Raises Skip where `data` is no object."""
    reference = next((row.get(name) for name in REFERENCES if not is_blank(row.peek(name))), None)
    row.use("reference_json", *(name for name in REFERENCES if is_blank(row.peek(name))))
    if not is_blank(row.peek("reference_json")):
        reference = parsed(row.peek("reference_json"), "reference_json")
    data = None if is_blank(row.peek("data")) else row.get("data")
    if isinstance(data, str):
        data = parsed(data, "data")
    if data is not None and not isinstance(data, dict):
        raise Skip("its “data” is no JSON object")
    for name in TESTS:
        if isinstance(row.peek(name), str | list) and not is_blank(row.peek(name)):
            data = {**(data or {}), "tests": row.get(name)}
    if reference is None and data is None:
        return item
    try:
        json.dumps([reference, data], allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise Skip("its reference or data holds what is not JSON: dates, bytes, NaN or broken characters") from None
    return replace(item, reference=reference, data=data)


def parsed(text: Any, column: str) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        raise Skip(f"its “{column}” is not JSON") from None
