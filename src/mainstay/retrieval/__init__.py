"""Retrieval: embed, index and search corpus snapshots; score support; cite exact spans.

`Indexes.build` makes a snapshot searchable, `Indexes.search` finds passages the caller may see;
`GroundingScorer.support` says how well passages support a sentence, `cite` names the exact source span.
"""

from mainstay.retrieval.citations import cite, verify_citation
from mainstay.retrieval.extractive import ExtractiveSelector
from mainstay.retrieval.grounding import GroundingScorer
from mainstay.retrieval.indexes import Indexes, IndexNotReady
from mainstay.retrieval.minilm import EmbedderMissing, MiniLmEmbedder, convert
from mainstay.retrieval.sentences import split_sentences
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
    "RetrievalSettings",
    "Retrieved",
    "Support",
    "cite",
    "convert",
    "split_sentences",
    "verify_citation",
]
