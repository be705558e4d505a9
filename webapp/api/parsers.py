"""How the API reads bodies: JSON, and nothing else."""

from __future__ import annotations

from typing import IO, Any

from rest_framework import parsers

from webapp.strict_json import parse_json


class JSONParser(parsers.JSONParser):
    """Refuses what cannot be stored or sent on; see `parse_json`."""

    def parse(self, stream: IO[Any], *_: Any, **__: Any) -> Any:
        return parse_json(stream.read())
