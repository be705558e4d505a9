"""Secrets that the site must be able to read again, such as keys of other servers: encrypted in the database.

The key is derived from SECRET_KEY, so a copy of the database alone opens nothing. Each purpose has a key of its own, so
a secret that is stored for one purpose cannot be put where another is read.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from webapp.errors import Conflict


def encrypt(secret: str, *, purpose: str) -> str:
    """The secret as text that only this installation can read; empty for an empty one."""
    return cipher(purpose).encrypt(secret.encode()).decode() if secret else ""


def decrypt(encrypted: str, *, purpose: str) -> str:
    """The secret. Raises Conflict if SECRET_KEY is not the one that it was encrypted with."""
    if not encrypted:
        return ""
    try:
        return cipher(purpose).decrypt(encrypted.encode()).decode()
    except InvalidToken as error:
        raise Conflict(
            "A stored key cannot be read: this installation's SECRET_KEY has changed since. Enter the key again.",
            code="secret_unreadable",
        ) from error


def cipher(purpose: str) -> Fernet:
    derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"tutelage {purpose}".encode())
    return Fernet(base64.urlsafe_b64encode(derivation.derive(settings.SECRET_KEY.encode())))
