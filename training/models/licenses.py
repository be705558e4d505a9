"""The license of a model from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

LICENSE: Final = re.compile(r"^license:\s*[\"']?([^\"'\n]+)", re.MULTILINE)


def license_of(folder: Path) -> str:
    """The license that a model's card names in its front matter; empty if it names none."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:10_000]
    except OSError:
        return ""
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    named = LICENSE.search(front[1]) if front else None
    return named[1].strip() if named else ""
