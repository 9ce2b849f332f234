"""Retrieval: embed chunks, index snapshots, find passages, judge support, cite exact spans.

Everything here is derived from the library of `knowledge` and can be thrown away and rebuilt. A search reads
the index of one snapshot, and filters by the caller's groups before it ranks.
"""

from mainstay.retrieval.citations import cite, verify_citation
from mainstay.retrieval.extractive import ExtractiveSelector
from mainstay.retrieval.grounding import GroundingScorer, PassageSources
from mainstay.retrieval.indexes import Indexes, IndexNotReady, SnapshotReader
from mainstay.retrieval.minilm import EmbedderMissing, MiniLmEmbedder, convert
from mainstay.retrieval.sentences import has_end, is_cut_off, is_title, split_sentences
from mainstay.retrieval.types import (
    Citation,
    Embedder,
    Passage,
    RetrievalSettings,
    Retrieved,
    Support,
)

__all__ = [
    "Citation",
    "Embedder",
    "EmbedderMissing",
    "ExtractiveSelector",
    "GroundingScorer",
    "IndexNotReady",
    "Indexes",
    "MiniLmEmbedder",
    "Passage",
    "PassageSources",
    "RetrievalSettings",
    "Retrieved",
    "SnapshotReader",
    "Support",
    "cite",
    "convert",
    "has_end",
    "is_cut_off",
    "is_title",
    "split_sentences",
    "verify_citation",
]
