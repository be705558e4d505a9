"""Finds documents that are copies of earlier ones, exactly or nearly (Broder 1997; MinHash with banded hashing)."""

from __future__ import annotations

import re
import zlib
from typing import Final

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
WORDS: Final = 5
PERMUTATIONS: Final = 64
MIX: Final = np.uint64(0x9E3779B97F4A7C15)


class WordHashes(dict[str, int]):
    """Remembers the hash of each word it was asked for: a language repeats itself."""

    def __missing__(self, word: str) -> int:
        return self.setdefault(word, zlib.crc32(word.encode()))


WORD_HASHES: Final = WordHashes()


class Originals:
    """The documents seen so far. threshold: Jaccard similarity of word 5-grams from which one is a copy; 1 turns the
    search for near copies off."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._exact: dict[str, str] = {}
        self._grams: dict[str, Hashes] = {}
        self._sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS) if threshold < 1 else None

    def exact(self, identifier: str, text: str) -> str:
        """The document with the same words, case and spacing aside; empty, and remembered, if there is none."""
        return self._exact.setdefault(" ".join(text.casefold().split()), identifier).removeprefix(identifier)

    def near(self, identifier: str, text: str) -> str:
        """A document at least as similar as the threshold; empty, and remembered, if there is none.

        The index proposes, the 5-grams themselves decide.
        """
        if self._index is None:
            return ""
        grams = five_grams(text)
        sketch = self._sketch.copy()
        sketch.update_batch(grams & np.uint64(0xFFFFFFFF))
        for candidate in sorted(self._index.query(sketch)):
            if jaccard(grams, self._grams[candidate]) >= self.threshold:
                return str(candidate)
        self._index.insert(identifier, sketch, check_duplication=False)
        self._grams[identifier] = grams
        return ""


def five_grams(text: str) -> Hashes:
    """Sorted distinct 64-bit hashes of the runs of 5 words; of the whole text where it has fewer."""
    words = re.findall(r"\w+", text.casefold())
    hashes = np.fromiter(map(WORD_HASHES.__getitem__, words), dtype=np.uint64, count=len(words))
    width = min(WORDS, len(hashes))
    total = np.zeros(max(1, len(hashes) - WORDS + 1), dtype=np.uint64)
    for i in range(width):
        total = (total ^ hashes[i : i + len(total)]) * MIX
        total ^= total >> np.uint64(29)
    return np.unique(total)


def jaccard(a: Hashes, b: Hashes) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
