"""The state of one request while the pipeline works on it: what it found, said, used and cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mainstay.core.errors import MainstayError
from mainstay.delivery.types import RunnableRelease
from mainstay.govern.types import LimitScope
from mainstay.guard.types import Finding, Policy, Verdict
from mainstay.models.collect import Collector
from mainstay.models.types import ChatCall, ChatMessage, Choice, FinishReason, Route, Target, Usage
from mainstay.observe import Metrics, TraceBuilder
from mainstay.observe.types import Attr
from mainstay.retrieval.types import Citation, Passage
from mainstay.serving.admission import UNTRACKED, Need
from mainstay.serving.deps import Deps
from mainstay.serving.limits.types import Hold
from mainstay.serving.metering import Meter, message_bodies
from mainstay.serving.routing.types import Plan
from mainstay.serving.types import (
    UNCHECKED,
    CacheState,
    Call,
    Final,
    Started,
    citation_body,
    finding_body,
)

_OPERATIONS = {
    "chat": "chat.completions",
    "completions": "completions",
    "messages": "messages",
    "responses": "responses",
}


class Run:
    """One request. Steps write their results here; nothing else is shared between them."""

    route: Route
    """Set when the name is resolved."""

    __slots__ = (
        "_started_s",
        "_ttft_s",
        "answered_by",
        "asked",
        "cache",
        "cache_age_s",
        "cache_key",
        "call",
        "citable",
        "citations",
        "context",
        "deps",
        "dropped",
        "findings",
        "finish_reason",
        "grounding",
        "has_shown",
        "hold",
        "leads",
        "masked",
        "meter",
        "model_finished",
        "needs",
        "passages",
        "plan",
        "raw",
        "refused",
        "request",
        "route",
        "runnable",
        "scopes",
        "scored_sentences",
        "shown",
        "snapshot",
        "supported_sentences",
        "trace",
        "whole",
    )

    def __init__(self, call: Call, deps: Deps) -> None:
        self.call = call
        self.deps = deps
        self.request = call.request
        self.snapshot = deps.snapshots.current
        self.trace = TraceBuilder(
            f"{_OPERATIONS[call.request.surface]} {call.request.model}",
            trace_id=call.trace_id,
            parent_id=call.parent_id,
        )
        self._started_s = time.perf_counter()
        self.asked: ChatCall = call.request.call
        """What is asked of a model: the request's, its messages as the guard lets them go on."""
        self.runnable: RunnableRelease | None = None
        self.scopes: tuple[LimitScope, ...] = ()
        self.hold: Hold = UNTRACKED
        self.needs: dict[int, Need] = {}
        """What the call as asked needs of each target, by the target's identity."""
        self.plan: Plan | None = None
        self.meter = Meter(self.trace)
        self.cache: CacheState = "bypass"
        self.cache_key: str | None = None
        self.cache_age_s: float | None = None
        self.leads: str | None = None
        """The cache key under which twins of this request wait for its answer."""
        self.findings: list[Finding] = []
        self.masked: Mapping[str, str] = {}
        """Texts of the request and what the guard let go on in their place."""
        self.passages: tuple[Passage, ...] = ()
        self.context: dict[int, str] = {}  # passage number → its text as the guard lets it go on
        self.citable: dict[int, Passage] = {}  # passage number → it without what must support nothing
        self.citations: tuple[Citation, ...] = ()
        self.grounding = UNCHECKED
        self.shown = Collector()
        self.whole: tuple[Choice, ...] | None = None
        """The answer, when it did not come as deltas."""
        self.raw: bytes | None = None
        self.answered_by: str | None = None
        self.finish_reason: FinishReason | None = None
        """Set by what replaces a model's words; None: as the model said."""
        self.model_finished: FinishReason | None = None
        """Why a model stopped whose words are checked before they are shown."""
        self.refused = False
        self.dropped: tuple[str, ...] = ()
        self.supported_sentences = 0
        self.scored_sentences = 0
        self.has_shown = False
        """Whether the caller reads the answer already."""
        self._ttft_s: float | None = None
        self._describe_caller()

    @property
    def target(self) -> Target:
        """Who answers or was asked last; before the first attempt, the route's first."""
        if self.plan is not None and self.plan.attempts:
            return self.plan.attempts[-1].target
        return self.route.targets[0].target

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        return self.asked.messages

    @property
    def policy(self) -> Policy | None:
        """The release's policy; for plain models the default one, which may be absent."""
        return self.runnable.policy if self.runnable is not None else self.snapshot.default_policy

    @property
    def question(self) -> str:
        """The last user message, as the guard lets it go on."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started_s) * 1000

    @property
    def cost_nusd(self) -> int | None:
        """Of all calls together; None when the price of any is unknown."""
        return self.meter.cost_nusd

    def begin_showing(self) -> None:
        """The caller reads the first of the answer now; `shown` takes all that is shown."""
        self.has_shown = True
        self._ttft_s = self.elapsed_ms / 1000
        self.trace.set(Attr.TTFT_MS, round(self._ttft_s * 1000, 3))

    def started(self) -> Started:
        attempts = [] if self.plan is None else self.plan.attempts
        failed = [a.error for a in attempts if a.error is not None]
        target = self.target
        name = target.public_name
        return Started(
            trace_id=self.trace.trace_id,
            snapshot_id=self.snapshot.id,
            model=name,
            provider=target.provider.name,
            release=None if self.runnable is None else _release_label(self.runnable),
            cache=self.cache,
            target=name if target.credential is None else f"{name} ({target.credential})",
            attempts=len(attempts) or 1,
            fallback_reason=_code(failed[-1]) if failed else None,
            rate=self.hold.rate,
            token_rate=self.hold.token_rate,
            budget_remaining_nusd=self.hold.remaining_nusd,
            soft_exceeded=self.hold.soft_exceeded,
            cache_age_s=self.cache_age_s,
            dropped=self.dropped,
        )

    def choices(self) -> tuple[Choice, ...]:
        found = (self.whole if self.whole is not None else self.shown.choices()) or (Choice(),)
        reason = self.finish_reason or self.model_finished
        return found if reason is None else (replace(found[0], finish_reason=reason), *found[1:])

    def final(self) -> Final:
        release = None if self.runnable is None else self.runnable.release
        cost_nusd, usage = self.meter.cost_nusd, self.meter.usage
        return Final(
            choices=self.choices(),
            usage=usage,
            cost_nusd=cost_nusd,
            latency_ms=self.elapsed_ms,
            trace_id=self.trace.trace_id,
            answered_by=self.answered_by or self.target.public_name,
            cache=self.cache,
            app=None if release is None else release.app,
            release=None if release is None else release.number,
            release_digest=None if release is None else release.digest,
            environment=None if self.runnable is None else self.runnable.environment,
            refused=self.refused,
            grounding=self.grounding,
            citations=self.citations,
            passages=self.passages,
            guard=tuple(self.findings),
            response_model=self.meter.model,
            raw=self.raw,
            masked=self.masked,
            cost_source="unknown" if cost_nusd is None else "computed" if usage.estimated else "provider",
            upstream_ms=self.meter.waited_ms,
        )

    def record(self, final: Final | None, error: BaseException | None) -> None:
        """Hand the finished trace over; never waits and never fails the request."""
        choices = final.choices if final is not None else self.choices()
        said = [body for body in map(_said, choices) if body is not None]
        if said:
            self.trace.set(Attr.OUTPUT_MESSAGES, said)
        if self.findings:
            self.trace.set(Attr.GUARD, [finding_body(f) for f in self.findings])
        self.trace.set(Attr.CACHE, self.cache)
        if not self.meter.calls:  # no model was asked: nothing was paid, and that is known
            self.trace.set(Attr.COST_NUSD, 0)
        if final is not None:
            self._describe_final(final)
        self.deps.sink.record(self.trace.finish(error))
        if self.deps.metrics is not None:
            self._count(self.deps.metrics, final, "ok" if error is None else _status(error))

    def _count(self, metrics: Metrics, final: Final | None, status: str) -> None:
        release = None if self.runnable is None else self.runnable.release
        app = None if release is None else release.app
        usage: Usage | None = self.meter.usage if self.meter.calls else None
        metrics.observe_request(
            app=app,
            release=None if release is None else release.number,
            model=self.target.public_name if hasattr(self, "route") else None,
            status=status,
            duration_s=self.elapsed_ms / 1000,
            ttft_s=self._ttft_s,
            input_tokens=None if usage is None else usage.input_tokens,
            output_tokens=None if usage is None else usage.output_tokens,
            cost_nusd=self.cost_nusd,
            cache=self.cache,
        )
        if final is not None and final.saved_nusd:
            metrics.observe_saving(app=app, saved_nusd=final.saved_nusd)
        for finding in self.findings:
            metrics.observe_guard(app=app, rail=finding.rail, check=finding.check, action=finding.action)
        if self.scored_sentences:
            metrics.observe_grounding(
                app=app,
                supported=self.supported_sentences,
                unsupported=self.scored_sentences - self.supported_sentences,
            )

    def _describe_caller(self) -> None:
        call, request, set_ = self.call, self.request, self.trace.set
        set_(Attr.OPERATION, "chat")
        set_(Attr.REQUEST_MODEL, request.model)
        set_(Attr.KEY, None if call.key is None else call.key.id)
        set_(Attr.USER, request.user or (call.identity.id if call.identity.kind == "user" else None))
        set_(Attr.REPLAY_OF, call.replay_of)
        conversation = request.metadata.get("conversation_id")
        set_(Attr.CONVERSATION, conversation if isinstance(conversation, str) else None)

    def describe_messages(self) -> None:
        """Record the messages, as the guard lets them go on: what it masks is not stored either."""
        self.trace.set(Attr.INPUT_MESSAGES, message_bodies(self.messages))

    def describe_blocked(self, verdict: Verdict) -> None:
        """Record of a refused message what its findings show, which is masked; never the message itself."""
        seen = " … ".join(f.excerpt for f in verdict.findings if f.excerpt)
        self.trace.set(Attr.INPUT_MESSAGES, [{"role": "user", "content": f"[refused] {seen}".strip()}])

    def describe_route(self) -> None:
        """A route's own name, where the request gave an app's."""
        self.trace.set(Attr.REQUEST_MODEL, self.route.name)

    def describe_release(self, runnable: RunnableRelease) -> None:
        self.trace.set(Attr.OPERATION, "invoke_agent")
        self.trace.set(Attr.APP, runnable.release.app)
        self.trace.set(Attr.RELEASE, runnable.release.number)
        self.trace.set(Attr.RELEASE_DIGEST, runnable.release.digest)
        self.trace.set(Attr.ENVIRONMENT, runnable.environment)

    def _describe_final(self, final: Final) -> None:
        self.trace.set(Attr.ANSWERED_BY, final.answered_by)
        self.trace.set("mainstay.refused", final.refused)
        self.trace.set(Attr.FINISH_REASONS, [choice.finish_reason for choice in final.choices])
        self.trace.set(Attr.GROUNDED_SHARE, final.grounding.supported_share)
        if final.citations:
            self.trace.set(Attr.CITATIONS, [citation_body(c) for c in final.citations])


def _said(choice: Choice) -> dict[str, Any] | None:
    body: dict[str, Any] = {"role": "assistant", "content": choice.text or choice.refusal}
    if choice.tool_calls:
        body["tool_calls"] = [
            {"id": c.id, "name": c.name, "arguments": c.arguments} for c in choice.tool_calls
        ]
    if choice.reasoning:
        body["reasoning"] = choice.reasoning
    return body if len(body) > 2 or body["content"] else None


def _release_label(runnable: RunnableRelease) -> str:
    return f"{runnable.release.app} r{runnable.release.number}"


def _code(error: BaseException | None) -> str | None:
    return error.code if isinstance(error, MainstayError) else None


def _status(error: BaseException) -> str:
    if isinstance(error, MainstayError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "internal_error"
