"""Examples for fitting the grounding model, made by program from texts: faithful sentences, and the same with one error.

Faithful: a sentence copied, shortened, or joined with its neighbour. Wrong: one number, name, word or
polarity changed, or a sentence of another text. Deterministic for a seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mainstay.retrieval.facts import OPPOSITES, read_facts
from mainstay.retrieval.porter import stem
from mainstay.retrieval.sentences import split_sentences
from mainstay.retrieval.words import FUNCTION_WORDS

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:\.\d+)?(?![\w]|[.,]\d)")
_WORD = re.compile(r"[A-Za-z][a-z]{3,}")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w-]{2,}")
_VERB = re.compile(r"\b(is|are|was|were|can|has|have|had|may|will|should|does|did)\b")
_ASIDE = re.compile(r"\s*\([^()]{3,}\)")
_OPENING = re.compile(
    r"^(?:However|Moreover|Furthermore|In addition|Here|Therefore|Thus|In conclusion|Finally), "
)
_SENTENCES_MIN = 4


@dataclass(frozen=True, slots=True)
class Example:
    """`supported`: does `context` carry `answer`?"""

    context: str
    answer: str
    supported: bool
    source: str


def make_examples(texts: Sequence[str], seed: int, count: int) -> list[Example]:
    """Up to `count` pairs of a faithful and a wrong example."""
    maker = _Maker(texts, random.Random(seed))  # noqa: S311 (examples, not secrets)
    examples: list[Example] = []
    for text in texts:
        if len(examples) >= 2 * count:
            break
        examples.extend(maker.pair(text))
    return examples


class _Maker:
    def __init__(self, texts: Sequence[str], random_source: random.Random) -> None:
        self._random = random_source
        self._sentences = [text[a:b] for text in texts[:2000] for a, b in split_sentences(text)]
        joined = " ".join(self._sentences[:4000])
        self._names = sorted(set(_NAME.findall(joined)))
        self._words = sorted({word for word in _WORD.findall(joined) if word.lower() not in FUNCTION_WORDS})

    def pair(self, text: str) -> Iterator[Example]:
        sentences = [text[a:b] for a, b in split_sentences(text)]
        if len(sentences) < _SENTENCES_MIN:
            return
        faithful = self._faithful(sentences)
        wrong = self._wrong(self._faithful(sentences), text)
        if faithful and wrong:
            yield Example(text, faithful, True, "made_edits")
            yield Example(text, wrong, False, "made_edits")

    def _faithful(self, sentences: Sequence[str]) -> str:
        place = self._random.randrange(len(sentences) - 1)
        sentence = sentences[place]
        changes = (
            lambda: sentence,
            lambda: _ASIDE.sub("", sentence),
            lambda: self._lower_opening(sentence),
            lambda: f"{sentence.rstrip('.')}, and {sentences[place + 1]}",
            lambda: self._shortened(sentence),
            lambda: self._shortened(sentence),
        )
        return self._random.choice(changes)()

    def _lower_opening(self, sentence: str) -> str:
        shorter = _OPENING.sub("", sentence)
        return shorter[:1].upper() + shorter[1:]

    def _shortened(self, sentence: str) -> str:
        """Every function word may go, as in notes; what it says stays, unless it is a negation."""
        words = sentence.split()
        kept = [
            word
            for word in words
            if word.lower() not in FUNCTION_WORDS - {"not", "no"} or self._random.random() < 0.6
        ]
        return " ".join(kept)

    def _wrong(self, sentence: str, text: str) -> str | None:
        edits = [self._number, self._name, self._opposite, self._negation, self._word, self._elsewhere]
        self._random.shuffle(edits)
        for edit in edits:
            changed = edit(sentence, text)
            if changed is not None and changed != sentence:
                return changed
        return None

    def _number(self, sentence: str, text: str) -> str | None:
        found = list(_NUMBER.finditer(sentence))
        if not found:
            return None
        one = self._random.choice(found)
        value = float(one[0])
        new = value * self._random.choice((0.5, 2, 3)) + self._random.choice((1, 2, 5))
        written = f"{new:.2f}" if "." in one[0] else str(int(new))
        if written in text:
            return None
        return sentence[: one.start()] + written + sentence[one.end() :]

    def _name(self, sentence: str, text: str) -> str | None:
        return self._replace(sentence, text, list(_NAME.finditer(sentence)), self._names)

    def _word(self, sentence: str, text: str) -> str | None:
        found = [one for one in _WORD.finditer(sentence) if one[0].lower() not in FUNCTION_WORDS]
        return self._replace(sentence, text, found, self._words)

    def _replace(
        self, sentence: str, text: str, found: Sequence[re.Match[str]], others: Sequence[str]
    ) -> str | None:
        if not found or not others:
            return None
        one, new = self._random.choice(found), self._random.choice(others)
        if stem(new.lower()) in read_facts(text).stems:
            return None
        return sentence[: one.start()] + new + sentence[one.end() :]

    def _opposite(self, sentence: str, text: str) -> str | None:
        found = [one for one in re.finditer(r"[a-z]+", sentence) if stem(one[0]) in OPPOSITES]
        if not found:
            return None
        one = self._random.choice(found)
        new = self._random.choice(sorted(OPPOSITES[stem(one[0])]))
        return sentence[: one.start()] + new + sentence[one.end() :]

    def _negation(self, sentence: str, text: str) -> str | None:
        if re.search(r"\bnot\b", sentence):
            return re.sub(r"\s*\bnot\b", "", sentence, count=1)
        verb = _VERB.search(sentence)
        return None if verb is None else f"{sentence[: verb.end()]} not{sentence[verb.end() :]}"

    def _elsewhere(self, sentence: str, text: str) -> str | None:
        return self._random.choice(self._sentences)
