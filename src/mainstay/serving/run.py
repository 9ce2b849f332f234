"""The state of one request while the pipeline works on it: what it found, said, used and cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mainstay.core.errors import MainstayError
from mainstay.delivery.types import RunnableRelease
from mainstay.guard.types import Finding, Policy, Verdict
from mainstay.models import cost_nusd, estimate_usage
from mainstay.models.types import ChatCall, ChatMessage, Choice, Delta, FinishReason, Target, Usage
from mainstay.observe import Metrics, TraceBuilder
from mainstay.observe.types import Attr
from mainstay.retrieval.types import Citation, Passage
from mainstay.serving.admission import Admission
from mainstay.serving.deps import Deps
from mainstay.serving.types import (
    CacheState,
    Call,
    Final,
    Grounding,
    RateState,
    Started,
    citation_body,
    finding_body,
)


class ModelCall:
    """One call to a provider, metered. A call cut short costs its input and what it said until then."""

    def __init__(self, target: Target, call: ChatCall) -> None:
        self.target = target
        self.call = call
        self.text: list[str] = []
        self.finish_reason: FinishReason | None = None
        self.failed_unheard = False
        self._usage: Usage | None = None

    def take(self, delta: Delta) -> None:
        if delta.text:
            self.text.append(delta.text)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self._usage = delta.usage or self._usage

    @property
    def usage(self) -> Usage:
        """The provider's own count; ours, marked as estimated, when it gave none."""
        if self._usage is not None:
            return self._usage
        if self.failed_unheard:
            return Usage(0, 0, estimated=True)
        return estimate_usage(self.call, "".join(self.text))

    @property
    def cost_nusd(self) -> int | None:
        if self.failed_unheard:
            return 0
        return None if self.target.price is None else cost_nusd(self.usage, self.target.price)


class Run:
    """One request. Steps write their results here; nothing else is shared between them."""

    def __init__(self, call: Call, deps: Deps) -> None:
        self.call = call
        self.deps = deps
        self.request = call.request
        self.snapshot = deps.snapshots.current
        self.trace = TraceBuilder(
            f"chat.completions {call.request.model}", trace_id=call.trace_id, parent_id=call.parent_id
        )
        self._started_s = time.perf_counter()
        self._target: Target | None = None
        self.runnable: RunnableRelease | None = None
        self.admission: Admission | None = None
        self.rate: RateState | None = None
        self.cache: CacheState = "bypass"
        self.cache_key: str | None = None
        self.messages: tuple[ChatMessage, ...] = call.request.messages
        self.calls: list[ModelCall] = []
        self.findings: list[Finding] = []
        self.passages: tuple[Passage, ...] = ()
        self.context: dict[int, str] = {}  # passage number → its text as the guard lets it go on
        self.citable: dict[int, Passage] = {}  # passage number → it without what must support nothing
        self.citations: tuple[Citation, ...] = ()
        self.grounding = Grounding()
        self.shown: list[str] = []
        self.answered_by: str | None = None
        self.finish_reason: FinishReason = "stop"
        self.refused = False
        self.supported_sentences = 0
        self.scored_sentences = 0
        self._ttft_s: float | None = None
        self._describe_caller()

    @property
    def target(self) -> Target:
        assert self._target is not None
        return self._target

    @target.setter
    def target(self, target: Target) -> None:
        self._target = target
        self.trace.set(Attr.REQUEST_MODEL, target.public_name)
        self.trace.set(Attr.PROVIDER, target.provider.name)

    @property
    def policy(self) -> Policy | None:
        """The release's policy; for plain models the default one, which may be absent."""
        return self.runnable.policy if self.runnable is not None else self.snapshot.default_policy

    @property
    def question(self) -> str:
        """The last user message, as the guard lets it go on."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def max_tokens(self) -> int | None:
        """What caller and release allow together, before the budget has its say."""
        asked = self.request.call.max_tokens
        if self.runnable is None:
            return asked
        limit = self.runnable.generation.max_tokens
        return limit if asked is None else min(asked, limit)

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started_s) * 1000

    @property
    def cost_nusd(self) -> int | None:
        """Of all calls together; None when the price of any is unknown."""
        costs = [call.cost_nusd for call in self.calls]
        return None if any(c is None for c in costs) else sum(c for c in costs if c is not None)

    @property
    def usage(self) -> Usage:
        """Of all calls together."""
        all_usage = [call.usage for call in self.calls]
        return Usage(
            input_tokens=sum(u.input_tokens for u in all_usage),
            output_tokens=sum(u.output_tokens for u in all_usage),
            cached_input_tokens=sum(u.cached_input_tokens for u in all_usage),
            reasoning_tokens=sum(u.reasoning_tokens for u in all_usage),
            estimated=any(u.estimated for u in all_usage),
        )

    def show(self, text: str) -> str:
        """Note that the caller reads `text` now."""
        if not self.shown:
            self._ttft_s = self.elapsed_ms / 1000
            self.trace.set(Attr.TTFT_MS, round(self.elapsed_ms, 3))
        self.shown.append(text)
        return text

    def started(self) -> Started:
        return Started(
            trace_id=self.trace.trace_id,
            snapshot_id=self.snapshot.id,
            model=self.target.public_name,
            provider=self.target.provider.name,
            release=None if self.runnable is None else _release_label(self.runnable),
            cache=self.cache,
            rate=self.rate,
        )

    def final(self) -> Final:
        release = None if self.runnable is None else self.runnable.release
        return Final(
            choices=(Choice(text="".join(self.shown), finish_reason=self.finish_reason),),
            usage=self.usage,
            cost_nusd=self.cost_nusd,
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
        )

    def record(self, final: Final | None, error: BaseException | None) -> None:
        """Hand the finished trace over; never waits and never fails the request."""
        said = "".join(self.shown) if final is None else final.text
        if said:
            self.trace.set(Attr.OUTPUT_MESSAGES, [{"role": "assistant", "content": said}])
        if self.findings:
            self.trace.set(Attr.GUARD, [finding_body(f) for f in self.findings])
        self.trace.set(Attr.CACHE, self.cache)
        if not self.calls:  # no model was asked: nothing was paid, and that is known
            self.trace.set(Attr.COST_NUSD, 0)
        if final is not None:
            self._describe_final(final)
        self.deps.sink.record(self.trace.finish(error))
        if self.deps.metrics is not None:
            self._count(self.deps.metrics, "ok" if error is None else _status(error))

    def _count(self, metrics: Metrics, status: str) -> None:
        release = None if self.runnable is None else self.runnable.release
        app = None if release is None else release.app
        usage = self.usage if self.calls else None
        metrics.observe_request(
            app=app,
            release=None if release is None else release.number,
            model=None if self._target is None else self._target.public_name,
            status=status,
            duration_s=self.elapsed_ms / 1000,
            ttft_s=self._ttft_s,
            input_tokens=None if usage is None else usage.input_tokens,
            output_tokens=None if usage is None else usage.output_tokens,
            cost_nusd=self.cost_nusd,
            cache=self.cache,
        )
        for finding in self.findings:
            metrics.observe_guard(app=app, rail=finding.rail, check=finding.check, action=finding.action)
        if self.scored_sentences:
            metrics.observe_grounding(
                app=app,
                supported=self.supported_sentences,
                unsupported=self.scored_sentences - self.supported_sentences,
            )

    def _describe_caller(self) -> None:
        call, request = self.call, self.request
        self.trace.set(Attr.REQUEST_MODEL, request.model)
        self.trace.set(Attr.KEY, None if call.key is None else call.key.id)
        self.trace.set(
            Attr.USER, request.user or (call.identity.id if call.identity.kind == "user" else None)
        )
        self.trace.set(Attr.REPLAY_OF, call.replay_of)
        conversation = request.metadata.get("conversation_id")
        self.trace.set(Attr.CONVERSATION, conversation if isinstance(conversation, str) else None)

    def describe_messages(self) -> None:
        """Record the messages, as the guard lets them go on: what it masks is not stored either."""
        self.trace.set(Attr.INPUT_MESSAGES, message_bodies(self.messages))

    def describe_blocked(self, verdict: Verdict) -> None:
        """Record of a refused message what its findings show, which is masked; never the message itself."""
        seen = " … ".join(f.excerpt for f in verdict.findings if f.excerpt)
        self.trace.set(Attr.INPUT_MESSAGES, [{"role": "user", "content": f"[refused] {seen}".strip()}])

    def describe_release(self, runnable: RunnableRelease) -> None:
        self.trace.set(Attr.OPERATION, "invoke_agent")
        self.trace.set(Attr.APP, runnable.release.app)
        self.trace.set(Attr.RELEASE, runnable.release.number)
        self.trace.set(Attr.RELEASE_DIGEST, runnable.release.digest)
        self.trace.set(Attr.ENVIRONMENT, runnable.environment)

    def _describe_final(self, final: Final) -> None:
        self.trace.set(Attr.ANSWERED_BY, final.answered_by)
        self.trace.set("mainstay.refused", final.refused)
        self.trace.set(Attr.FINISH_REASONS, [final.finish_reason])
        self.trace.set(Attr.GROUNDED_SHARE, final.grounding.supported_share)
        if final.citations:
            self.trace.set(Attr.CITATIONS, [citation_body(c) for c in final.citations])


def _release_label(runnable: RunnableRelease) -> str:
    return f"{runnable.release.app} r{runnable.release.number}"


def _status(error: BaseException) -> str:
    if isinstance(error, MainstayError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "internal_error"


def message_bodies(messages: Sequence[ChatMessage]) -> list[Any]:
    bodies: list[Mapping[str, str]] = [{"role": m.role, "content": m.content} for m in messages]
    return list(bodies)
