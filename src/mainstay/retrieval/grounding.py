"""Is a sentence of an answer carried by the retrieved passages? Lexical, about a millisecond a sentence.

A monotone additive model on `support_features`; weights and card in `weights/grounding.json`, made by
`python -m mainstay.retrieval.fit_grounding`. Rules stand above the model: a sentence copied word for word is supported;
digits that no passage holds or that belong to another sentence, and saying the opposite of a sentence that is
otherwise the same, make it unsupported.
What it can and cannot do: docs/reference/grounding.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mainstay.retrieval.clauses import hold_facts, says_opposite_of_nearest
from mainstay.retrieval.facts import Facts, ends_in_negation, read_facts, without_list_mark
from mainstay.retrieval.sentences import is_cut_off, split_sentences
from mainstay.retrieval.support_features import (
    FEATURES,
    Measured,
    Sources,
    SourceSentence,
    measure,
    numbers_clash,
)
from mainstay.retrieval.types import Passage, Support
from mainstay.retrieval.weights import read_weights

RAMPS = ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.0))
"""Each feature is cut into these ranges; a non-negative weight on each makes any rising curve."""
COPIED_SCORE = 0.99
_COPIED_WORDS_MIN = 3
_BLOCKED_SHARE = 0.5
"""A sentence that contradicts its source scores at most this share of the threshold."""
_COVER_FOR_OPPOSITE, _COVER_FOR_NEGATION = 0.6, 0.8
"""How much alike two sentences must be for an opposite word, or a "not" more or less, to be a contradiction."""


def on_ramps(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (…, features) → (…, ramps x features): how far each feature is through each range, 0-1."""
    return np.concatenate([np.clip((features - low) / (high - low), 0, 1) for low, high in RAMPS], axis=-1)


@dataclass(frozen=True, slots=True)
class GroundingModel:
    """Log-odds of support = bias + weights · ramps of the features."""

    weights: NDArray[np.float64]
    bias: float
    threshold: float

    @classmethod
    def load(cls) -> GroundingModel:
        stored = read_weights("grounding")
        by_feature = np.array([stored["weights"][name] for name in FEATURES])
        return cls(by_feature.T.reshape(-1), float(stored["bias"]), float(stored["threshold"]))

    def probability(self, features: Sequence[float]) -> float:
        log_odds = self.bias + float(on_ramps(np.array(features)) @ self.weights)
        return 1 / (1 + math.exp(-log_odds))


class PassageSources:
    """Passages made ready to score many sentences against."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        contexts = ("\n".join((one.title, *one.heading_path)) for one in passages)
        self.sources = Sources([(context, one.text) for context, one in zip(contexts, passages, strict=True)])
        self.word_runs = [f" {' '.join(sentence.facts.words)} " for sentence in self.sources.sentences]


class GroundingScorer:
    """Scores sentences against passages. Stateless; thread-safe."""

    def __init__(self, model: GroundingModel) -> None:
        self._model = model
        self.threshold = model.threshold

    @classmethod
    def load(cls) -> GroundingScorer:
        return cls(GroundingModel.load())

    def support(self, sentence: str, passages: Sequence[Passage]) -> Support:
        """Support of one sentence. For several sentences, read the passages once: `support_all`."""
        return self.support_in(sentence, PassageSources(passages))

    def support_all(self, answer: str, passages: Sequence[Passage]) -> list[tuple[tuple[int, int], Support]]:
        """(sentence span in the answer, its support) for every sentence of the answer, in order."""
        sources = PassageSources(passages)
        return [
            ((start, end), self.support_in(answer[start:end], sources))
            for start, end in split_sentences(answer)
        ]

    def support_in(self, sentence: str, ready: PassageSources) -> Support:
        sentence = without_list_mark(sentence)
        facts = read_facts(sentence)
        cut_off = is_cut_off(sentence)
        copied = _copied_from(facts, ready)
        if copied is not None and not cut_off:
            return _support(COPIED_SCORE, self.threshold, copied, ready)
        measured = measure(facts, ready.sources)
        if measured.best is None:
            return _support(0.0, self.threshold, None, ready)
        score = self._model.probability(measured.values)
        held = hold_facts(sentence, facts, ready.sources)
        nearest = _nearest(measured, measured.best, held.holder, ready.sources)
        unsourced = held.facts > 0 and held.holder is None
        if cut_off or unsourced or _contradicts(facts, measured, nearest, ready.sources):
            score = min(score, _BLOCKED_SHARE * self.threshold)
        return _support(score, self.threshold, held.holder or measured.best, ready)


def _nearest(
    measured: Measured, best: SourceSentence, holder: SourceSentence | None, sources: Sources
) -> SourceSentence:
    """Of sentences equally near in words, the one that holds the facts."""
    if holder is None or measured.covers[sources.sentences.index(holder)] < measured.best_cover:
        return best
    return holder


def _contradicts(facts: Facts, measured: Measured, best: SourceSentence, sources: Sources) -> bool:
    """Signs that outweigh likeness: a number from nowhere or from another sentence, the opposite said."""
    if facts.numbers - sources.numbers or numbers_clash(facts, best, sources, digits_only=True):
        return True
    if says_opposite_of_nearest(facts, measured.covers, sources):
        return True
    if measured.value("opposites") == 0 and measured.best_cover >= _COVER_FOR_OPPOSITE:
        return True
    return facts.negated != best.facts.negated and measured.best_cover >= _COVER_FOR_NEGATION


def _copied_from(facts: Facts, ready: PassageSources) -> SourceSentence | None:
    """The source sentence that holds all the words in order and without a gap, digits alike.

    Words behind a "not" that was left off ("allowed to …" of "not allowed to …") are no copy.
    """
    if len(facts.words) < _COPIED_WORDS_MIN:
        return None
    run = f" {' '.join(facts.words)} "
    for sentence, words in zip(ready.sources.sentences, ready.word_runs, strict=True):
        before, held, _ = words.partition(run)
        if held and facts.numbers <= sentence.facts.numbers and not ends_in_negation(before):
            return sentence
    return None


def _support(score: float, threshold: float, best: SourceSentence | None, ready: PassageSources) -> Support:
    if best is None:
        return Support(score, score >= threshold, None, None, None)
    passage = ready.passages[best.passage]
    return Support(
        score, score >= threshold, passage.number, passage.start + best.start, passage.start + best.end
    )
