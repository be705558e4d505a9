"""A tar archive whose every byte is known before any file is read, so that it can be sent from any byte on.

Nothing of it is kept on a disk. A header holds no checksum of the file's content, as one of a zip would.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import Final

from webapp.downloads import Part, part_size

END: Final = b"\0" * (2 * tarfile.BLOCKSIZE)


def tar_parts(files: Iterable[tuple[str, Part]], modified: int) -> list[Part]:
    """The archive of files by name, all as old as `modified` (seconds since 1970), in pieces that follow each other.
    Files of 8 GiB and more get the size field of GNU tar, which other programs read, too."""
    chunks: list[Part] = []
    for name, content in files:
        size = part_size(content)
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = size, modified, 0o644
        chunks += [header.tobuf(tarfile.GNU_FORMAT, "utf-8"), content, b"\0" * (-size % tarfile.BLOCKSIZE)]
    return [*chunks, END]
