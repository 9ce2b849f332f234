"""Indexes of snapshots on disk: derived from the library, built beside, switched by a rename, thrown away freely."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mainstay.core.content import digest_json, short, write_atomically
from mainstay.core.errors import Unavailable
from mainstay.core.faults import fault
from mainstay.knowledge.types import Chunk, DocumentVersion, PageSpan, Snapshot
from mainstay.retrieval.answerable import AnswerableModel
from mainstay.retrieval.segment import CHUNKS_NAME, VECTORS_NAME, Segment
from mainstay.retrieval.stores.chunk_table import ChunkTableWriter
from mainstay.retrieval.stores.vector_cache import VectorCache
from mainstay.retrieval.types import Embedder, RetrievalSettings, Retrieved

Progress = Callable[[int, int], None]
"""Called with (chunks embedded so far, chunks in all)."""

_FORMAT = "2"
_META_NAME = "meta.json"
_BUILD_PREFIX = ".build-"
_BATCH_CHUNKS = 64
_OPEN_MAX = 32
"""Opened indexes that are kept; each holds a file and the access class of every chunk."""


class SnapshotReader(Protocol):
    """What retrieval needs of the library."""

    def snapshot(self, snapshot_id: str) -> Snapshot: ...

    def version(self, version_id: str) -> DocumentVersion: ...

    def chunks(self, snapshot_id: str) -> Iterator[Chunk]: ...


class IndexNotReady(Unavailable):
    code = "index_not_ready"

    def __init__(self, snapshot_id: str) -> None:
        super().__init__(
            f"The index of corpus snapshot {short(snapshot_id)} is not built.",
            fix="Run `mainstay up` or sync the corpus again; the index is rebuilt from the stored documents.",
        )


class Indexes:
    """One folder per snapshot and embedder under `root`, and the vector cache they share.

    A folder appears by one rename when it is whole: a reader sees the finished index or none. Building the
    same snapshot twice does nothing; a killed build is taken up where the cache stands. Thread-safe, and
    safe among processes on one host.
    """

    def __init__(self, root: Path, library: SnapshotReader, embedder: Embedder) -> None:
        self._root = root
        self._library = library
        self._embedder = embedder
        self._cache = VectorCache(root / "vectors.db")
        self._answerable = AnswerableModel.load()
        self._open: dict[str, Segment] = {}
        self._lock = threading.Lock()

    def ready(self, snapshot_id: str) -> bool:
        return (self._folder(snapshot_id) / _META_NAME).exists()

    def build(self, snapshot_id: str, progress: Progress | None = None) -> None:
        """Make the snapshot's index unless it is there. Raises NotFound for an unknown snapshot."""
        if self.ready(snapshot_id):
            return
        with self._building():
            if self.ready(snapshot_id):  # another process was faster
                return
            beside = Path(tempfile.mkdtemp(dir=self._root, prefix=_BUILD_PREFIX))
            rows = self._write(beside, self._library.snapshot(snapshot_id), progress)
            meta = {"snapshot": snapshot_id, "embedder": self._embedder.fingerprint, "rows": rows}
            write_atomically(beside / _META_NAME, orjson.dumps(meta))
            _reach_disk(beside)
            target = self._folder(snapshot_id)
            target.parent.mkdir(exist_ok=True)
            if target.exists():  # damaged: a whole one would have been ready
                shutil.rmtree(target)
            beside.rename(target)

    def search(
        self,
        snapshot_id: str,
        query: str,
        settings: RetrievalSettings,
        groups: frozenset[str] = frozenset(),
    ) -> Retrieved:
        """The best passages that a member of `groups` may see. Raises IndexNotReady."""
        segment = self.segment(snapshot_id)
        ranking = segment.rank(query, self._embedder.embed([query])[0], settings, groups)
        answerable = self._answerable.probability(ranking.signals) if ranking.passages else 0.0
        return Retrieved(snapshot_id, ranking.passages, answerable)

    def segment(self, snapshot_id: str) -> Segment:
        with self._lock:
            segment = self._open.pop(snapshot_id, None)
            if segment is None:
                if not self.ready(snapshot_id):
                    raise IndexNotReady(snapshot_id)
                segment = Segment(self._folder(snapshot_id))
            self._open[snapshot_id] = segment  # the last one is the one used last
            while len(self._open) > _OPEN_MAX:
                self._open.pop(next(iter(self._open)))  # closed when the last search in it ends
            return segment

    def prune(self, needed: Callable[[], AbstractSet[str]]) -> int:
        """Delete the indexes of all other snapshots, and the cached vectors that no kept index uses.

        `needed` is asked once nobody builds: an index that was built a moment ago is one that is needed.
        Returns how many snapshots' folders went. Kept snapshots of another embedder keep their folder, not
        their cached vectors.
        """
        with self._building():
            keep = needed()
            kept = {_hex(snapshot_id) for snapshot_id in keep}
            gone = [path for path in self._root.iterdir() if path.is_dir() and path.name not in kept]
            for path in gone:
                shutil.rmtree(path)
            self._forget(keep)
            self._cache.keep_only(
                digest for one in keep if self.ready(one) for digest in self.segment(one).text_digests()
            )
        return len(gone)

    def close(self) -> None:
        self._forget(frozenset())

    def _forget(self, keep: AbstractSet[str]) -> None:
        with self._lock:
            for snapshot_id in [one for one in self._open if one not in keep]:
                self._open.pop(snapshot_id)  # closed when the last search in it ends

    def _folder(self, snapshot_id: str) -> Path:
        kind = digest_json({"embedder": self._embedder.fingerprint, "format": _FORMAT})
        return self._root / _hex(snapshot_id) / short(kind)

    @contextmanager
    def _building(self) -> Iterator[None]:
        """One builder at a time on this host; what a killed one left beside is cleared away."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in self._root.glob(f"{_BUILD_PREFIX}*"):
                shutil.rmtree(leftover)
            yield

    def _write(self, folder: Path, snapshot: Snapshot, progress: Progress | None) -> int:
        table = ChunkTableWriter(folder / CHUNKS_NAME)
        try:
            self._write_chunks(table, snapshot)
            self._write_vectors(table, folder / VECTORS_NAME, progress)
            table.finish()
        finally:
            table.close()
        return len(table)

    def _write_chunks(self, table: ChunkTableWriter, snapshot: Snapshot) -> None:
        documents: dict[str, tuple[str, int, tuple[PageSpan, ...]]] = {}
        for chunk in self._library.chunks(snapshot.id):
            if chunk.version_id not in documents:
                version = self._library.version(chunk.version_id)
                documents[chunk.version_id] = version.title, table.add_document(version), version.pages
            table.add_chunk(chunk, *documents[chunk.version_id])

    def _write_vectors(self, table: ChunkTableWriter, path: Path, progress: Progress | None) -> None:
        count = len(table)
        shape = (count, self._embedder.dimension)
        if count == 0:  # an empty file cannot be mapped
            np.save(path, np.zeros(shape, np.float32))
            return
        vectors = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, count, _BATCH_CHUNKS):
            texts = table.embedded_texts(start, _BATCH_CHUNKS)
            vectors[start : start + len(texts)] = self._vectors_of(texts)
            if progress is not None:
                progress(start + len(texts), count)
        vectors.flush()

    def _vectors_of(self, texts: Sequence[tuple[bytes, str]]) -> NDArray[np.float32]:
        """From the cache; what is not there is embedded and committed to it."""
        known = self._cache.get(self._embedder.fingerprint, [digest for digest, _ in texts])
        missing = {digest: text for digest, text in texts if digest not in known}
        if missing:
            fresh = dict(zip(missing, self._embedder.embed(list(missing.values())), strict=True))
            self._cache.put(self._embedder.fingerprint, fresh)
            known.update(fresh)
            fault("retrieval.after_embed_batch")
        return np.stack([known[digest] for digest, _ in texts])


def _reach_disk(folder: Path) -> None:
    """So that a power cut after the rename cannot leave a folder that looks whole and is not."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _hex(snapshot_id: str) -> str:
    return snapshot_id.removeprefix("sha256:")
