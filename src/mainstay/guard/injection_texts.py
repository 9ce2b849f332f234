"""Texts made by program for training the injection detector: attacks, and ordinary text that looks like one.

Written for Mainstay. Hard negatives matter more than attacks: texts *about* prompts and security, role play,
and rules in handbooks, which order people about as attacks order models about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

Slots = Mapping[str, Sequence[str]]
_MARKS = ("Y", "N", "P", "yes", "no", "-", "?", "n/a", "ok", "E", "own", "c", "m", "d")
_DATA = files("mainstay.guard") / "data"


@dataclass(frozen=True, slots=True)
class Grammar:
    """Templates, and the words that may stand in their `{slots}`."""

    templates: Sequence[str]
    slots: Slots


def _grammar(name: str) -> Grammar:
    return Grammar(**_stored()[name])


@cache
def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = yaml.safe_load((_DATA / "injection_grammar.yaml").read_text(encoding="utf-8"))
    return stored


def attacks(count: int, seed: int) -> list[str]:
    return _made(_grammar("attacks"), count, seed, single=0.4)


def benign(count: int, seed: int) -> list[str]:
    """Half single sentences, half runs of several, so that pieces of 40 words occur as in documents."""
    return _made(_grammar("benign"), count, seed, single=0.5)


def paragraphs() -> list[str]:
    """Ordinary prose of many kinds, written for this purpose: handbooks, letters, manuals, news, requests."""
    text = (_DATA / "benign_paragraphs.txt").read_text(encoding="utf-8")
    return text.splitlines()


def tables(count: int, seed: int) -> list[str]:
    """Tables as documents hold them, with cells of numbers, names, marks and codes."""
    rng = random.Random(seed)  # noqa: S311 - training data, not a secret
    slots, codes = _grammar("benign").slots, _stored()["code_words"]
    nouns = [word for slot in ("staff", "thing", "place", "idea") for word in slots[slot]]
    cells: list[Callable[[], str]] = [
        lambda: rng.choice(_MARKS),
        lambda: f"{rng.uniform(0, 5000):.{rng.randrange(3)}f}",
        lambda: rng.choice(nouns),
        lambda: f"{rng.choice(codes)}{rng.choice('._-/:')}{rng.choice(codes)}",
        lambda: f"{rng.choice(nouns)} {rng.choice(('and', 'or', 'by', 'per'))} {rng.choice(nouns)}",
    ]
    made = []
    for _ in range(count):
        edge = rng.choice((" | ", ", ", "; ", "\t"))
        columns = [rng.choice(cells) for _ in range(rng.randrange(3, 9))]
        rows = [edge.join(rng.choice([*nouns, *codes]) for _ in columns)]
        rows += [edge.join(cell() for cell in columns) for _ in range(rng.randrange(2, 8))]
        made.append("\n".join(rows))
    return made


def poisoned(count: int, seed: int) -> list[str]:
    """An attack within ordinary sentences, as it stands in a document: pieces hold both."""
    rng = random.Random(seed)  # noqa: S311 - training data, not a secret
    evil, good = attacks(count, seed + 1), benign(count * 2, seed + 2)
    return [
        f"{_tail(good[2 * i], rng.randrange(0, 13))} {text} {_head(good[2 * i + 1], rng.randrange(0, 13))}".strip()
        for i, text in enumerate(evil)
    ]


def _tail(text: str, words: int) -> str:
    return " ".join(text.split()[-words:]) if words else ""


def _head(text: str, words: int) -> str:
    return " ".join(text.split()[:words])


def _made(grammar: Grammar, count: int, seed: int, single: float) -> list[str]:
    rng = random.Random(seed)  # noqa: S311 - training data, not a secret
    made = []
    for _ in range(count):
        sentences = 1 if rng.random() < single else rng.randrange(2, 5)
        text = " ".join(_filled(rng.choice(grammar.templates), grammar.slots, rng) for _ in range(sentences))
        made.append(_varied(" ".join(text.split()), rng.random))
    return made


def _filled(template: str, slots: Slots, rng: random.Random) -> str:
    text = template
    while "{" in text:
        before, _, rest = text.partition("{")
        name, _, after = rest.partition("}")
        word = rng.choice(slots[name])
        if not before or before.endswith((". ", ": ", "! ")):
            word = word[:1].upper() + word[1:]
        text = before + word + after
    return text


def _varied(text: str, chance: Callable[[], float]) -> str:
    draw = chance()
    if draw < 0.1:
        return text.upper()
    return text.lower() if draw < 0.3 else text
