"""Answer by selection: the source sentences that answer a question best, or none.

A logistic model on the question-sentence cosine, the share of the question's words found, the kind of thing
asked for (a number, a date, a name) and the passage's rank. Weights, threshold and card:
`weights/extractive.json`, made by `python -m mainstay.retrieval.fit_extractive`.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from mainstay.models.types import SourcePassage
from mainstay.retrieval.answerable import idf
from mainstay.retrieval.facts import NUMBER_WORDS, read_facts
from mainstay.retrieval.sentences import is_title, split_sentences
from mainstay.retrieval.types import Embedder
from mainstay.retrieval.weights import read_weights
from mainstay.retrieval.words import content_stems, tokens

SELECTION_FEATURES = ("cosine", "cover", "context_cover", "kind", "rank")
_SENTENCES_MAX = 3
_SENTENCES_EMBEDDED_MAX = 24
"""Only the sentences with most of the question's words are embedded; each costs a few milliseconds."""
_REMEMBERED_VECTORS_MAX = 4096
_FIRST_SHARE = 0.85
"""A second or third sentence must come this near to the best one's score."""

_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|often|old|far|large|big|high|tall|fast|soon|late|early)\b|\bwhat (?:percent|number|amount|share)|\b(?:rate|price|cost|limit|percentage|deadline)\b",
    re.I,
)
_ASKS_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which|in what) (?:year|date|day|month|century|decade)\b|\bby when\b", re.I
)
_ASKS_NAME = re.compile(
    r"\bwho(?:m|se)?\b|\bwhere\b|\b(?:what|which) (?:person|company|country|city|state|university|team|organi[sz]ation)\b",
    re.I,
)
_DATE_WORD = re.compile(
    r"\b(?:1[0-9]{3}|20[0-9]{2})\b|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|wednesday|thursday|friday|saturday|sunday|century|day|days|week|weeks|month|months|year|years)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of a passage. `lead`: its heading, and the question it follows; read with it, never shown.

    `rank`: place of the passage, from 0. `stems` are those of lead and text.
    """

    text: str
    lead: str
    passage: int
    rank: int
    stems: frozenset[str]
    context_stems: frozenset[str]

    @property
    def read_as(self) -> str:
        return f"{self.lead} {self.text}" if self.lead else self.text


def candidates(passages: Sequence[SourcePassage]) -> list[Candidate]:
    """The sentences that can answer, in order: neither headings nor questions, which lead what follows them."""
    return [
        Candidate(text, lead, passage.number, rank, frozenset(content_stems(f"{lead} {text}")), context)
        for rank, passage in enumerate(passages)
        for context in (frozenset(content_stems(passage.text)),)
        for lead, text in _led_sentences(passage.text)
    ]


def _led_sentences(text: str) -> Iterator[tuple[str, str]]:
    """(lead, sentence): a heading leads until the next one, a question leads the one sentence after it."""
    heading, question = "", ""
    for start, end in split_sentences(text):
        sentence = text[start:end]
        if is_title(sentence, text[end:]):
            heading, question = sentence.lstrip("# "), ""
        elif sentence.endswith("?"):
            question = sentence
        else:
            yield f"{heading} {question}".strip(), sentence
            question = ""


def answers_kind(question: str, sentence: str) -> float:
    """1 when the sentence holds the kind of thing that is asked for, 0 when not, 0.5 when no kind is."""
    checks = []
    if _ASKS_NUMBER.search(question):
        checks.append(
            bool(read_facts(sentence).numbers) or not NUMBER_WORDS.keys().isdisjoint(tokens(sentence))
        )
    if _ASKS_DATE.search(question):
        checks.append(bool(_DATE_WORD.search(sentence)))
    if _ASKS_NAME.search(question):
        checks.append(bool(read_facts(sentence).names - read_facts(question).names))
    return sum(checks) / len(checks) if checks else 0.5


def lexical_features(question: str, found: Sequence[Candidate]) -> NDArray[np.float64]:
    """Shape (sentences, features) in the order of SELECTION_FEATURES, cosine left at 0."""
    frequency = Counter(one for candidate in found for one in candidate.stems)
    mass = {one: idf(frequency[one], max(len(found), 8)) for one in dict.fromkeys(content_stems(question))}
    total = sum(mass.values()) or 1.0

    def share(stems: frozenset[str]) -> float:
        return sum(weight for one, weight in mass.items() if one in stems) / total

    return np.array(
        [
            (
                0.0,
                share(candidate.stems),
                share(candidate.stems | candidate.context_stems),
                answers_kind(question, candidate.text),
                1 / (1 + candidate.rank),
            )
            for candidate in found
        ]
    ).reshape(len(found), len(SELECTION_FEATURES))


class ExtractiveSelector:
    """Implements models' `SentenceSelector`. Thread-safe; remembers vectors of recent sentences."""

    def __init__(self, embedder: Embedder) -> None:
        stored = read_weights("extractive")
        self._weights = np.array([stored["weights"][name] for name in SELECTION_FEATURES])
        self._bias = float(stored["bias"])
        self._threshold = float(stored["threshold"])
        self._embedder = embedder
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, question: str, passages: tuple[SourcePassage, ...]) -> tuple[tuple[str, int], ...]:
        """Up to three (sentence, passage number), best first; empty when none answers well enough."""
        scored = self.scores(question, passages)
        if not scored or scored[0][1] < self._threshold:
            return ()
        floor = max(self._threshold, _FIRST_SHARE * scored[0][1])
        chosen: dict[str, int] = {}
        for candidate, score in scored:
            if score >= floor and len(chosen) < _SENTENCES_MAX:
                chosen.setdefault(candidate.text, candidate.passage)
        return tuple(chosen.items())

    def scores(self, question: str, passages: Sequence[SourcePassage]) -> list[tuple[Candidate, float]]:
        """Candidates with the estimated probability that they answer the question, best first."""
        found = candidates(passages)
        if not found or not question.strip():
            return []
        features = lexical_features(question, found)
        likely = np.argsort(-(features[:, 1] + features[:, 3] / 4), kind="stable")[:_SENTENCES_EMBEDDED_MAX]
        features, found = features[likely], [found[place] for place in likely]
        features[:, 0] = self.cosines(question, [candidate.read_as for candidate in found])
        scores = 1 / (1 + np.exp(-(features @ self._weights + self._bias)))
        order = np.argsort(-scores, kind="stable")
        return [(found[place], float(scores[place])) for place in order]

    def cosines(self, question: str, sentences: Sequence[str]) -> NDArray[np.float64]:
        """Cosine of the question with each sentence."""
        with self._lock:
            missing = [one for one in dict.fromkeys((question, *sentences)) if one not in self._vectors]
            known = {one: self._vectors[one] for one in (question, *sentences) if one in self._vectors}
        if missing:
            known.update(zip(missing, self._embedder.embed(missing), strict=True))
            self._remember(missing, known)
        return np.array([float(known[question] @ known[one]) for one in sentences], np.float64)

    def _remember(self, texts: Sequence[str], vectors: dict[str, NDArray[np.float32]]) -> None:
        with self._lock:
            self._vectors.update((text, vectors[text]) for text in texts)
            while len(self._vectors) > _REMEMBERED_VECTORS_MAX:
                self._vectors.popitem(last=False)
