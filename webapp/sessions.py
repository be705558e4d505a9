"""Sessions in the database, whose keys are what we made them of."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    def _validate_session_key(self, key: Any) -> bool:
        """A cookie may hold anything, NUL in octal too; what cannot be a key of ours is not looked up."""
        plain: bool = super()._validate_session_key(key)  # type: ignore[misc]  # the stubs leave it out
        return plain and key.isascii() and key.isalnum()
