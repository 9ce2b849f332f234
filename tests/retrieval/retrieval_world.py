"""What retrieval's tests are made of."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mainstay.core.content import digest_json
from mainstay.core.errors import NotFound
from mainstay.knowledge.types import Chunk, DocumentVersion, Snapshot
from mainstay.retrieval import Passage
from mainstay.retrieval.words import content_stems


class BagOfWordsEmbedder:
    """Hashed stems as unit vectors: a plain embedder that needs no model. Counts the texts it was given."""

    name = "bag-of-words"
    dimension = 64

    def __init__(self, fingerprint: str = "bag-1") -> None:
        self.fingerprint = fingerprint
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> NDArray[np.float32]:
        vector = np.full(self.dimension, 1e-3, np.float32)
        for stem in content_stems(text):
            digest = hashlib.sha256(stem.encode()).digest()
            vector[digest[0] % self.dimension] += 1
        return vector / np.linalg.norm(vector)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)


class TextLibrary:
    """Snapshots in memory; every paragraph of a document is a chunk."""

    def __init__(self) -> None:
        self.versions: dict[str, DocumentVersion] = {}
        self.snapshots: dict[str, Snapshot] = {}

    def add(self, texts: Mapping[str, str], labels: Mapping[str, frozenset[str]] | None = None) -> str:
        """Returns the snapshot id."""
        entries = {}
        for uri, text in texts.items():
            seen = (labels or {}).get(uri, frozenset())
            one = digest_json([uri, text, sorted(seen)])
            self.versions[one] = DocumentVersion(
                one,
                "handbook",
                uri,
                1,
                uri.removesuffix(".md"),
                "text/markdown",
                "",
                0,
                text,
                (),
                (),
                seen,
                0,
            )
            entries[uri] = one
        snapshot_id = str(digest_json(entries))
        self.snapshots[snapshot_id] = Snapshot(snapshot_id, "handbook", 1, entries, "", 0)
        return snapshot_id

    def snapshot(self, snapshot_id: str) -> Snapshot:
        if snapshot_id not in self.snapshots:
            raise NotFound("no such snapshot")
        return self.snapshots[snapshot_id]

    def version(self, version_id: str) -> DocumentVersion:
        return self.versions[version_id]

    def chunks(self, snapshot_id: str) -> Iterator[Chunk]:
        for version_id in self.snapshot(snapshot_id).entries.values():
            text, start = self.versions[version_id].text, 0
            for ordinal, paragraph in enumerate(text.split("\n\n")):
                end = start + len(paragraph)
                chunk_id = digest_json([version_id, start])
                yield Chunk(chunk_id, version_id, ordinal, start, end, 1, ("Rules",), paragraph)
                start = end + 2


def passage(text: str, *, number: int = 1, start: int = 0, title: str = "") -> Passage:
    return Passage(
        number,
        f"c{number}",
        f"v{number}",
        "a.md",
        title,
        1,
        start,
        start + len(text),
        2,
        ("Rules",),
        text,
        1.0,
    )


_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "leave", "days", "dog", "park", "refund", "money", "##s", "a"]
TINY_HIDDEN, TINY_HEADS = 384, 12


def write_tiny_bert(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Random weights for two layers; returns them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "hidden_size": TINY_HIDDEN,
                "num_hidden_layers": 2,
                "num_attention_heads": TINY_HEADS,
                "layer_norm_eps": 1e-12,
            }
        )
    )
    tensors = _random_tensors()
    _write_safetensors(folder / "model.safetensors", tensors)
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tensors


def _random_tensors() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(1)
    hidden, inner = TINY_HIDDEN, 512

    def normal(*shape: int) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * 0.05).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": normal(len(_WORDS), hidden) * 20,
        "embeddings.position_embeddings.weight": normal(300, hidden),
        "embeddings.token_type_embeddings.weight": normal(2, hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (0, 1):
        prefix = f"encoder.layer.{layer}."
        shapes = {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")} | {
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
        }
        for name, shape in shapes.items():
            tensors[f"{prefix}{name}.weight"] = normal(*shape)
            tensors[f"{prefix}{name}.bias"] = normal(shape[0])
        norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
    for name in norms:
        tensors[f"{name}.weight"] = 1 + normal(hidden)
        tensors[f"{name}.bias"] = normal(hidden)
    return tensors


def _write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    head, body = {}, b""
    for name, array in tensors.items():
        data = array.tobytes()
        head[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    raw = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


def reference_vector(tensors: Mapping[str, NDArray[np.float32]], ids: Sequence[int]) -> NDArray[np.float64]:
    """The same encoder in float64, written down from the paper."""
    w = {name: array.astype(np.float64) for name, array in tensors.items()}

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][list(ids)]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in (0, 1):
        p = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{p}attention.self.{part}").reshape(len(ids), TINY_HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        logits = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(linear(mixed, f"{p}attention.output.dense") + x, f"{p}attention.output.LayerNorm")
        inner = linear(x, f"{p}intermediate.dense")
        inner = 0.5 * inner * (1 + np.vectorize(_erf)(inner / np.sqrt(2)))
        x = norm(linear(inner, f"{p}output.dense") + x, f"{p}output.LayerNorm")
    pooled = x.mean(0)
    return np.asarray(pooled / np.linalg.norm(pooled), np.float64)


def _erf(value: float) -> float:
    import math

    return math.erf(value)
