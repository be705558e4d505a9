"""Files that are made while they are sent: the first byte goes out early, and only a piece of them is in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from datetime import UTC, datetime
from typing import Final

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, StreamingHttpResponse

PIECE_BYTES: Final = 64 * 1024
TYPES: Final = {"jsonl": "application/jsonl", "json": "application/json", "csv": "text/csv"}


def download(request: HttpRequest, lines: Iterator[str | bytes], name: str) -> StreamingHttpResponse:
    """The lines as a file that no cache keeps. They are made in a thread, a piece at a time, when the client asks for
    more; between two pieces no connection to the database is held, and a client that leaves ends them."""
    blocks = joined_lines(lines)
    kind = TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    response = StreamingHttpResponse(
        iterate_in_thread(blocks) if isinstance(request, ASGIRequest) else blocks, content_type=f"{kind}; charset=utf-8"
    )
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response


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
