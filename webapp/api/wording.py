"""What is wrong with the body of a request, in the words of the training contract, which /v1/ has too.

Django REST framework's own sentences name no field, no limit and no value, and some name types of Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rest_framework import serializers
from rest_framework.settings import api_settings

from training.contract import any_of, give, list_words, number_words, text_words
from webapp.params import MAX_BIGINT

OURS: Final = "said"  # the code of a ValidationError whose sentence was written here
WHOLE: Final = api_settings.NON_FIELD_ERRORS_KEY


def plain_errors(errors: Any, field: Any, value: Any) -> Any:
    """The errors of a field, or of a whole serializer, in the same places and in our words."""
    if isinstance(errors, list):
        return [str(error) if error.code == OURS else sentence_of(error.code, field, value) for error in errors]
    return {
        name: plain_errors(inner, *((field, value) if name == WHOLE else member_at(field, value, name)))
        for name, inner in errors.items()
    }


def member_at(field: Any, value: Any, key: Any) -> tuple[Any, Any]:
    """The field and the value at a key or index."""
    if isinstance(field, serializers.Serializer) and key in field.fields:
        return field.fields[key], value.get(key) if isinstance(value, Mapping) else value
    child = getattr(field, "child", field)
    try:
        return child, value[int(key) if isinstance(value, list) else key]
    except (KeyError, IndexError, TypeError, ValueError):
        return child, value


def sentence_of(code: str, field: Any, value: Any) -> str:
    words = expected(field)
    if code == "required":
        return f"this is missing; give {words}."
    return f"{give(words, value)}."


def expected(field: Any) -> str:
    """What a field takes, as in "give …"."""
    if isinstance(field, serializers.ChoiceField):
        return any_of(field.choices)
    if isinstance(field, serializers.BooleanField):
        return "true or false"
    if isinstance(field, serializers.UUIDField):
        return "a UUID, such as 123e4567-e89b-42d3-a456-426614174000"
    if isinstance(field, serializers.IntegerField):
        return number_words("a whole number", **limits(field))
    if isinstance(field, serializers.FloatField):
        return number_words("a number", **limits(field))
    if isinstance(field, serializers.CharField):
        return text_words(0 if field.allow_blank else 1, field.max_length)
    if isinstance(field, serializers.ListField):
        low = field.min_length or (0 if field.allow_empty else 1)
        return list_words(expected(field.child), low, field.max_length)
    if isinstance(field, serializers.Serializer):
        required = [name for name, inner in field.fields.items() if inner.required]
        return f"an object with {' and '.join(required)}" if required else "an object"
    return "an object"


def limits(field: Any) -> dict[str, Any]:
    return {"ge": field.min_value, "le": None if field.max_value == MAX_BIGINT else field.max_value}
