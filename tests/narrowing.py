"""What a test knows to be there, for the type checker."""

from typing import TypeVar

T = TypeVar("T")


def existing(value: T | None) -> T:
    assert value is not None
    return value
