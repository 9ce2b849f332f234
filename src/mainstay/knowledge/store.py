"""Tables and queries of knowledge. Rows are only ever added; the one pointer that moves is a corpus's head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from mainstay.core.database import Database, Json, metadata
from mainstay.knowledge.types import Chunk, DocumentVersion, Heading, ListedDocument, PageSpan, Snapshot

_DIGEST = sa.String(71)
_URI = sa.String(1200)
_CORPUS = sa.String(200)

document_versions = sa.Table(
    "document_versions",
    metadata,
    sa.Column("id", _DIGEST, primary_key=True),
    sa.Column("corpus", _CORPUS, nullable=False),
    sa.Column("uri", _URI, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("media_type", sa.String(200), nullable=False),
    sa.Column("source_digest", _DIGEST, nullable=False),
    sa.Column("source_bytes", sa.BigInteger, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("pages", Json, nullable=False),
    sa.Column("headings", Json, nullable=False),
    sa.Column("labels", Json, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("corpus", "uri", "number"),
)

# What was parsed before: `id` is the digest of (corpus, uri, bytes, parser, labels).
parsed_sources = sa.Table(
    "parsed_sources",
    metadata,
    sa.Column("id", _DIGEST, primary_key=True),
    sa.Column(
        "version_id",
        _DIGEST,
        sa.ForeignKey("document_versions.id", name="fk_parsed_sources_version_id", ondelete="CASCADE"),
        nullable=False,
    ),
)

chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column(
        "version_id",
        _DIGEST,
        sa.ForeignKey("document_versions.id", name="fk_chunks_version_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("chunker", _DIGEST, primary_key=True),
    sa.Column("ordinal", sa.Integer, primary_key=True),
    sa.Column("id", _DIGEST, nullable=False, index=True),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("page", sa.Integer, nullable=True),
    sa.Column("heading_path", Json, nullable=False),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", _DIGEST, primary_key=True),
    sa.Column("corpus", _CORPUS, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("fingerprint", _DIGEST, nullable=False),
    sa.Column("chunker", _DIGEST, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("corpus", "number"),
)

snapshot_entries = sa.Table(
    "snapshot_entries",
    metadata,
    sa.Column(
        "snapshot_id",
        _DIGEST,
        sa.ForeignKey("snapshots.id", name="fk_snapshot_entries_snapshot_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("uri", _URI, primary_key=True),
    sa.Column(
        "version_id",
        _DIGEST,
        sa.ForeignKey("document_versions.id", name="fk_snapshot_entries_version_id"),
        nullable=False,
        index=True,
    ),
)

corpora = sa.Table(
    "corpora",
    metadata,
    sa.Column("name", _CORPUS, primary_key=True),
    sa.Column(
        "head_snapshot_id",
        _DIGEST,
        sa.ForeignKey("snapshots.id", name="fk_corpora_head_snapshot_id"),
        nullable=True,
    ),
)


class KnowledgeStore:
    """Queries on one connection each: reads open their own, writes take the caller's transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # corpora and their heads

    def lock_corpus(self, conn: sa.Connection, corpus: str) -> str | None:
        """Hold the corpus for this transaction, made when new; returns its head snapshot's id."""
        conn.execute(self._db.upsert(corpora).values(name=corpus).on_conflict_do_nothing())
        query = sa.select(corpora.c.head_snapshot_id).where(corpora.c.name == corpus).with_for_update()
        head: str | None = conn.execute(query).scalar_one()
        return head

    def move_head(self, conn: sa.Connection, corpus: str, snapshot_id: str) -> None:
        conn.execute(corpora.update().where(corpora.c.name == corpus).values(head_snapshot_id=snapshot_id))

    def corpora(self) -> tuple[str, ...]:
        query = sa.select(corpora.c.name).where(corpora.c.head_snapshot_id.is_not(None))
        with self._db.read() as conn:
            return tuple(conn.scalars(query.order_by(corpora.c.name)))

    def head_id(self, corpus: str) -> str | None:
        with self._db.read() as conn:
            return conn.scalar(sa.select(corpora.c.head_snapshot_id).where(corpora.c.name == corpus))

    # snapshots

    def snapshot(self, snapshot_id: str) -> Snapshot | None:
        with self._db.read() as conn:
            return self.snapshot_in(conn, snapshot_id)

    def snapshot_in(self, conn: sa.Connection, snapshot_id: str) -> Snapshot | None:
        row = conn.execute(sa.select(snapshots).where(snapshots.c.id == snapshot_id)).one_or_none()
        if row is None:
            return None
        query = sa.select(snapshot_entries.c.uri, snapshot_entries.c.version_id)
        entries: dict[str, str] = _mapping(conn.execute(query.where(_entry_of(snapshot_id))))
        return _snapshot(row, dict(sorted(entries.items())))

    def snapshots(self, corpus: str) -> tuple[Snapshot, ...]:
        """All of a corpus, newest first."""
        query = sa.select(snapshots.c.id).where(snapshots.c.corpus == corpus)
        with self._db.read() as conn:
            ids = conn.scalars(query.order_by(snapshots.c.number.desc())).all()
            return tuple(s for i in ids if (s := self.snapshot_in(conn, i)) is not None)

    def add_snapshot(
        self,
        conn: sa.Connection,
        snapshot_id: str,
        corpus: str,
        entries: Mapping[str, str],
        fingerprint: str,
        chunker: str,
        created_at_us: int,
    ) -> Snapshot:
        """The corpus must be locked, as this takes its next number."""
        newest = sa.select(sa.func.max(snapshots.c.number)).where(snapshots.c.corpus == corpus)
        number = (conn.scalar(newest) or 0) + 1
        conn.execute(
            snapshots.insert().values(
                id=snapshot_id,
                corpus=corpus,
                number=number,
                fingerprint=fingerprint,
                chunker=chunker,
                created_at_us=created_at_us,
            )
        )
        rows = [{"snapshot_id": snapshot_id, "uri": u, "version_id": v} for u, v in entries.items()]
        if rows:
            conn.execute(snapshot_entries.insert(), rows)
        return Snapshot(snapshot_id, corpus, number, entries, fingerprint, created_at_us)

    # versions

    def parsed(self, ids: Sequence[str]) -> dict[str, str]:
        """parsed-source id → version id, of those known."""
        with self._db.read() as conn:
            query = sa.select(parsed_sources.c.id, parsed_sources.c.version_id)
            return _mapping(conn.execute(query.where(parsed_sources.c.id.in_(ids))))

    def add_version(self, conn: sa.Connection, version: DocumentVersion) -> None:
        """Nothing happens when it is there already. The corpus must be locked; `number` is set here."""
        known = conn.scalar(sa.select(document_versions.c.id).where(document_versions.c.id == version.id))
        if known is not None:
            return
        newest = sa.select(sa.func.max(document_versions.c.number)).where(
            document_versions.c.corpus == version.corpus, document_versions.c.uri == version.uri
        )
        number = (conn.scalar(newest) or 0) + 1
        conn.execute(document_versions.insert().values(**_version_row(version) | {"number": number}))

    def remember_parsed(self, conn: sa.Connection, parsed_id: str, version_id: str) -> None:
        row = {"id": parsed_id, "version_id": version_id}
        conn.execute(self._db.upsert(parsed_sources).values(row).on_conflict_do_nothing())

    def version(self, version_id: str) -> DocumentVersion | None:
        query = sa.select(document_versions).where(document_versions.c.id == version_id)
        with self._db.read() as conn:
            row = conn.execute(query).one_or_none()
        return _version(row) if row is not None else None

    def versions(self, corpus: str, uri: str) -> tuple[DocumentVersion, ...]:
        """Newest first."""
        query = sa.select(document_versions).where(
            document_versions.c.corpus == corpus, document_versions.c.uri == uri
        )
        with self._db.read() as conn:
            return tuple(map(_version, conn.execute(query.order_by(document_versions.c.number.desc()))))

    def listing(self, snapshot_id: str) -> tuple[ListedDocument, ...]:
        """By uri. The database measures the texts, so that none is sent."""
        entry, version = snapshot_entries.c, document_versions.c
        query = (
            sa.select(
                entry.uri, version.id, version.number, version.title, version.media_type,
                sa.func.length(version.text), version.pages, version.labels, version.created_at_us,
            )
            .join_from(snapshot_entries, document_versions)
            .where(_entry_of(snapshot_id))
            .order_by(entry.uri)
        )  # fmt: skip
        with self._db.read() as conn:
            return tuple(
                ListedDocument(*row[:6], len(row[6]), frozenset(row[7]), row[8])
                for row in conn.execute(query)
            )

    # chunks

    def without_chunks(self, version_ids: Sequence[str], chunker: str) -> set[str]:
        """Those of the versions that this chunker has not cut yet."""
        query = sa.select(chunks.c.version_id).distinct()
        query = query.where(chunks.c.version_id.in_(version_ids), chunks.c.chunker == chunker)
        with self._db.read() as conn:
            return set(version_ids) - set(conn.scalars(query))

    def add_chunks(self, conn: sa.Connection, chunker: str, cut: Iterable[Chunk]) -> None:
        rows = [_chunk_row(chunker, chunk) for chunk in cut]
        if rows:
            conn.execute(self._db.upsert(chunks).on_conflict_do_nothing(), rows)

    def chunk(self, chunk_id: str) -> Chunk | None:
        query = sa.select(chunks, document_versions.c.text).join_from(chunks, document_versions)
        with self._db.read() as conn:
            row = conn.execute(query.where(chunks.c.id == chunk_id).limit(1)).one_or_none()
        return _chunk(row, row.text) if row is not None else None

    def chunks(self, snapshot_id: str) -> Iterator[Chunk]:
        """All chunks of a snapshot by uri and ordinal, read in pages of documents."""
        after = ""
        while page := self._entries_after(snapshot_id, after):
            yield from self._chunks_of(snapshot_id, [version for _, version in page])
            after = page[-1][0]

    def _entries_after(self, snapshot_id: str, uri: str) -> list[tuple[str, str]]:
        entry = snapshot_entries.c
        query = sa.select(entry.uri, entry.version_id).where(_entry_of(snapshot_id), entry.uri > uri)
        with self._db.read() as conn:
            return [(u, v) for u, v in conn.execute(query.order_by(entry.uri).limit(32))]

    def _chunks_of(self, snapshot_id: str, version_ids: Sequence[str]) -> Iterator[Chunk]:
        chunker = sa.select(snapshots.c.chunker).where(snapshots.c.id == snapshot_id).scalar_subquery()
        query = sa.select(chunks).where(chunks.c.version_id.in_(version_ids), chunks.c.chunker == chunker)
        texts = sa.select(document_versions.c.id, document_versions.c.text)
        with self._db.read() as conn:
            rows = conn.execute(query.order_by(chunks.c.version_id, chunks.c.ordinal)).all()
            text_of = _mapping(conn.execute(texts.where(document_versions.c.id.in_(version_ids))))
        by_version = {version: list(group) for version, group in groupby(rows, key=lambda r: r.version_id)}
        for version_id in version_ids:
            for row in by_version.get(version_id, []):
                yield _chunk(row, text_of[version_id])


def _mapping(rows: Iterable[Any]) -> dict[str, str]:
    """The first column to the second."""
    return {row[0]: row[1] for row in rows}


def _entry_of(snapshot_id: str) -> sa.ColumnElement[bool]:
    return snapshot_entries.c.snapshot_id == snapshot_id


def _snapshot(row: Any, entries: Mapping[str, str]) -> Snapshot:
    return Snapshot(row.id, row.corpus, row.number, entries, row.fingerprint, row.created_at_us)


def _version_row(version: DocumentVersion) -> dict[str, Any]:
    return {
        "id": version.id,
        "corpus": version.corpus,
        "uri": version.uri,
        "number": version.number,
        "title": version.title,
        "media_type": version.media_type,
        "source_digest": version.source_digest,
        "source_bytes": version.source_bytes,
        "text": version.text,
        "pages": [[p.number, p.start, p.end] for p in version.pages],
        "headings": [[h.level, h.title, h.start, h.end] for h in version.headings],
        "labels": sorted(version.labels),
        "created_at_us": version.created_at_us,
    }


def _version(row: Any) -> DocumentVersion:
    return DocumentVersion(
        id=row.id,
        corpus=row.corpus,
        uri=row.uri,
        number=row.number,
        title=row.title,
        media_type=row.media_type,
        source_digest=row.source_digest,
        source_bytes=row.source_bytes,
        text=row.text,
        pages=tuple(PageSpan(*page) for page in row.pages),
        headings=tuple(Heading(*heading) for heading in row.headings),
        labels=frozenset(row.labels),
        created_at_us=row.created_at_us,
    )


def _chunk_row(chunker: str, chunk: Chunk) -> dict[str, Any]:
    return {
        "version_id": chunk.version_id,
        "chunker": chunker,
        "ordinal": chunk.ordinal,
        "id": chunk.id,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "heading_path": list(chunk.heading_path),
    }


def _chunk(row: Any, text: str) -> Chunk:
    return Chunk(
        id=row.id,
        version_id=row.version_id,
        ordinal=row.ordinal,
        start=row.start,
        end=row.end,
        page=row.page,
        heading_path=tuple(row.heading_path),
        text=text[row.start : row.end],
    )
