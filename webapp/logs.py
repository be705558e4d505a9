"""What must not be written to a log: addresses whose secret part lets their reader join a project or set a password."""

from __future__ import annotations

import logging
import re
from typing import Final

SECRET_ADDRESS: Final = re.compile(r"(/invitations/|/accounts/password/reset/key/|/accounts/confirm-email/)[^/\s]+")
SETUP_CODE: Final = re.compile(r"(/accounts/signup/\?code=)[^\s&]+")


def hide_secrets(text: str) -> str:
    for pattern in (SECRET_ADDRESS, SETUP_CODE):
        text = pattern.sub(r"\1…", text)
    return text


class HideSecrets(logging.Filter):
    """Puts … in place of the secret part of such addresses, whoever logs them."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if (hidden := hide_secrets(text)) != text:
            record.msg, record.args = hidden, None
        return True
