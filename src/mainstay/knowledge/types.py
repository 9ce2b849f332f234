"""Nouns of knowledge: documents, immutable versions, chunks with character spans, corpus snapshots.

All offsets are Unicode code points of the version's canonical text, half open `[start, end)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mainstay.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Page `number` (from 1) covers text[start:end]."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading at text[start:end]; level 1 is the outermost."""

    level: int
    title: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ParsedText:
    """Canonical text (NFC, `\\n` line ends, no trailing spaces) with its map of pages and headings."""

    title: str
    text: str
    pages: tuple[PageSpan, ...]
    headings: tuple[Heading, ...]


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """An immutable version of a document. `id` is the digest of its canonical text, map and parser fingerprint.

    `uri` is the path within the corpus source, e.g. `policies/leave.docx`; `number` counts versions of that
    uri in that corpus from 1. `labels` say which groups may see it; empty means everyone.
    """

    id: str
    corpus: str
    uri: str
    number: int
    title: str
    media_type: str
    source_digest: str
    source_bytes: int
    text: str
    pages: tuple[PageSpan, ...]
    headings: tuple[Heading, ...]
    labels: frozenset[str]
    created_at_us: int


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document of a snapshot as lists show it: a `DocumentVersion` without its text and map.

    `characters` is the length of its text in code points; `pages` is 0 for kinds without pages.
    """

    uri: str
    version_id: str
    number: int
    title: str
    media_type: str
    characters: int
    pages: int
    labels: frozenset[str]
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one version: `text == version.text[start:end]`. `id` is a digest of (version, start, end)."""

    id: str
    version_id: str
    ordinal: int
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A set of document versions and the fingerprint of the pipeline that made them; immutable.

    `id` is the digest of (corpus, entries, fingerprint): the same documents give the same snapshot.
    `number` counts the snapshots of the corpus from 1 in order of creation.
    """

    id: str
    corpus: str
    number: int
    entries: Mapping[str, str]
    """uri → version id"""
    fingerprint: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that is not in the snapshot: why, and how to mend it."""

    uri: str
    reason: str
    fix: str | None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync found, against the head before it.

    `snapshot` equals the previous one when nothing changed. `created` is False then, and also when the
    source went back to the content of an older snapshot, to which the head then moves.
    """

    corpus: str
    snapshot: Snapshot
    created: bool
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    failed: tuple[FailedDocument, ...]


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """From one snapshot to another; `changed` maps uri → (old version id, new version id)."""

    old: Snapshot
    new: Snapshot
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """Largest chunk in code points: of running text, and of documents that are one table (CSV).

    One unit that cannot be cut well (a long sentence or row) is cut at a space, so no chunk is longer.
    """

    target_chars: int = 800
    table_target_chars: int = 400

    def __post_init__(self) -> None:
        for name, value in (
            ("target_chars", self.target_chars),
            ("table_target_chars", self.table_target_chars),
        ):
            if not 50 <= value <= 20_000:
                raise InvalidInput(f"Chunk setting {name} is {value}.", fix="Use 50 to 20000 characters.")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One document of a source. `read` returns its bytes; OSError or MainstayError from it fail that document."""

    uri: str
    size_bytes: int
    labels: frozenset[str]
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class SourceListing:
    """Everything a source holds now, sorted by uri, and what it could not offer."""

    files: tuple[SourceFile, ...]
    failed: tuple[FailedDocument, ...] = ()


class Source(Protocol):
    """Where documents come from. A source that cannot be reached raises; it never lists as empty."""

    def list(self) -> SourceListing: ...


Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, uri) after each document."""
