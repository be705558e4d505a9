"""Cleans collected documents: text out of HTML, mended encodings, personal data out, copies out, a part held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from training.contract import OUTPUT, CorpusSettings, DroppedRow, InputError, TextRow
from training.data.cleaning import clean_text_of, language, languages, split_text, text_of_html, without_personal_data
from training.data.duplicates import Originals
from training.run.run import Run


def main(run: Run[CorpusSettings]) -> None:
    settings = run.config
    if settings.language and settings.language not in languages():
        raise InputError(f"language: {settings.language} is not one of {', '.join(languages())}", code="config_invalid")
    documents = run.rows("documents", TextRow)
    originals = Originals(settings.near_duplicates)
    counts: Counter[str] = Counter(documents=len(documents))
    kept_texts: list[TextRow] = []
    heldout: list[TextRow] = []
    dropped: list[DroppedRow] = []
    with run.timed("cleaning"):
        for i, document in enumerate(documents, 1):
            run.stop_if_asked()
            run.progress(i, len(documents), "cleaning")
            for row in cleaned_document(document, settings, originals, counts):
                if isinstance(row, DroppedRow):
                    dropped.append(row)
                else:
                    (heldout if is_held_out(document.text, settings.heldout_fraction) else kept_texts).append(row)
    if not kept_texts:
        raise InputError(
            f"corpus: nothing is left of {len(documents)} documents; {reasons(dropped)}", code="too_few_rows"
        )
    with run.writing(OUTPUT) as folder:
        for name, rows in (("corpus", kept_texts), ("heldout", heldout), ("dropped", dropped)):
            write_text_rows(folder / f"{name}.jsonl", rows)
    counts.update(corpus=len(kept_texts), heldout=len(heldout), dropped=len(dropped))
    counts.update(f"dropped: {row.reason}" for row in dropped)
    figures = {"characters": float(sum(len(row.text) for row in kept_texts)), "kept": len(kept_texts) / len(documents)}
    run.metric(len(documents), figures)
    run.finish(figures, counts=dict(counts))


def cleaned_document(
    document: TextRow, settings: CorpusSettings, originals: Originals, counts: Counter[str]
) -> Iterator[TextRow | DroppedRow]:
    """What becomes of a document: its text, in several pieces where it is long, or why it is dropped."""
    text = clean_text_of(text_of_html(document.text) if document.format == "html" else document.text)
    if settings.strip_personal_data:
        text, hidden = without_personal_data(text)
        counts["personal data replaced"] += hidden
    sections = split_text(text, settings.max_chars) or [""]
    for k, section in enumerate(sections, 1):
        identifier = document.id if len(sections) == 1 else f"{document.id}#{k}"
        reason, detail = objection(identifier, section, settings, originals)
        if reason:
            start = (section or document.text)[:200].replace("\0", "")
            yield DroppedRow(id=identifier, reason=reason, detail=detail, start=start)
        else:
            yield TextRow(id=identifier, text=section, source=document.source)


def objection(identifier: str, text: str, settings: CorpusSettings, originals: Originals) -> tuple[str, str]:
    """Why the text is not kept, and the detail of it; empty if it is."""
    if not text:
        return "no text", ""
    if len(text) < settings.min_chars:
        return "too short", f"{len(text)} characters"
    if settings.language and (detected := language(text)) != settings.language:
        return "other language", detected
    if copied := originals.exact(identifier, text):
        return "copy", copied
    if copied := originals.near(identifier, text):
        return "near copy", copied
    return "", ""


def is_held_out(text: str, fraction: float) -> bool:
    """Decided by the collected text alone, so a document keeps its side in every run, and all its pieces theirs."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < fraction * 2**64


def write_text_rows(path: Path, rows: list[TextRow] | list[DroppedRow]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(row.model_dump_json() + "\n" for row in rows)


def reasons(dropped: list[DroppedRow]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in Counter(row.reason for row in dropped).most_common())
