"""Fixtures of the retrieval tests: a small real embedder, a library in memory, and a tiny BERT on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from retrieval_world import BagOfWordsEmbedder, write_tiny_bert


@pytest.fixture
def embedder() -> BagOfWordsEmbedder:
    return BagOfWordsEmbedder()


@pytest.fixture
def tiny_models_dir(tmp_path: Path) -> Path:
    """A models folder with a two-layer BERT in place of MiniLM, as `mainstay models add minilm` leaves it."""
    write_tiny_bert(tmp_path / "minilm")
    return tmp_path
