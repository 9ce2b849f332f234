"""Corpora, snapshots and their differences, and one document version with a span lit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mainstay.core.errors import InvalidInput, NotFound
from mainstay.govern import AuditLog, Identity
from mainstay.knowledge import Library
from mainstay.knowledge.types import DocumentVersion, ListedDocument, Snapshot, SnapshotDiff
from mainstay.services import Services, may_see, visible_version


@dataclass(frozen=True, slots=True)
class CorpusLine:
    name: str
    head: Snapshot
    snapshots: int


@dataclass(frozen=True, slots=True)
class CorpusView:
    name: str
    head: Snapshot
    documents: tuple[ListedDocument, ...]
    snapshots: tuple[Snapshot, ...]
    diff: SnapshotDiff | None
    unread: Unread | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """Files that the last sync that changed the corpus could not read. `uris` may be cut; see `SyncReport`."""

    at_us: int
    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of a block; `cited` pieces are shown marked, `first` carries the anchor."""

    text: str
    cited: bool
    first: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """What a document shows in order: `page` (a marker), `heading` or `text`. `level` 1 is outermost."""

    kind: str
    pieces: tuple[Piece, ...] = ()
    page: int | None = None
    level: int = 0


@dataclass(frozen=True, slots=True)
class DocumentView:
    version: DocumentVersion
    blocks: tuple[Block, ...]
    versions: tuple[DocumentVersion, ...]
    span: tuple[int, int] | None
    quote: str
    cited_page: int | None


def corpus_lines(library: Library) -> tuple[CorpusLine, ...]:
    return tuple(CorpusLine(c, library.head(c), len(library.snapshots(c))) for c in library.corpora())


def corpus_view(parts: Services, reader: Identity, name: str, a: int | None, b: int | None) -> CorpusView:
    """The documents the reader may see. Raises NotFound for an unknown corpus or snapshot number."""
    head = parts.library.head(name)
    snapshots = parts.library.snapshots(name)
    documents = tuple(d for d in parts.library.listing(head.id) if may_see(reader, d))
    diff = None
    if a is not None and b is not None:
        found = parts.library.diff(_numbered(snapshots, name, a).id, _numbered(snapshots, name, b).id)
        diff = _without_hidden(parts, reader, found)
    return CorpusView(name, head, documents, snapshots, diff, unread(parts.audit, name))


AUDIT_PAGE, AUDIT_READ_MAX = 200, 2_000


def unread(audit: AuditLog, corpus: str) -> Unread | None:
    """From the newest audit row of a sync of this corpus; None when it read all, or lies too far back.

    A sync that changes nothing leaves no row, so this is what was true at the last change.
    """
    before: int | None = None
    for _ in range(AUDIT_READ_MAX // AUDIT_PAGE):
        entries = audit.list(before=before, limit=AUDIT_PAGE)
        for entry in entries:
            if entry.action == "corpus.sync" and entry.target == corpus:
                failed = entry.detail.get("failed")
                uris = tuple(str(uri) for uri in failed) if isinstance(failed, list) else ()
                return Unread(entry.at_us, uris) if uris else None
        if len(entries) < AUDIT_PAGE:
            return None
        before = entries[-1].sequence
    return None


def _without_hidden(parts: Services, reader: Identity, diff: SnapshotDiff) -> SnapshotDiff:
    """The difference without documents that the reader may not see, so that their names stay hidden too."""

    def seen(version_id: str) -> bool:
        return may_see(reader, parts.library.version(version_id))

    return replace(
        diff,
        added=tuple(u for u in diff.added if seen(diff.new.entries[u])),
        removed=tuple(u for u in diff.removed if seen(diff.old.entries[u])),
        changed={u: pair for u, pair in diff.changed.items() if seen(pair[0]) and seen(pair[1])},
    )


def numbered(library: Library, corpus: str, number: int) -> Snapshot:
    return _numbered(library.snapshots(corpus), corpus, number)


def _numbered(snapshots: Sequence[Snapshot], corpus: str, number: int) -> Snapshot:
    for snapshot in snapshots:
        if snapshot.number == number:
            return snapshot
    known = ", ".join(f"#{s.number}" for s in snapshots)
    raise NotFound(f"Corpus {corpus!r} has no snapshot #{number}.", fix=f"Known: {known}.")


def document_view(
    parts: Services, reader: Identity, version_id: str, start: int | None, end: int | None
) -> DocumentView:
    """Raises NotFound, also for what the reader may not see; InvalidInput for a span outside the text."""
    version = visible_version(parts, reader, version_id)
    span = None
    if start is not None and end is not None:
        if not 0 <= start < end <= len(version.text):
            raise InvalidInput(
                f"Characters {start} to {end} lie outside this document of {len(version.text)}."
            )
        span = (start, end)
    every = parts.library.versions(version.corpus, version.uri)
    versions = tuple(v for v in every if may_see(reader, v))
    page = _page_at(version, span[0]) if span else None
    quote = version.text[span[0] : span[1]] if span else ""
    return DocumentView(version, tuple(blocks(version, span)), versions, span, quote, page)


def _page_at(version: DocumentVersion, offset: int) -> int | None:
    return next((p.number for p in version.pages if p.start <= offset < p.end), None)


def blocks(version: DocumentVersion, span: tuple[int, int] | None) -> Iterator[Block]:
    """The whole text as blocks: no character is lost but line breaks at block ends, none is added."""
    pages = {p.start: p.number for p in version.pages}
    headings = {h.start: h for h in version.headings}
    cuts = sorted({0, len(version.text), *pages, *headings, *(h.end for h in version.headings)})
    seen_cited = False
    for start, end in pairwise(cuts):
        if start in pages:
            yield Block("page", page=pages[start])
        heading = headings.get(start)
        for low, high in _paragraphs(version.text, start, end) if heading is None else [(start, end)]:
            pieces = tuple(_pieces(version.text, low, high, span, seen_cited))
            seen_cited = seen_cited or any(p.cited for p in pieces)
            if pieces:
                yield Block(
                    "text" if heading is None else "heading", pieces, level=heading.level if heading else 0
                )


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Parts between blank lines, without the blank lines."""
    at = start
    while at < end:
        stop = text.find("\n\n", at, end)
        stop = end if stop < 0 else stop
        if text[at:stop].strip("\n"):
            yield at, stop
        at = stop + 2
        while at < end and text[at] == "\n":
            at += 1


def _pieces(text: str, low: int, high: int, span: tuple[int, int] | None, seen: bool) -> Iterator[Piece]:
    while low < high and text[low] == "\n":
        low += 1
    while high > low and text[high - 1] == "\n":
        high -= 1
    if span is None or span[1] <= low or span[0] >= high:
        if high > low:
            yield Piece(text[low:high], cited=False)
        return
    start, end = max(low, span[0]), min(high, span[1])
    if start > low:
        yield Piece(text[low:start], cited=False)
    yield Piece(text[start:end], cited=True, first=not seen)
    if end < high:
        yield Piece(text[end:high], cited=False)
