"""Words of a text: tokens, stop words, Porter stems, CJK bigrams. Neutral to language where it can be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from mainstay.retrieval.porter import stem

_WORD = re.compile(r"\w+")
_CJK_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")

_ARTICLES_AND_PREPOSITIONS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there "
    "these they this to was will with"
)
_QUESTION_AND_AUXILIARY_WORDS = (
    "am can could did do does done from had has have he her him his how i its me my our she should so than "
    "them those us we were what when where which who whom whose why would you your"
)
STOP_WORDS = frozenset(_ARTICLES_AND_PREPOSITIONS.split())
"""Too common to search for."""
FUNCTION_WORDS = STOP_WORDS | frozenset(_QUESTION_AND_AUXILIARY_WORDS.split())
"""Carry no content of their own, in questions and in statements."""


def cut_cjk(text: str) -> str:
    """Runs of Chinese, Japanese and Korean characters as overlapping pairs, parted by spaces.

    A word index takes an unspaced run for one word; pairs make its parts findable.
    """
    return _CJK_RUN.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def _pairs(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for start in range(len(run) - 1):
        yield run[start : start + 2]


def without_diacritics(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def tokens(text: str) -> list[str]:
    """Lower-case words in order, diacritics dropped, CJK in pairs."""
    return _WORD.findall(cut_cjk(without_diacritics(text.lower())))


def index_term(word: str) -> str:
    """A word as the index keeps it."""
    return stem(without_diacritics(word))


def search_terms(question: str) -> list[str]:
    """Words to search for, as often as they stand, stop words dropped unless nothing else is left."""
    words = _WORD.findall(cut_cjk(question.lower()))
    return [word for word in words if word not in STOP_WORDS] or words


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry content, in order, repeats kept."""
    return [stem(word) for word in tokens(text) if word not in FUNCTION_WORDS]
