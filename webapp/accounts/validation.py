"""Saving what a model's own rules accept."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError

from webapp.errors import BadInput


def save_valid(instance: Any) -> None:
    """Save what `full_clean` accepts; else say which field is wrong and why."""
    try:
        instance.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        prefix = "" if field == "__all__" else f"{field.replace('_', ' ')}: "
        raise BadInput(prefix + " ".join(messages)) from None
    instance.save()
