"""Measure ranking quality on public collections: `python -m mainstay.retrieval.measure_quality MODELS_DIR NAME...`.

NAME is a folder of `retrieval/` in MAINSTAY_DATA with binary judgements, e.g. scifact or xquad-en. Prints
nDCG@10 (Järvelin & Kekäläinen 2002), recall@10 and recall@100 for each mode, default settings, whole texts as chunks.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mainstay.retrieval.fitting import Floats
from mainstay.retrieval.fitting_corpora import Collection, load_collection
from mainstay.retrieval.indexes import Indexes
from mainstay.retrieval.minilm import MiniLmEmbedder
from mainstay.retrieval.types import RetrievalSettings

_MODES = (
    RetrievalSettings(top_k=100),
    RetrievalSettings(mode="dense", top_k=100),
    RetrievalSettings(mode="lexical", top_k=100),
)


def main() -> None:
    embedder = MiniLmEmbedder.load(Path(sys.argv[1]))
    for name in sys.argv[2:]:
        collection = load_collection(name)
        with tempfile.TemporaryDirectory() as folder:
            indexes = Indexes(Path(folder), collection, embedder)
            indexes.build(collection.snapshot_id)
            for settings in _MODES:
                sys.stdout.write(f"{name} {settings.mode} {measure(indexes, collection, settings)}\n")
            indexes.close()


def measure(indexes: Indexes, collection: Collection, settings: RetrievalSettings) -> dict[str, float]:
    """Means over the collection's questions."""
    rows = []
    groups = collection.all_but(frozenset())
    for question in collection.questions:
        found = indexes.search(collection.snapshot_id, question.text, settings, groups)
        hits = [one.uri in question.relevant for one in found.passages]
        wanted = len(question.relevant)
        rows.append((_ndcg(hits, wanted), sum(hits[:10]) / wanted, sum(hits) / wanted))
    means = np.mean(rows, axis=0)
    ndcg, near, far = (round(float(mean), 4) for mean in means)
    return {"ndcg@10": ndcg, "recall@10": near, "recall@100": far}


def _ndcg(hits: Sequence[bool], wanted: int, depth: int = 10) -> float:
    discounts: Floats = 1 / np.log2(np.arange(2, depth + 2))
    top = np.array([*hits[:depth], *[False] * (depth - len(hits[:depth]))], np.float64)
    gained = float(top @ discounts)
    return gained / float(discounts[: min(wanted, depth)].sum())


if __name__ == "__main__":
    main()
