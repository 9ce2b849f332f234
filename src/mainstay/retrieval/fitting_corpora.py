"""Public collections as libraries, for the fitting commands: every text one chunk, hidden by leaving its group out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mainstay.core.content import digest_json
from mainstay.knowledge.chunking import chunk_spans
from mainstay.knowledge.types import Chunk, DocumentVersion, Snapshot
from mainstay.retrieval.fitting import data_root, read_judgements, read_lines

_CHUNK_CHARS = 800


@dataclass(frozen=True, slots=True)
class Question:
    """`relevant`: ids of the texts that answer it. `answer_spans`: (text id, start, end) where known."""

    text: str
    relevant: frozenset[str]
    answer_spans: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """A library of one snapshot. Implements `SnapshotReader`; the id of a text is version id, uri and label."""

    name: str
    texts: Mapping[str, tuple[str, str]]
    """id → (title, text)"""
    questions: tuple[Question, ...]
    snapshot_id: str = field(default="")

    def all_but(self, hidden: frozenset[str]) -> frozenset[str]:
        """The groups of a caller who sees all texts but these."""
        return frozenset(self.texts) - hidden

    def snapshot(self, snapshot_id: str) -> Snapshot:
        return Snapshot(snapshot_id, self.name, 1, {one: one for one in self.texts}, "", 0)

    def version(self, version_id: str) -> DocumentVersion:
        title, text = self.texts[version_id]
        return DocumentVersion(
            version_id, self.name, version_id, 1, title, "text/plain", "", len(text), text, (), (),
            frozenset({version_id}), 0,
        )  # fmt: skip

    def chunks(self, snapshot_id: str) -> Iterator[Chunk]:
        for one, (_, text) in self.texts.items():
            yield Chunk(one, one, 0, 0, len(text), None, (), text)


def load_collection(name: str, split: str = "test") -> Collection:
    """A folder of `retrieval/` by name; long texts (`chunking`) are cut into chunks first."""
    folder = data_root() / "retrieval" / name
    if name == "chunking":
        return _cut_collection(folder)
    texts = {one["_id"]: (one["title"], one["text"]) for one in read_lines(folder / "corpus.jsonl.gz")}
    relevant = read_judgements(folder / f"qrels.{split}.tsv")
    questions = tuple(
        Question(
            one["text"],
            frozenset(relevant[one["_id"]]),
            tuple((span["doc"], span["start"], span["end"]) for span in one.get("spans", ())),
        )
        for one in read_lines(folder / "queries.jsonl.gz")
        if one["_id"] in relevant
    )
    return Collection(name, texts, questions, digest_json([name, split]))


def _cut_collection(folder: Path) -> Collection:
    """Chunks of the long texts; a question's answer spans are given within the chunks that hold them."""
    texts: dict[str, tuple[str, str]] = {}
    places: dict[str, list[tuple[int, int, str]]] = {}
    for document in read_lines(folder / "corpus.jsonl.gz"):
        for start, end in chunk_spans(document["text"], (), _CHUNK_CHARS):
            one = f"{document['_id']}:{start}"
            texts[one] = ("", document["text"][start:end])
            places.setdefault(document["_id"], []).append((start, end, one))
    questions = []
    for query in read_lines(folder / "queries.jsonl.gz"):
        spans = tuple(
            (one, max(span["start"] - start, 0), min(span["end"], end) - start)
            for span in query["spans"]
            for start, end, one in places[span["doc"]]
            if span["start"] < end and span["end"] > start
        )
        questions.append(Question(query["text"], frozenset(span[0] for span in spans), spans))
    return Collection(folder.name, texts, tuple(questions), digest_json([folder.name, _CHUNK_CHARS]))
