"""The library: corpora, their snapshots, and everything in them. Syncing is in `sync.py`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from mainstay.core.clock import Clock, now_us
from mainstay.core.content import BlobStore, digest_json
from mainstay.core.database import Database, bump_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound, did_you_mean
from mainstay.govern import Identity, append_audit
from mainstay.knowledge.chunking import chunker_fingerprint
from mainstay.knowledge.parsers import fingerprint_of, registry
from mainstay.knowledge.parsers.worker import WorkerLimits
from mainstay.knowledge.store import KnowledgeStore
from mainstay.knowledge.sync import Sync
from mainstay.knowledge.types import (
    Chunk,
    ChunkSettings,
    DocumentVersion,
    ListedDocument,
    Progress,
    Snapshot,
    SnapshotDiff,
    Source,
    SyncReport,
)

CORPUS_NAME_CHARS_MAX = 200


def pipeline_fingerprint(chunking: ChunkSettings) -> str:
    """The digest of everything but the documents that shapes a snapshot: parsers, chunker and its settings."""
    return digest_json(
        {
            "parsers": [fingerprint_of(registry.get(name)) for name in registry],
            "chunker": chunker_fingerprint(chunking),
        }
    )


class Library:
    """All corpora of one control database, with the original bytes in `blobs`. Safe to share between threads."""

    def __init__(
        self, db: Database, blobs: BlobStore, clock: Clock = now_us, limits: WorkerLimits | None = None
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._limits = limits or WorkerLimits()
        self._store = KnowledgeStore(db)
        registry.load_entry_points()

    def sync(
        self,
        actor: Identity,
        corpus: str,
        source: Source,
        chunking: ChunkSettings | None = None,
        progress: Progress | None = None,
    ) -> SyncReport:
        """Bring a corpus to what its source holds now: one new snapshot, or none when nothing changed.

        Unchanged documents are not parsed again. Documents that cannot be read are reported and are not in
        the snapshot. May be killed at any time: what was done is kept, and syncing again ends the same.
        """
        if not 0 < len(corpus) <= CORPUS_NAME_CHARS_MAX:
            raise InvalidInput(f"{corpus!r} is no name for a corpus.", fix="Use 1 to 200 characters.")
        chunking = chunking or ChunkSettings()
        run = Sync(
            self._db, self._store, self._blobs, self._clock, self._limits, corpus, chunking,
            pipeline_fingerprint(chunking),
        )  # fmt: skip
        return run.run(actor, source.list(), progress or (lambda done, total, uri: None))

    def corpora(self) -> tuple[str, ...]:
        """Names of all corpora that hold a snapshot, sorted."""
        return self._store.corpora()

    def head(self, corpus: str) -> Snapshot:
        """The snapshot a corpus stands at. Raises NotFound for a corpus never synced."""
        head_id = self._store.head_id(corpus)
        if head_id is None:
            raise NotFound(f"No corpus is called {corpus!r}.", fix=did_you_mean(corpus, self.corpora()))
        return self.snapshot(head_id)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        found = self._store.snapshot(snapshot_id)
        if found is None:
            raise NotFound(f"There is no snapshot {snapshot_id!r}.")
        return found

    def snapshots(self, corpus: str) -> tuple[Snapshot, ...]:
        """All snapshots of a corpus, newest first."""
        return self._store.snapshots(corpus)

    def listing(self, snapshot_id: str) -> tuple[ListedDocument, ...]:
        """A snapshot's documents by uri, without reading their texts. Raises NotFound."""
        self.snapshot(snapshot_id)
        return self._store.listing(snapshot_id)

    def set_head(self, actor: Identity, corpus: str, snapshot_id: str) -> Snapshot:
        """Move a corpus to another of its snapshots, as in a rollback. Audited as `corpus.set_head`."""
        snapshot = self.snapshot(snapshot_id)
        if snapshot.corpus != corpus:
            raise Conflict(
                f"That snapshot belongs to the corpus {snapshot.corpus!r}, not {corpus!r}.",
                fix="Choose one of this corpus's snapshots.",
            )
        with self._db.begin() as conn:
            before = self._store.lock_corpus(conn, corpus)
            if before != snapshot_id:
                self._store.move_head(conn, corpus, snapshot_id)
                detail = {"from": before, "to": snapshot_id, "number": snapshot.number}
                append_audit(conn, actor, "corpus.set_head", corpus, detail)
                bump_change_counter(conn)
        return snapshot

    def diff(self, old_id: str, new_id: str) -> SnapshotDiff:
        """Which documents differ between two snapshots."""
        old, new = self.snapshot(old_id), self.snapshot(new_id)
        both = old.entries.keys() & new.entries.keys()
        return SnapshotDiff(
            old,
            new,
            added=tuple(sorted(new.entries.keys() - old.entries.keys())),
            removed=tuple(sorted(old.entries.keys() - new.entries.keys())),
            changed={
                uri: (old.entries[uri], new.entries[uri])
                for uri in sorted(both)
                if old.entries[uri] != new.entries[uri]
            },
        )

    def text_diff(self, old_version_id: str, new_version_id: str, context_lines: int = 3) -> str:
        """A unified diff of two versions' canonical texts; empty when those are equal."""
        old, new = self.version(old_version_id), self.version(new_version_id)
        lines = difflib.unified_diff(
            old.text.split("\n"),
            new.text.split("\n"),
            f"{old.uri} v{old.number}",
            f"{new.uri} v{new.number}",
            lineterm="",
            n=context_lines,
        )
        return "\n".join(lines)

    def version(self, version_id: str) -> DocumentVersion:
        found = self._store.version(version_id)
        if found is None:
            raise NotFound(f"There is no document version {version_id!r}.")
        return found

    def versions(self, corpus: str, uri: str) -> tuple[DocumentVersion, ...]:
        """All versions of a document, newest first; empty for a document never seen."""
        return self._store.versions(corpus, uri)

    def chunks(self, snapshot_id: str) -> Iterator[Chunk]:
        """All chunks of a snapshot by uri and place, a few documents in memory at a time."""
        self.snapshot(snapshot_id)
        return self._store.chunks(snapshot_id)

    def chunk(self, chunk_id: str) -> Chunk:
        found = self._store.chunk(chunk_id)
        if found is None:
            raise NotFound(f"There is no chunk {chunk_id!r}.")
        return found

    def source_bytes(self, version: DocumentVersion) -> bytes:
        """The bytes the version was made from. Raises NotFound when they are gone or damaged."""
        return self._blobs.get(version.source_digest)
