"""Parquet and Arrow files, a batch of rows at a time."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import IO, Any, Final

from webapp.data.locations import Location, Record
from webapp.data.packing import Budget
from webapp.errors import BadInput

MAX_ROWS: Final = 1000
BATCH_BYTES: Final = 64 * 1024 * 1024
SLICE: Final = 64
COPY: Final = 1024 * 1024


def seekable(stream: io.BufferedReader, raw: IO[bytes], *, packed: bool) -> IO[bytes]:
    """A file to seek in: the file itself, or a copy on the disk of one that is packed (the budget bounds it)."""
    if not packed:
        return raw
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
    while data := stream.read(COPY):
        copy.write(data)
    copy.seek(0)
    return copy


def read_parquet(file: IO[bytes], name: str, budget: Budget) -> Iterator[tuple[Location, Record]]:
    # Here, because it takes 90 MB that no process needs before it reads such a file.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=COPY) as table:
            yield from numbered(table.iter_batches(batch_rows(table.metadata)), name, budget)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise BadInput(f"{name}: not a Parquet file, or a damaged one ({str(error)[:200]}).") from error


def batch_rows(metadata: Any) -> int:
    """How many rows to unpack at once. A value that is written once and named by many rows counts for each of them."""
    largest = 1
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        for column in range(rows.num_columns):
            chunk = rows.column(column)
            if chunk.has_dictionary_page:
                largest = max(largest, chunk.total_uncompressed_size)
        largest = max(largest, rows.total_byte_size // max(1, rows.num_rows))
    return max(1, min(MAX_ROWS, 4 * BATCH_BYTES // largest))


def read_arrow(file: IO[bytes], name: str, budget: Budget) -> Iterator[tuple[Location, Record]]:
    """An Arrow file, or a stream as `datasets` saves it."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        source = pa.PythonFile(file, "r")
        if source.read(6) == b"ARROW1":
            source.seek(0)
            opened = pa.ipc.open_file(source)
            batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
            yield from numbered(batches, name, budget)
        else:
            source.seek(0)
            yield from numbered(pa.ipc.open_stream(source), name, budget)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise BadInput(f"{name}: not an Arrow file, or a damaged one ({str(error)[:200]}).") from error


def numbered(batches: Any, name: str, budget: Budget) -> Iterator[tuple[Location, Record]]:
    number = 0
    for batch in batches:
        budget.spend(batch.nbytes, name)
        for start in range(0, batch.num_rows, SLICE):
            for record in batch.slice(start, SLICE).to_pylist():
                number += 1
                yield Location(name, number), record
