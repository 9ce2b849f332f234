"""Nouns of the guard layer: rails, findings, decisions, policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mainstay.core.values import value

Rail = Literal["input", "context", "output"]
Action = Literal["allow", "flag", "mask", "drop", "block"]
"""In rising severity. `drop` removes one passage (context) or sentence (output)."""

Unsupported = Literal["keep", "flag", "remove"]


@value
class Finding:
    """What a check saw at text[start:end]. `excerpt` is masked: it never repeats a secret or PII."""

    check: str
    kind: str
    rail: Rail
    action: Action
    score: float
    start: int
    end: int
    excerpt: str


@value
class Verdict:
    """The outcome for one text: the severest action, the text to go on with, and every finding."""

    action: Action
    text: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckRule:
    """One check on one rail: `threshold` for scored checks, `options` as the check defines."""

    check: str
    action: Action
    threshold: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroundingRule:
    """What happens to unsupported sentences, and when the extractive answer replaces a model's.

    `threshold` is on the calibrated support score; `fallback` answers when fewer than
    `min_supported_sentences` remain; `refusal` is said when nothing supports an answer.
    """

    unsupported: Unsupported = "flag"
    threshold: float = 0.5
    fallback: Literal["extractive", "refuse"] = "extractive"
    min_supported_sentences: int = 1
    refusal: str = "The sources do not say."


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    rails: Mapping[Rail, tuple[CheckRule, ...]]
    grounding: GroundingRule = field(default_factory=GroundingRule)
    blocked_message: str = "This request was refused by the app's policy."
