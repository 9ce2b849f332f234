"""One run of syncing a corpus with its source: in small batches, each kept as soon as it is done.

Two levels of skipping: bytes parsed before by the same parser are not parsed again, and text that came
out the same as before makes no new version. The snapshot and the head move in one last transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mainstay.core.clock import Clock
from mainstay.core.content import BlobStore, digest_bytes, digest_json
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import MainstayError
from mainstay.core.faults import fault
from mainstay.govern import Identity, append_audit
from mainstay.knowledge.chunking import chunk_version, chunker_fingerprint
from mainstay.knowledge.parsers import (
    ParseError,
    Parser,
    fingerprint_of,
    media_type_of,
    parser_for,
    registry,
)
from mainstay.knowledge.parsers.worker import ParseWorker, WorkerLimits, parse_here
from mainstay.knowledge.store import KnowledgeStore
from mainstay.knowledge.types import (
    ChunkSettings,
    DocumentVersion,
    FailedDocument,
    ParsedText,
    Progress,
    Snapshot,
    SourceFile,
    SourceListing,
    SyncReport,
)

BATCH_DOCUMENTS = 32
BATCH_BYTES = 32 * 1024 * 1024
PARSED_HERE_BYTES_MAX = 1024 * 1024
"""Larger files go to the worker whatever their kind, for its limits on time and memory."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A document whose bytes were read. `parsed_id` names (corpus, uri, bytes, parser, labels)."""

    file: SourceFile
    parser: Parser
    data: bytes
    digest: str
    parsed_id: str


class Sync:
    """One run; make a new one for each."""

    def __init__(
        self,
        db: Database,
        store: KnowledgeStore,
        blobs: BlobStore,
        clock: Clock,
        limits: WorkerLimits,
        corpus: str,
        chunking: ChunkSettings,
        fingerprint: str,
    ) -> None:
        self._db = db
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
        self._corpus = corpus
        self._chunking = chunking
        self._chunker = chunker_fingerprint(chunking)
        self._fingerprint = fingerprint
        self._entries: dict[str, str] = {}
        self._failed: list[FailedDocument] = []

    def run(self, actor: Identity, listing: SourceListing, progress: Progress) -> SyncReport:
        self._failed.extend(listing.failed)
        total, done = len(listing.files), 0
        with ExitStack() as stack:
            worker = stack.enter_context(ParseWorker(self._limits))
            for batch in _batches(listing.files):
                for uri in self._batch(batch, worker):
                    done += 1
                    progress(done, total, uri)
                fault("knowledge.after_batch")
        fault("knowledge.before_snapshot")
        return self._finish(actor)

    def _batch(self, files: Sequence[SourceFile], worker: ParseWorker) -> Iterator[str]:
        """Read, parse what is new, and commit. Yields each document's uri once it is dealt with."""
        reads = [read for file in files if (read := self._read(file)) is not None]
        known = self._store.parsed([read.parsed_id for read in reads])
        fresh: dict[str, DocumentVersion] = {}
        for read in reads:
            if read.parsed_id not in known:
                version = self._parse(read, worker)
                if version is not None:
                    fresh[read.parsed_id] = version
            yield read.file.uri
        self._keep_bytes(reads, known, fresh)
        self._commit(fresh, known)
        for read in reads:
            version_id = fresh[read.parsed_id].id if read.parsed_id in fresh else known.get(read.parsed_id)
            if version_id is not None:
                self._entries[read.file.uri] = version_id
        yield from sorted({file.uri for file in files} - {read.file.uri for read in reads})

    def _read(self, file: SourceFile) -> _Read | None:
        parser = parser_for(file.uri)
        if parser is None:
            known = sorted({ending for name in registry for ending in registry.get(name).media_types})
            reason = "No parser reads files of this kind."
            self._fail(file.uri, reason, f"Leave it out, or save it as one of {', '.join(known)}.")
            return None
        try:
            data = file.read()
        except OSError as error:
            self._fail(
                file.uri, f"It cannot be read: {error.strerror}.", "Check the file and its permissions."
            )
            return None
        except MainstayError as error:
            self._fail(file.uri, error.message, error.fix)
            return None
        digest = digest_bytes(data)
        key = [self._corpus, file.uri, digest, fingerprint_of(parser), sorted(file.labels)]
        return _Read(file, parser, data, digest, digest_json(key))

    def _parse(self, read: _Read, worker: ParseWorker) -> DocumentVersion | None:
        uri = read.file.uri
        try:
            parsed = _parsed(read, worker)
        except ParseError as error:
            self._fail(uri, error.message, error.fix)
            return None
        return self._version(read, parsed)

    def _version(self, read: _Read, parsed: ParsedText) -> DocumentVersion:
        media_type = media_type_of(read.parser, read.file.uri)
        labels = read.file.labels
        return DocumentVersion(
            id=version_id(
                self._corpus, read.file.uri, media_type, fingerprint_of(read.parser), labels, parsed
            ),
            corpus=self._corpus,
            uri=read.file.uri,
            number=0,  # counted by the store
            title=parsed.title,
            media_type=media_type,
            source_digest=read.digest,
            source_bytes=len(read.data),
            text=parsed.text,
            pages=parsed.pages,
            headings=parsed.headings,
            labels=labels,
            created_at_us=self._clock(),
        )

    def _fail(self, uri: str, reason: str, fix: str | None) -> None:
        self._failed.append(FailedDocument(uri, reason, fix))

    def _keep_bytes(
        self, reads: Sequence[_Read], known: Mapping[str, str], fresh: Mapping[str, DocumentVersion]
    ) -> None:
        """Bytes go before rows, so that no row ever names bytes that are not there."""
        for read in reads:
            if (read.parsed_id in fresh or read.parsed_id in known) and read.digest not in self._blobs:
                self._blobs.put(read.data)

    def _commit(self, fresh: Mapping[str, DocumentVersion], known: Mapping[str, str]) -> None:
        cut = {version.id: chunk_version(version, self._chunking) for version in fresh.values()}
        missing = self._store.without_chunks(sorted(set(known.values()) - cut.keys()), self._chunker)
        for known_id in missing:
            version = self._store.version(known_id)
            assert version is not None, "parsed_sources only names versions that exist"
            cut[known_id] = chunk_version(version, self._chunking)
        if not cut and not fresh:
            return
        with self._db.begin() as conn:
            self._store.lock_corpus(conn, self._corpus)
            for parsed_id, version in fresh.items():
                self._store.add_version(conn, version)
                self._store.remember_parsed(conn, parsed_id, version.id)
            for chunks in cut.values():
                self._store.add_chunks(conn, self._chunker, chunks)

    def _finish(self, actor: Identity) -> SyncReport:
        """The snapshot, the head, the audit row: all or nothing."""
        entries = dict(sorted(self._entries.items()))
        snapshot_id = digest_json(
            {"corpus": self._corpus, "entries": entries, "fingerprint": self._fingerprint}
        )
        with self._db.begin() as conn:
            head_id = self._store.lock_corpus(conn, self._corpus)
            head = self._store.snapshot_in(conn, head_id) if head_id else None
            snapshot = self._store.snapshot_in(conn, snapshot_id)
            created = snapshot is None
            if snapshot is None:
                snapshot = self._store.add_snapshot(
                    conn, snapshot_id, self._corpus, entries, self._fingerprint, self._chunker, self._clock()
                )
            report = self._report(head, snapshot, created)
            if head_id != snapshot_id:
                self._store.move_head(conn, self._corpus, snapshot_id)
                append_audit(conn, actor, "corpus.sync", self._corpus, _audit_detail(report))
                bump_change_counter(conn)
        return report

    def _report(self, head: Snapshot | None, snapshot: Snapshot, created: bool) -> SyncReport:
        before: Mapping[str, str] = head.entries if head is not None else {}
        now = snapshot.entries
        changed = tuple(uri for uri in now if uri in before and before[uri] != now[uri])
        added = tuple(uri for uri in now if uri not in before)
        return SyncReport(
            corpus=self._corpus,
            snapshot=snapshot,
            created=created,
            added=added,
            changed=changed,
            removed=tuple(sorted(before.keys() - now.keys())),
            unchanged=len(now) - len(added) - len(changed),
            failed=tuple(sorted(self._failed, key=lambda failure: failure.uri)),
        )


def _parsed(read: _Read, worker: ParseWorker) -> ParsedText:
    if not read.data:
        raise ParseError("The file is empty.", fix="Fill it or remove it.")
    isolated = read.parser.isolated or len(read.data) > PARSED_HERE_BYTES_MAX
    parse = worker.parse if isolated else parse_here
    parsed = parse(read.parser, read.data, read.file.uri)
    if not parsed.text.strip():
        raise ParseError("The document holds no text.", fix="Fill it or remove it.")
    return parsed


def version_id(
    corpus: str, uri: str, media_type: str, parser: str, labels: frozenset[str], parsed: ParsedText
) -> str:
    """The digest of all that a version says; the bytes it was made from may differ in what does not show."""
    return digest_json(
        {
            "corpus": corpus,
            "uri": uri,
            "media_type": media_type,
            "parser": parser,
            "labels": sorted(labels),
            "title": parsed.title,
            "text": parsed.text,
            "pages": [[p.number, p.start, p.end] for p in parsed.pages],
            "headings": [[h.level, h.title, h.start, h.end] for h in parsed.headings],
        }
    )


def _batches(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """At most so many documents, and so many bytes unless one alone has more."""
    batch: list[SourceFile] = []
    size = 0
    for file in files:
        if batch and (len(batch) == BATCH_DOCUMENTS or size + file.size_bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size_bytes
    if batch:
        yield batch


def _audit_detail(report: SyncReport) -> dict[str, object]:
    return {
        "snapshot": report.snapshot.id,
        "number": report.snapshot.number,
        "added": len(report.added),
        "changed": len(report.changed),
        "removed": len(report.removed),
        "failed": [failure.uri for failure in report.failed[:100]],
    }
