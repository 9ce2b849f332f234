"""Serving: the data plane. `Gateway(deps, hash_token)` is its ASGI application; `ask` and `app_caller` its ways in.

`pipeline.answer` is the life of a request. It reads keys, releases and policies from a `ServingSnapshot` in
memory; only an app's citations are checked against stored documents. A name's module is imported when the
name is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstay.serving.asking import answered, app_caller, ask_messages
    from mainstay.serving.cache import ExactCache
    from mainstay.serving.deps import EXTRACTIVE, Deps, Models, Retriever
    from mainstay.serving.errors import ErrorReply, reply_to
    from mainstay.serving.gateway import Gateway
    from mainstay.serving.grounding import RailGuard, SupportScorer, VersionText, is_refusal
    from mainstay.serving.limits import Journal, LimitsElsewhere, MemoryLimiter, RedisLimiter
    from mainstay.serving.limits.types import BudgetState, Hold, Limiter, LimiterFigures
    from mainstay.serving.pipeline import answer, ask
    from mainstay.serving.replaying import Replayed, recorded_answer, replay
    from mainstay.serving.responses import ResponsesService, ResponseStore
    from mainstay.serving.routing.breakers import TargetView
    from mainstay.serving.routing.dispatch import Dispatcher
    from mainstay.serving.routing.policies import Router
    from mainstay.serving.routing.probing import Prober
    from mainstay.serving.shutdown import Shutdown
    from mainstay.serving.snapshot import Refresher, ServingSnapshot, SnapshotHolder, build_snapshot, may_use
    from mainstay.serving.types import (
        Call,
        ChatRequest,
        Event,
        Final,
        Grounding,
        RateState,
        Started,
        citation_body,
        finding_body,
        passage_body,
    )

_HOMES = {
    "asking": ("answered", "app_caller", "ask_messages"),
    "cache": ("ExactCache",),
    "deps": ("EXTRACTIVE", "Deps", "Models", "Retriever"),
    "errors": ("ErrorReply", "reply_to"),
    "gateway": ("Gateway",),
    "grounding": ("RailGuard", "SupportScorer", "VersionText", "is_refusal"),
    "limits": ("Journal", "LimitsElsewhere", "MemoryLimiter", "RedisLimiter"),
    "limits.types": ("BudgetState", "Hold", "Limiter", "LimiterFigures"),
    "pipeline": ("answer", "ask"),
    "replaying": ("Replayed", "recorded_answer", "replay"),
    "responses": ("ResponsesService", "ResponseStore"),
    "routing.breakers": ("TargetView",),
    "routing.dispatch": ("Dispatcher",),
    "routing.policies": ("Router",),
    "routing.probing": ("Prober",),
    "shutdown": ("Shutdown",),
    "snapshot": ("Refresher", "ServingSnapshot", "SnapshotHolder", "build_snapshot", "may_use"),
    "types": (
        "Call",
        "ChatRequest",
        "Event",
        "Final",
        "Grounding",
        "Prober",
        "RateState",
        "Started",
        "citation_body",
        "finding_body",
        "passage_body",
    ),
}
__all__ = [
    "EXTRACTIVE",
    "BudgetState",
    "Call",
    "ChatRequest",
    "Deps",
    "Dispatcher",
    "ErrorReply",
    "Event",
    "ExactCache",
    "Final",
    "Gateway",
    "Grounding",
    "Hold",
    "Journal",
    "Limiter",
    "LimiterFigures",
    "LimitsElsewhere",
    "MemoryLimiter",
    "Models",
    "Prober",
    "RailGuard",
    "RateState",
    "RedisLimiter",
    "Refresher",
    "Replayed",
    "ResponseStore",
    "ResponsesService",
    "Retriever",
    "Router",
    "ServingSnapshot",
    "Shutdown",
    "SnapshotHolder",
    "Started",
    "SupportScorer",
    "TargetView",
    "VersionText",
    "answer",
    "answered",
    "app_caller",
    "ask",
    "ask_messages",
    "build_snapshot",
    "citation_body",
    "finding_body",
    "is_refusal",
    "may_use",
    "passage_body",
    "recorded_answer",
    "replay",
    "reply_to",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
