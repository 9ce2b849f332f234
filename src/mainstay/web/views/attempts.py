"""Calls to models within a trace: which target answered, which failed and what came next, what was used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mainstay.observe.types import Attr, Span

_OURS: Final = "mainstay.usage.estimated"
"""The gateway says of each of its calls whether it counted itself; other programs' chat spans are no attempts."""

_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "gen_ai.usage.cache_read.input_tokens": ("in", "read from the provider's cache"),
    "gen_ai.usage.cache_creation.input_tokens": ("in", "written to it"),
    "gen_ai.usage.reasoning.output_tokens": ("out", "reasoning"),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one target. `outcome`: `answered`, `failed` or `cut off`; `then` says what followed a failed one."""

    number: int
    span: Span
    outcome: str
    code: str | None
    then: str

    @property
    def target(self) -> str:
        return target_of(self.span)

    @property
    def failed(self) -> bool:
        return self.outcome != "answered"


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens of one class, summed over the trace: `side` is `in` or `out`."""

    side: str
    name: str
    tokens: int


def attempts_of(spans: Sequence[Span]) -> tuple[Attempt, ...]:
    """In the order of their starts."""
    calls = sorted(
        (s for s in spans if s.kind == "client" and _OURS in s.attributes), key=lambda s: s.start_ns
    )
    found = []
    for at, span in enumerate(calls):
        following = calls[at + 1] if at + 1 < len(calls) else None
        failed = span.status == "error"
        code = _text(span, Attr.ERROR_TYPE) if failed else None
        outcome = "answered" if not failed else "cut off" if code == "cancelled" else "failed"
        found.append(Attempt(at + 1, span, outcome, code, _then(span, following) if failed else ""))
    return tuple(found)


def target_of(span: Span) -> str:
    """`openai/gpt-4o-mini, key 2`."""
    provider, model = _text(span, Attr.PROVIDER), _text(span, Attr.REQUEST_MODEL)
    credential = _text(span, "mainstay.credential")
    where = "/".join(part for part in (provider, model) if part) or span.name
    return where if credential is None else f"{where}, {credential}"


def answered_by(attempts: Sequence[Attempt]) -> str | None:
    """The target whose answer went on; None when none answered."""
    return next((a.target for a in reversed(attempts) if not a.failed), None)


def usage_classes(spans: Sequence[Span]) -> tuple[Used, ...]:
    """What of the tokens was read from the provider's cache, written to it, or thought; classes at zero left out."""
    found = []
    for attribute, (side, name) in _CLASSES.items():
        tokens = sum(v for s in spans if isinstance(v := s.attributes.get(attribute), int))
        if tokens:
            found.append(Used(side, name, tokens))
    return tuple(found)


def _then(span: Span, following: Span | None) -> str:
    if following is None:
        return "no other was asked"
    if target_of(following) == target_of(span):
        return "then asked again"
    return f"then {target_of(following)}"


def _text(span: Span, name: str) -> str | None:
    value = span.attributes.get(name)
    return value if isinstance(value, str) and value else None
