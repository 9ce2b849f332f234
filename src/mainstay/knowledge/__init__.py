"""Knowledge: documents become immutable versions with canonical text, chunks and corpus snapshots.

A `Library` syncs a `Source` into a corpus; every snapshot stays readable for ever, and the head says which
one is current. All offsets are code points of a version's canonical text.
"""

from mainstay.knowledge.chunking import chunk_version
from mainstay.knowledge.library import Library, pipeline_fingerprint
from mainstay.knowledge.parsers import ParseError, Parser, parser_for
from mainstay.knowledge.parsers.worker import ParseWorker, WorkerLimits
from mainstay.knowledge.sources import FolderSource
from mainstay.knowledge.text import canonical
from mainstay.knowledge.types import (
    Chunk,
    ChunkSettings,
    DocumentVersion,
    FailedDocument,
    Heading,
    ListedDocument,
    PageSpan,
    ParsedText,
    Progress,
    Snapshot,
    SnapshotDiff,
    Source,
    SourceFile,
    SourceListing,
    SyncReport,
)

__all__ = [
    "Chunk",
    "ChunkSettings",
    "DocumentVersion",
    "FailedDocument",
    "FolderSource",
    "Heading",
    "Library",
    "ListedDocument",
    "PageSpan",
    "ParseError",
    "ParseWorker",
    "ParsedText",
    "Parser",
    "Progress",
    "Snapshot",
    "SnapshotDiff",
    "Source",
    "SourceFile",
    "SourceListing",
    "SyncReport",
    "WorkerLimits",
    "canonical",
    "chunk_version",
    "parser_for",
    "pipeline_fingerprint",
]
