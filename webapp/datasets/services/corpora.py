"""Collected text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from django.db import transaction

from webapp.accounts.models import Project, User
from webapp.batches import rows_in_batches
from webapp.datasets.models import Corpus, Document
from webapp.errors import BadInput
from webapp.text import clean_text

BATCH = 1000


class NewDocument(NamedTuple):
    text: str
    format: str = "text"
    source_ref: str = ""


class Added(NamedTuple):
    added: int
    duplicates: int
    empty: int


@transaction.atomic
def create_corpus(*, project: Project, name: str, by: User, licence: str = "", origin: str = "") -> Corpus:
    name = name.strip()
    if Corpus.objects.filter(project=project, name=name).exists():
        raise BadInput(f"There is a corpus “{name}” already. Choose another name, or add to that one.", field="name")
    corpus = Corpus(project=project, name=name, created_by=by, licence=licence, origin=origin)
    corpus.full_clean()
    corpus.save()
    return corpus


@transaction.atomic
def add_documents(*, corpus: Corpus, documents: Iterable[NewDocument]) -> Added:
    """Add what the corpus does not have yet; a document is known by the sha256 of its text."""
    added = duplicates = empty = 0
    documents = iter(documents)
    while batch := list(islice(documents, BATCH)):
        fresh: dict[str, Document] = {}
        for document in batch:
            text = clean_text(document.text)
            if not text.strip():
                empty += 1
                continue
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            fresh.setdefault(
                sha256,
                Document(
                    corpus=corpus,
                    text=text,
                    format=document.format,
                    sha256=sha256,
                    source_ref=document.source_ref[:300],
                ),
            )
        existing = set(corpus.documents.filter(sha256__in=fresh).values_list("sha256", flat=True))
        new = [document for sha256, document in fresh.items() if sha256 not in existing]
        Document.objects.bulk_create(new, ignore_conflicts=True)
        added += len(new)
        duplicates += len(batch) - len(new)
    return Added(added, duplicates - empty, empty)


def documents_of(corpora: Iterable[int], project: Project) -> Iterator[Document]:
    """The documents of these corpora of a project, of all its corpora where none is named, oldest first."""
    chosen = Document.objects.filter(corpus__project=project)
    if ids := list(corpora):
        chosen = chosen.filter(corpus_id__in=ids)
    return rows_in_batches(chosen.select_related("corpus"), BATCH)
