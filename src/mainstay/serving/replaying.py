"""Replay: the question of a recorded trace, asked again of the same or another release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mainstay.core.errors import InvalidInput, NotFound
from mainstay.evaluate.types import Answered
from mainstay.govern.types import Identity
from mainstay.models.types import ChatMessage
from mainstay.observe.types import Attr, Span
from mainstay.serving.asking import ask_messages
from mainstay.serving.deps import Deps


@dataclass(frozen=True, slots=True)
class Replayed:
    """Both answers to `question`: what the trace recorded, and what `model` says now (its trace is linked)."""

    question: str
    original_model: str
    original: Answered
    model: str
    again: Answered


async def replay(spans: Sequence[Span], deps: Deps, identity: Identity, *, on: str | None = None) -> Replayed:
    """Ask again what `spans` (one trace) asked. `on` is an app, `app@env`, `app@rN` or a model; None: the same.

    Raises NotFound when the trace holds no messages (content capture was off, or it is no chat).
    """
    root = _root(spans)
    messages = _messages(root)
    original_model = _original_name(root)
    model = on or original_model
    again = await ask_messages(deps, identity, model, messages, replay_of=root.trace_id)
    question = next(m.content for m in reversed(messages) if m.role == "user")
    return Replayed(question, original_model, recorded_answer(spans), model, again)


def recorded_answer(spans: Sequence[Span]) -> Answered:
    """The answer a trace recorded. `latency_ms` is of the whole request."""
    root = _root(spans)
    get = root.attributes.get
    costs = [s.attributes.get(Attr.COST_NUSD) for s in spans if s.attributes.get(Attr.OPERATION) == "chat"]
    known = [c for c in costs if isinstance(c, int)]
    share, fallback = get(Attr.GROUNDED_SHARE), str(get(Attr.ANSWERED_BY) or "unknown")
    return Answered(
        text=_said(get(Attr.OUTPUT_MESSAGES)),
        refused=get("mainstay.refused") is True,
        citations=_bodies(get(Attr.CITATIONS)),
        passages=next(
            (_bodies(s.attributes[Attr.PASSAGES]) for s in spans if Attr.PASSAGES in s.attributes), ()
        ),
        grounded_share=share if isinstance(share, float | int) else None,
        answered_by=fallback,
        cost_nusd=sum(known) if len(known) == len(costs) else None,
        latency_ms=(root.end_ns - root.start_ns) / 1e6,
        trace_id=root.trace_id,
        error=root.status_message or "failed" if root.status == "error" else None,
    )


def _root(spans: Sequence[Span]) -> Span:
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if span.parent_id not in ids]
    if not roots:
        raise NotFound("This trace has no spans.")
    return min(roots, key=lambda span: span.start_ns)


def _original_name(root: Span) -> str:
    """What runs the same release again: its pinned name for an app, else the model's."""
    app, release = root.attributes.get(Attr.APP), root.attributes.get(Attr.RELEASE)
    if isinstance(app, str) and isinstance(release, int):
        return f"{app}@r{release}"
    model = root.attributes.get(Attr.REQUEST_MODEL)
    if not isinstance(model, str):
        raise InvalidInput(
            "This trace does not say which model was asked.", fix="Name a release to replay it on."
        )
    return model


def _messages(root: Span) -> tuple[ChatMessage, ...]:
    found = tuple(
        ChatMessage(body["role"], str(body["content"]))
        for body in _bodies(root.attributes.get(Attr.INPUT_MESSAGES))
        if body.get("role") in ("system", "developer", "user", "assistant") and "content" in body
    )
    if not any(m.role == "user" for m in found):
        raise NotFound(
            "This trace holds no question to ask again.",
            fix="Turn on the setting capture_content; older traces stay without their texts.",
        )
    return found


def _said(messages: object) -> str:
    return "".join(str(body.get("content") or "") for body in _bodies(messages))


def _bodies(value: Any) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()
