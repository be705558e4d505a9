"""Secrets in the database are readable by this installation only, each for its purpose."""

from __future__ import annotations

import pytest
from django.conf import LazySettings

from webapp.encryption import decrypt, encrypt
from webapp.errors import Conflict


def test_a_secret_comes_back_and_does_not_stand_in_what_is_stored() -> None:
    stored = encrypt("sk-very-secret", purpose="judge")
    assert "secret" not in stored
    assert stored != encrypt("sk-very-secret", purpose="judge")  # no two alike
    assert decrypt(stored, purpose="judge") == "sk-very-secret"
    assert (encrypt("", purpose="judge"), decrypt("", purpose="judge")) == ("", "")


def test_a_secret_is_for_its_purpose_only() -> None:
    with pytest.raises(Conflict):
        decrypt(encrypt("sk-very-secret", purpose="hub"), purpose="judge")


def test_after_a_change_of_the_installations_key_the_error_says_what_to_do(settings: LazySettings) -> None:
    stored = encrypt("sk-very-secret", purpose="judge")
    settings.SECRET_KEY = "another"
    with pytest.raises(Conflict, match="SECRET_KEY has changed"):
        decrypt(stored, purpose="judge")
