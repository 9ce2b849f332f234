"""A linear detector of prompt injection on hashed words and word pairs, scored over sliding pieces.

The score of a piece is `bias + sum of its features' weights / sqrt(number of features)` (no fewer than FEATURES_MIN), so that all pieces of
a text cost one pass and two cumulative sums. The text's score is its worst piece's, as a probability
calibrated on held-out folds (Platt 1999).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

FEATURE_BITS = 18
REPEATED = 0
"""The index of features seen shortly before; its weight is 0, so that saying a word often adds nothing."""
PIECE_WORDS = (40, 20)
"""Widths of the sliding pieces, in words."""
STEP_WORDS = 5
FEATURES_MIN = 9
REPEAT_WORDS = 20
_KEPT_CHARS = 32_768
_Block = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Where a block starts, its words' spans, its pieces' bounds, and their probabilities."""

_WORD = re.compile(r"[^\W_]+(?:['’][a-z]{1,2}\b)?")
_BLOCK_EDGE = re.compile(r"<!--|-->|\n\s*\n")
_CONFUSABLE = str.maketrans("аеорсухіѕјһԁԛԝαονρτυіᴀ", "aeopcyxisjhdqwaovptuia")
_PAIR = np.uint32(0x9E3779B1)


@dataclass(frozen=True, slots=True)
class Piece:
    """text[start:end] and its probability of being an instruction to the model."""

    start: int
    end: int
    probability: float


def words(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Normalised words (NFKC, case folded, look-alike letters as Latin, numbers as 0), and their spans, shape (n, 2)."""
    found: list[str] = []
    spans: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        found.append(_normal(match[0]))
        spans.append(match.span())
    return found, np.array(spans, dtype=np.int64).reshape(-1, 2)


def _normal(word: str) -> str:
    if word.isascii():
        return "0" if word.isdigit() else word.lower()
    word = unicodedata.normalize("NFKC", word).casefold().replace("’", "'")
    if any("a" <= c <= "z" for c in word):  # letters of two alphabets in one word
        word = word.translate(_CONFUSABLE)
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


def features(tokens: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indexes of the words, shape (n,), and of the pairs that end at words 1 to n-1, shape (n-1,)."""
    hashes = np.fromiter((zlib.crc32(t.encode()) for t in tokens), dtype=np.uint32, count=len(tokens))
    pairs = (hashes[:-1] * _PAIR) ^ (hashes[1:] >> np.uint32(3)) ^ (hashes[1:] << np.uint32(7))
    shift = np.uint32(32 - FEATURE_BITS)
    single, pair = (hashes * _PAIR >> shift).astype(np.int64), (pairs * _PAIR >> shift).astype(np.int64)
    return _without_repeats(single), _without_repeats(pair)


def _without_repeats(index: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(index, kind="stable")
    same = np.diff(index[order]) == 0
    near = np.diff(order) <= REPEAT_WORDS
    index[order[1:][same & near]] = REPEATED
    return index


def blocks(text: str) -> Iterator[tuple[int, int]]:
    """Paragraphs, and comments by themselves: what a reader does not see must not hide behind what he sees."""
    at = 0
    for edge in _BLOCK_EDGE.finditer(text):
        if edge.start() > at:
            yield at, edge.start()
        at = edge.end()
    if at < len(text):
        yield at, len(text)


def piece_bounds(count: int) -> NDArray[np.int64]:
    """(first word, word after the last) of all pieces of a block of `count` words, shape (pieces, 2)."""
    bounds = [(0, count)] if count <= max(PIECE_WORDS) else []
    for width in PIECE_WORDS:
        if count > width:
            last = count - width
            bounds += [(s, s + width) for s in (*range(0, last, STEP_WORDS), last)]
    return np.array(bounds, dtype=np.int64).reshape(-1, 2)


def piece_scale(count: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 / sqrt(features of a piece of `count` words); a few words alone are little evidence, so it has a floor."""
    scale: NDArray[np.float64] = 1 / np.sqrt(np.maximum(2 * count - 1, FEATURES_MIN))
    return scale


class LinearDetector:
    """Weights of shape (2**FEATURE_BITS,), a bias, and the slope and offset of the calibration."""

    def __init__(self, weights: NDArray[np.float32], bias: float, slope: float, offset: float) -> None:
        self._weights = weights.astype(np.float64)
        self._bias = bias
        self._slope = slope
        self._offset = offset
        self._last: tuple[str, list[_Block]] = ("", [])

    @classmethod
    def load(cls, data: bytes | None = None) -> LinearDetector:
        """The shipped weights, or those in `data` (an .npz as `to_bytes` writes)."""
        raw = (files("mainstay.guard") / "data" / "injection.npz").read_bytes() if data is None else data
        with np.load(BytesIO(raw), allow_pickle=False) as stored:
            weights = stored["weights"].astype(np.float32) * stored["scale"]
            bias, slope, offset = (float(value) for value in stored["calibration"])
        return cls(weights, bias, slope, offset)

    def to_bytes(self) -> bytes:
        """An .npz with weights as signed 8-bit steps of one scale."""
        scale = np.float32(np.abs(self._weights).max() / 127 or 1.0)
        buffer = BytesIO()
        np.savez_compressed(
            buffer,
            weights=np.round(self._weights / scale).astype(np.int8),
            scale=scale,
            calibration=np.array([self._bias, self._slope, self._offset]),
        )
        return buffer.getvalue()

    def logits(self, tokens: Sequence[str], bounds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Raw scores of the pieces `bounds`, shape (pieces,)."""
        single, pair = features(tokens)
        total = np.concatenate(([0.0], np.cumsum(self._weights[single])))
        total_pairs = np.concatenate(([0.0, 0.0], np.cumsum(self._weights[pair])))
        first, after = bounds[:, 0], bounds[:, 1]
        summed = total[after] - total[first] + total_pairs[after] - total_pairs[first + 1]
        scores: NDArray[np.float64] = self._bias + summed * piece_scale(after - first)
        return scores

    def pieces(self, text: str, at_least: float = 0.0) -> list[Piece]:
        """Pieces of `text` whose probability reaches `at_least`, overlapping ones joined, in order."""
        found: list[Piece] = []
        for start, spans, bounds, chances in self._blocks(text):
            hot = np.flatnonzero(chances >= at_least)
            for index in hot[np.argsort(bounds[hot, 0], kind="stable")]:
                first, after = bounds[index]
                piece = Piece(
                    start + int(spans[first, 0]), start + int(spans[after - 1, 1]), float(chances[index])
                )
                _join(found, piece)
        return found

    def _blocks(self, text: str) -> list[_Block]:
        """Kept for the last text: two rules of one policy ask for the same one, one after the other."""
        known, scored = self._last
        if known == text:
            return scored
        scored = []
        for start, end in blocks(text):
            tokens, spans = words(text[start:end])
            if tokens:
                bounds = piece_bounds(len(tokens))
                scored.append((start, spans, bounds, self.probability(self.logits(tokens, bounds))))
        if len(text) <= _KEPT_CHARS:
            self._last = (text, scored)  # one assignment: threads see one text with its own scores
        return scored

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        chances: NDArray[np.float64] = 1 / (
            1 + np.exp(-np.clip(self._slope * logits + self._offset, -50, 50))
        )
        return chances

    def score(self, text: str) -> float:
        """The probability of the worst piece; 0 for a text without words."""
        return max((piece.probability for piece in self.pieces(text)), default=0.0)


def _join(found: list[Piece], piece: Piece) -> None:
    if found and piece.start < found[-1].end:
        last = found.pop()
        piece = Piece(last.start, max(last.end, piece.end), max(last.probability, piece.probability))
    found.append(piece)
