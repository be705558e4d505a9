"""How the API reads bodies: JSON, and the pieces of files."""

from __future__ import annotations

from typing import IO, Any

from rest_framework import parsers

from webapp.strict_json import parse_json


class JSONParser(parsers.JSONParser):
    """Refuses what cannot be stored or sent on; see `parse_json`."""

    def parse(self, stream: IO[Any], *_: Any, **__: Any) -> Any:
        return parse_json(stream.read())


class BytesParser(parsers.BaseParser):
    """The body as it is, whatever its type is called, as a stream."""

    media_type = "*/*"

    def parse(self, stream: IO[Any], *_: Any, **__: Any) -> Any:
        return stream
