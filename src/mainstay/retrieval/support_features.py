"""How far source sentences carry an answer's sentence: lexical measures that only rise with support.

Every feature lies in 0-1 and more of it never means less support, so a model with non-negative weights on
them cannot learn the style of its training texts. None counts length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mainstay.retrieval.answerable import idf
from mainstay.retrieval.facts import OPPOSITES, Facts, demanded_numbers, read_facts
from mainstay.retrieval.porter import stem
from mainstay.retrieval.quantities import Exact, read_exact
from mainstay.retrieval.sentences import split_sentences
from mainstay.retrieval.words import content_stems, tokens

FEATURES = (
    "cover", "nothing_missing", "order", "copied", "numbers", "numbers_bound", "number_cover", "names",
    "names_near", "name_cover", "negation", "opposites", "weakest",
)  # fmt: skip
_NEAR = 4
"""Two content words at most this many places apart count as an ordered pair."""


@dataclass(frozen=True, slots=True)
class SourceSentence:
    """A sentence of a passage; `start`/`end` are offsets in the passage's text."""

    passage: int
    start: int
    end: int
    facts: Facts
    stems: frozenset[str]


class Sources:
    """Passages read once, to score many sentences against. `context` is title and headings of each."""

    def __init__(self, passages: Sequence[tuple[str, str]]) -> None:
        self.sentences = [
            SourceSentence(number, start, end, facts, frozenset(facts.stems))
            for number, (_, text) in enumerate(passages)
            for start, end in split_sentences(text)
            for facts in (read_facts(text[start:end]),)
        ]
        self.texts = [passages[one.passage][1][one.start : one.end] for one in self.sentences]
        self._exact: dict[int, Exact] = {}
        contexts = [context for context, _ in passages]
        self.context_numbers = [read_facts(context).known_numbers for context in contexts]
        self.context_stems = [frozenset(content_stems(context)) for context in contexts]
        self.context_words = frozenset(word for context in contexts for word in tokens(context))
        self.frequency = Counter(one for sentence in self.sentences for one in sentence.stems)
        self.all_stems = frozenset(self.frequency).union(*self.context_stems)
        self.numbers = frozenset().union(
            *(sentence.facts.known_numbers for sentence in self.sentences),
            *self.context_numbers,
        )
        self.words = self.context_words.union(*(sentence.facts.words for sentence in self.sentences))
        self.pairs = frozenset().union(*(_pairs(sentence.facts.stems, _NEAR) for sentence in self.sentences))
        self.triples = frozenset().union(*(_triples(sentence.facts.words) for sentence in self.sentences))

    def exact(self, at: int) -> Exact:
        """Amounts and dates of the sentence at this place; read when first asked for."""
        if at not in self._exact:
            self._exact[at] = read_exact(self.texts[at])
        return self._exact[at]

    def weight(self, one: str) -> float:
        """A stem's idf among the source sentences; what no source holds weighs most."""
        return idf(self.frequency[one], max(len(self.sentences), 8))


@dataclass(frozen=True, slots=True)
class Measured:
    """Features of one sentence (in the order of FEATURES) and the source sentence that carries most of it.

    `covers`: the share of the sentence's idf mass that each source sentence holds; `best_cover`: the largest.
    """

    values: tuple[float, ...]
    best: SourceSentence | None
    covers: tuple[float, ...]

    @property
    def best_cover(self) -> float:
        return max(self.covers, default=0.0)

    def value(self, feature: str) -> float:
        return self.values[FEATURES.index(feature)]


def measure(facts: Facts, sources: Sources) -> Measured:
    # digits are not words: they have their own features, and must not draw in a second sentence
    # in their order, as sums in the order of a set would differ in their last bits between processes
    weights = {one: sources.weight(one) for one in dict.fromkeys(facts.stems) if not one.isdigit()}
    covers = [_cover(weights, sentence, sources) for sentence in sources.sentences]
    if not covers:
        return Measured((0.0,) * len(FEATURES), None, ())
    first = max(range(len(covers)), key=lambda place: (covers[place], -place))
    best = sources.sentences[first]
    second = _second(weights, best, sources)
    near = (best,) if second is None else (best, second)
    near_stems = _stems_of(near, sources)
    demanded = demanded_numbers(facts)
    near_words = sources.context_words.union(*(one.facts.words for one in near))
    order = _found(_pairs(facts.stems, 2), sources.pairs, covers[first])
    numbers = _found(demanded, sources.numbers, 1.0)
    names = _found(facts.names, sources.words, 1.0)
    values = (
        _share(weights, sources.all_stems),
        _nothing_missing(weights, near_stems, sources),
        order,
        _found(_triples(facts.words), sources.triples, order),
        numbers,
        float(not numbers_clash(facts, best, sources)),
        _least_cover(demanded, covers, sources, covers[first], numbers=True),
        names,
        _found(facts.names, near_words, 1.0),
        _least_cover(facts.names, covers, sources, covers[first], numbers=False),
        float(facts.negated in {one.facts.negated for one in near}),
        _opposites(facts, near_stems),
        min(_share(weights, near_stems), numbers, names),
    )
    return Measured(values, best if covers[first] > 0 else None, tuple(covers))


def _cover(weights: dict[str, float], sentence: SourceSentence, sources: Sources) -> float:
    return _share(weights, sentence.stems | sources.context_stems[sentence.passage])


def _share(weights: dict[str, float], found: frozenset[str]) -> float:
    """Share of the idf mass that is found. A sentence without content words has nothing to support: 0."""
    total = sum(weights.values())
    return sum(weight for one, weight in weights.items() if one in found) / total if total else 0.0


def _second(weights: dict[str, float], best: SourceSentence, sources: Sources) -> SourceSentence | None:
    """The sentence that adds most to the best one."""
    left = {one: weight for one, weight in weights.items() if one not in best.stems}

    def adds(sentence: SourceSentence) -> float:
        return sum(weight for one, weight in left.items() if one in sentence.stems)

    second = max(sources.sentences, key=adds)
    return second if adds(second) > 0 else None


def _stems_of(sentences: Iterable[SourceSentence], sources: Sources) -> frozenset[str]:
    return frozenset().union(
        *(sentence.stems | sources.context_stems[sentence.passage] for sentence in sentences)
    )


def _nothing_missing(weights: dict[str, float], near: frozenset[str], sources: Sources) -> float:
    """1 when the near sentences hold every content word, less the rarer the rarest missing word is."""
    missing = [weight for one, weight in weights.items() if one not in near]
    return 1 - max(missing, default=0.0) / idf(0, max(len(sources.sentences), 8))


def _found(wanted: frozenset[object], present: frozenset[object], when_none: float) -> float:
    return len(wanted & present) / len(wanted) if wanted else when_none


def _least_cover(
    wanted: frozenset[str], covers: Sequence[float], sources: Sources, when_none: float, *, numbers: bool
) -> float:
    """The number (or name) worst placed: how well the best sentence that holds it covers the whole sentence."""
    if not wanted:
        return when_none
    holders = [
        sentence.facts.known_numbers if numbers else frozenset(sentence.facts.words)
        for sentence in sources.sentences
    ]
    return min(
        max((cover for cover, held in zip(covers, holders, strict=True) if one in held), default=0.0)
        for one in wanted
    )


def numbers_clash(facts: Facts, best: SourceSentence, sources: Sources, *, digits_only: bool = False) -> bool:
    """Does the sentence take a number from elsewhere in place of the one its own source sentence gives?

    So when it leaves out a number of the best source sentence and has one that stands only in sentences that
    share no further word with it.
    """
    wanted = facts.numbers if digits_only else demanded_numbers(facts)
    strangers = wanted - best.facts.known_numbers
    if not strangers or best.facts.numbers <= facts.known_numbers:
        return False
    further = frozenset(one for one in facts.stems if not one.isdigit()) - best.stems
    return any(
        not any(number in one.facts.known_numbers and further & one.stems for one in sources.sentences)
        for number in strangers
    )


def _opposites(facts: Facts, near: frozenset[str]) -> float:
    """0 when the sentence says the opposite of a word in the source: it has one of a pair, the source the other."""
    own = frozenset(facts.words) | {stem(word) for word in facts.words}
    for one in own - near:
        if OPPOSITES.get(one, frozenset()) & near - own:
            return 0.0
    return 1.0


def _pairs(stems: Sequence[str], reach: int) -> frozenset[tuple[str, str]]:
    """Ordered pairs of content words at most `reach` places apart."""
    return frozenset(
        (stems[place], stems[other])
        for place in range(len(stems))
        for other in range(place + 1, min(place + 1 + reach, len(stems)))
        if stems[place] != stems[other]
    )


def _triples(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words[place : place + 3]) for place in range(len(words) - 2))
