"""What simulated annotators go by: a human-written reference to each prompt. 0 to 10 points, of which training sees
only the annotators' rankings.

5 for being right: the F1 of the content words of reply and reference (as SQuAD scores answers, Rajpurkar et al. 2016),
full at 0.5. 1.5 for keeping to the point: full up to one and a half times the reference's length, none from four times
on. 1.5 for not repeating itself: by the share of its word trigrams that are new. 2 for coming to an end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

RIGHT, POINT, FRESH, ENDS = 5.0, 1.5, 1.5, 2.0
FULL_F1: Final = 0.5
LEAST_WORDS: Final = 12  # a reply of so many words is to the point, however short its reference
STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can could did do does for from had has have he her his how i if in into "
        "is it its just me my no not of on or our she so some such than that the their them then there these they "
        "this those to too was we were what when which who will with would you your ",
    )
)
WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
END: Final = re.compile(r"[.!?…:;)\]\"'”’*`|]\s*$")


@dataclass(frozen=True)
class Points:
    right: float
    point: float
    fresh: float
    ends: float

    @property
    def total(self) -> float:
        return self.right + self.point + self.fresh + self.ends


def words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def content(text: str) -> set[str]:
    """The words that carry meaning, without the ends that grammar gives them."""
    return {stem(word) for word in words(text) if word not in STOP_WORDS}


def stem(word: str) -> str:
    for ending in ("'s", "ing", "ies", "ed", "es", "s", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def points(reply: str, reference: str) -> Points:
    said, meant = content(reply), content(reference)
    common = len(said & meant)
    f1 = 2 * common / (len(said) + len(meant)) if common else 0.0
    spoken = words(reply)
    if not spoken:
        return Points(0.0, 0.0, 0.0, 0.0)
    fair = max(LEAST_WORDS, 1.5 * len(words(reference)))
    excess = (len(spoken) - fair) / (fair * (4 / 1.5 - 1))
    trigrams = list(zip(spoken, spoken[1:], spoken[2:], strict=False))
    new = len(set(trigrams)) / len(trigrams) if trigrams else 1.0
    return Points(
        right=RIGHT * min(1.0, f1 / FULL_F1),
        point=POINT * min(1.0, max(0.0, 1 - excess)),
        fresh=FRESH * max(0.0, (new - 0.5) / 0.5),
        ends=ENDS * bool(END.search(reply.strip()) or len(spoken) <= 3),
    )
