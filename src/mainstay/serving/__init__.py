"""Serving: the data plane. `Gateway(deps, hash_token)` is its ASGI application; `ask` and `app_caller` its ways in.

`pipeline.answer` is the life of a request. It reads keys, releases and policies from a `ServingSnapshot` in
memory; only an app's citations are checked against stored documents. `Ledger` keeps hard budgets across crashes.
"""

from mainstay.serving.asking import answered, app_caller, ask_messages
from mainstay.serving.cache import ExactCache
from mainstay.serving.deps import EXTRACTIVE, Deps, Models, Retriever
from mainstay.serving.errors import ErrorReply, reply_to
from mainstay.serving.gateway import Gateway
from mainstay.serving.grounding import RailGuard, SupportScorer, VersionText, is_refusal
from mainstay.serving.journal import Journal
from mainstay.serving.ledger import BudgetState, Hold, Ledger
from mainstay.serving.pipeline import answer, ask
from mainstay.serving.rates import RateLimiter
from mainstay.serving.replay import Replayed, recorded_answer, replay
from mainstay.serving.requests import read_chat_request
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

__all__ = [
    "EXTRACTIVE",
    "BudgetState",
    "Call",
    "ChatRequest",
    "Deps",
    "ErrorReply",
    "Event",
    "ExactCache",
    "Final",
    "Gateway",
    "Grounding",
    "Hold",
    "Journal",
    "Ledger",
    "Models",
    "RailGuard",
    "RateLimiter",
    "RateState",
    "Refresher",
    "Replayed",
    "Retriever",
    "ServingSnapshot",
    "SnapshotHolder",
    "Started",
    "SupportScorer",
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
    "read_chat_request",
    "recorded_answer",
    "replay",
    "reply_to",
]
