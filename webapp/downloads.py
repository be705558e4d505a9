"""Files as they are sent: the first byte goes out early, and only a piece of them is in memory.

`download` sends what is made on the way. `send_content` sends what lies in a store, from any byte on, so that a client
whose connection broke goes on where it was (RFC 9110, sections 13 and 14).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Final, NamedTuple

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

PIECE_BYTES: Final = 64 * 1024
STORED_PIECE_BYTES: Final = 1 << 20
TYPES: Final = {
    "jsonl": "application/jsonl; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "tar": "application/x-tar",
}
BINARY: Final = "application/octet-stream"
RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


def download(request: HttpRequest, lines: Iterator[str | bytes], name: str) -> StreamingHttpResponse:
    """The lines as a file that no cache keeps. They are made in a thread, a piece at a time, when the client asks for
    more; between two pieces no connection to the database is held, and a client that leaves ends them."""
    response = streamed(request, joined_lines(lines), name)
    mark_private(response, name)
    return response


def streamed(request: HttpRequest, blocks: Generator[bytes], name: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        iterate_in_thread(blocks) if isinstance(request, ASGIRequest) else blocks, content_type=type_of(name)
    )


def type_of(name: str) -> str:
    return TYPES.get(name.rpartition(".")[2], BINARY)


def mark_private(response: HttpResponseBase, name: str) -> None:
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"


def joined_lines(lines: Iterator[str | bytes]) -> Generator[bytes]:
    """The lines in pieces of some 64 KB, so that a row does not cost a trip to a thread."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line if isinstance(line, bytes) else line.encode())
        size += len(waiting[-1])
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


async def iterate_in_thread(blocks: Generator[bytes]) -> AsyncIterator[bytes]:
    try:
        while block := await sync_to_async(next_piece)(blocks):
            yield block
    finally:
        await sync_to_async(blocks.close)()


def next_piece(blocks: Generator[bytes]) -> bytes:
    """Empty at the end."""
    try:
        return next(blocks, b"")
    finally:
        close_old_connections()


def iso_time(time: datetime) -> str:
    """Always to the microsecond, so that no reader takes some rows for times and others for text."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# ----------------------------------------------------------------------------------------------- what lies in a store


class StoredFile(NamedTuple):
    """size: bytes."""

    size: int
    open: Callable[[], IO[bytes]]


Part = bytes | StoredFile


class Content(NamedTuple):
    """Parts that follow each other. version: a text that is another one as soon as any byte is."""

    parts: Sequence[Part]
    version: str

    @property
    def size(self) -> int:
        return sum(part_size(part) for part in self.parts)

    def pieces(self, start: int, stop: int) -> Generator[bytes]:
        """The bytes from `start` up to `stop`. Raises EOFError where a file is shorter than it was."""
        begins = 0
        for part in self.parts:
            ends = begins + part_size(part)
            if begins < stop and start < ends:
                yield from part_pieces(part, max(start, begins) - begins, min(stop, ends) - begins)
            begins = ends


def part_size(part: Part) -> int:
    return part.size if isinstance(part, StoredFile) else len(part)


def part_pieces(part: Part, start: int, stop: int) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part[start:stop]
        return
    with part.open() as file:
        file.seek(start)
        remaining = stop - start
        while remaining:
            block = file.read(min(remaining, STORED_PIECE_BYTES))
            if not block:
                raise EOFError("a file became shorter while it was sent")
            remaining -= len(block)
            yield block


class RangeNotSatisfiable(Exception):
    """A range that begins behind the end."""


def send_content(request: HttpRequest, content: Content, name: str) -> HttpResponseBase:
    """The content as a file, or the one range of it that is asked for. Several ranges at once, and a range of another
    version (If-Range), are answered by all of it."""
    size, etag = content.size, f'"{content.version}"'
    try:
        byte_range = wanted_range(request, etag, size)
    except RangeNotSatisfiable:
        response: HttpResponseBase = HttpResponse(status=416, content_type="text/plain")
        response["Content-Range"] = f"bytes */{size}"
        return response
    start, stop = byte_range or (0, size)
    if request.method == "HEAD":
        response = HttpResponse(content_type=type_of(name))
    else:
        response = streamed(request, content.pieces(start, stop), name)
    if byte_range:
        response.status_code = 206
        response["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response["Content-Length"] = str(stop - start)
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    mark_private(response, name)
    return response


def wanted_range(request: HttpRequest, etag: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last, or None for all. Raises RangeNotSatisfiable."""
    match = RANGE.fullmatch(request.headers.get("Range", "").strip())
    if match is None or request.method != "GET" or request.headers.get("If-Range", etag).strip() != etag:
        return None
    first, last = match["first"], match["last"]
    if not first:
        if not last:
            return None
        if not int(last) or not size:
            raise RangeNotSatisfiable
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise RangeNotSatisfiable
    return int(first), min(int(last) + 1, size) if last else size
