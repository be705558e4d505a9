"""Chat templates as other programs read them: the same text for the same conversation, whatever program and day."""

from __future__ import annotations

import re
from typing import Final

from training.data.chat_templates import TEMPLATE_DATE

# Tags of transformers that mark what the assistant says. Other programs' Jinja does not know them.
GENERATION: Final = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")
CLOCK: Final = re.compile(r"strftime_now\(\s*(?P<quote>[\"'])(?P<format>.*?)(?P=quote)\s*\)")


def portable_template(template: str) -> str:
    """The template without the tags that only transformers knows, and with the date that the model reads here.

    A comment takes a tag's place, because it trims white space as the tag did.
    """
    without_tags = GENERATION.sub(lambda tag: f"{{#{tag[1]} {tag[2]}#}}", template)
    return CLOCK.sub(lambda call: quoted(TEMPLATE_DATE.strftime(call["format"])), without_tags)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
