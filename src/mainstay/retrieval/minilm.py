"""The default embedder: all-MiniLM-L6-v2 on ONNX Runtime, converted once from its safetensors file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from mainstay.core.content import digest_bytes, digest_json, write_atomically
from mainstay.core.errors import Unavailable
from mainstay.retrieval.bert_graph import BertShape, read_safetensors, sentence_encoder

if TYPE_CHECKING:  # it takes 24 MB, which a process without a model need not have
    import onnxruntime

FOLDER = "minilm"
ONNX_NAME = "minilm-row8.onnx"
MAX_TOKENS = 256
_BATCH_TOKENS = 2048
"""Tokens in one run: enough to fill the core, small enough to stay in its cache."""


class EmbedderMissing(Unavailable):
    code = "embedder_missing"


def convert(models_dir: Path) -> Path:
    """Make `minilm/minilm-row8.onnx` from `minilm/model.safetensors`, then delete the safetensors file.

    Does nothing when the ONNX file is there already. Atomic: a killed conversion leaves no ONNX file.
    Raises EmbedderMissing when there is nothing to convert.
    """
    folder = models_dir / FOLDER
    target, source = folder / ONNX_NAME, folder / "model.safetensors"
    if not target.exists():
        if not source.exists():
            raise _missing(source)
        shape = BertShape.read(folder / "config.json")
        write_atomically(target, sentence_encoder(read_safetensors(source), shape))
    source.unlink(missing_ok=True)
    return target


def _missing(path: Path) -> EmbedderMissing:
    return EmbedderMissing(
        f"The embedding model is not installed: {path} is missing.", fix="Run `mainstay models add minilm`."
    )


class MiniLmEmbedder:
    """Implements `Embedder`: 384 dimensions, texts cut at 256 tokens, one vector per text in any batch.

    `fingerprint` covers the model file's bytes, the tokenizer, pooling and the cut, so that vectors of
    different models never meet. Thread-safe.
    """

    name = "minilm"
    dimension = 384

    def __init__(self, onnx_bytes: bytes, tokenizer_json: bytes, *, threads: int = 1) -> None:
        self.fingerprint = digest_json(
            {
                "onnx": digest_bytes(onnx_bytes),
                "tokenizer": digest_bytes(tokenizer_json),
                "pooling": "mean",
                "max_tokens": MAX_TOKENS,
            }
        )
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._counter = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        self._counter.no_padding()
        self._counter.no_truncation()
        self._session = _session(onnx_bytes, threads)

    @classmethod
    def load(cls, models_dir: Path, *, threads: int = 1) -> MiniLmEmbedder:
        """Load from `models_dir/minilm/`, converting on first use. Raises EmbedderMissing.

        `threads`: intra-op threads of ONNX Runtime.
        """
        onnx = convert(models_dir)
        tokenizer = models_dir / FOLDER / "tokenizer.json"
        if not tokenizer.exists():
            raise _missing(tokenizer)
        return cls(onnx.read_bytes(), tokenizer.read_bytes(), threads=threads)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 384), rows of length 1."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        encodings = self._tokenizer.encode_batch(list(texts))
        for rows in _batches([len(encoding.ids) for encoding in encodings]):
            vectors[rows] = self._run([encodings[row] for row in rows])
        return vectors

    def _run(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        (vectors,) = self._session.run(["vec"], inputs)
        return np.asarray(vectors, np.float32)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of the texts in whole (not cut), with the two special tokens each."""
        return sum(len(encoding.ids) for encoding in self._counter.encode_batch(list(texts)))


def _session(onnx_bytes: bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
    return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of one length, within the token budget.

    Padding would change a vector's last bits (the width of the attention's sums), so lengths never mix.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for length, rows in groupby(order, key=lambda row: lengths[row]):
        yield from _pieces(list(rows), max(1, _BATCH_TOKENS // max(1, length)))


def _pieces(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
