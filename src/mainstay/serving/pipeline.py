"""The life of a request, step by step; each step is one call into the layer that owns it.

`answer` is an asynchronous generator of events. Three callers read it: the gateway writes it as server-sent
events or as one JSON body, and `ask` returns its end to the playground, to evaluation and to replay.
Whoever stops reading closes it (`contextlib.aclosing`): the provider's call ends and its cost is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import cast

from mainstay.core.faults import fault
from mainstay.delivery.types import RunnableRelease
from mainstay.guard.types import Policy, Verdict
from mainstay.models import ProviderError, UnknownModel
from mainstay.models.types import ChatCall, ChatMessage, Delta, SourcePassage, Target
from mainstay.observe import Step
from mainstay.observe.types import Attr
from mainstay.retrieval.types import Passage, Retrieved
from mainstay.serving.admission import admit, fit
from mainstay.serving.answering import checked_answer, refuse
from mainstay.serving.cache import cache_key
from mainstay.serving.calling import call_provider
from mainstay.serving.deps import Deps
from mainstay.serving.errors import BadField, ContentBlocked, ModelNotAllowed, ModelNotFound
from mainstay.serving.grounding import without_instructions
from mainstay.serving.requests import refuse_extra
from mainstay.serving.run import ModelCall, Run, message_bodies
from mainstay.serving.snapshot import ServingSnapshot, may_use
from mainstay.serving.types import Call, Event, Final, finding_body, passage_body

PLAIN_DEADLINE_S = 600.0
"""Deadline of a plain model call; an app's is in its release."""

_INLINE_GUARD_CHARS = 2000
"""Requests with up to this much text are guarded on the event loop: a thread would cost more than the check."""


async def answer(call: Call, deps: Deps) -> AsyncGenerator[Event, None]:
    """Answer one identified call (step 1 is the caller's). Yields Started, TextDelta…, Final.

    Raises the errors of `serving.errors`, ProviderError and UnknownModel; none is raised after Final.
    """
    run = Run(call, deps)
    final: Final | None = None
    failure: BaseException | None = None
    try:
        resolve(run)  # 2
        with admitted(run):  # 3; leaving it settles (10)
            await guard_input(run)  # 4
            cached = look_up(run)  # 5
            yield run.started()
            if cached is not None:
                yield Delta(text=run.show(cached.text))
            else:
                async with aclosing(_app(run) if run.runnable else _plain(run)) as pieces:  # 6 to 9
                    async for piece in pieces:
                        yield Delta(text=run.show(piece))
        final = _replayed(run, cached) if cached is not None else run.final()
        _keep(run, final)
    except BaseException as error:
        failure = error
        raise
    finally:
        run.record(final, failure)  # 11
    yield final


def resolve(run: Run) -> None:
    """Step 2: the name becomes a release or a plain model, from memory."""
    name, key = run.request.model, run.call.key
    if not may_use(key, name):
        raise ModelNotAllowed(name)
    run.runnable = run.snapshot.resolve(name)
    if run.runnable is not None:
        run.describe_release(run.runnable)
    try:
        run.target = run.deps.models.resolve(name if run.runnable is None else run.runnable.model)
    except UnknownModel as error:
        if run.runnable is not None:
            raise
        visible = visible_names(run.snapshot, run.call)
        raise ModelNotFound(name, visible, error.how_to_know) from error
    _refuse_unsupported(run)


def visible_names(snapshot: ServingSnapshot, call: Call) -> list[str]:
    return [n for n in (*snapshot.runnables, *snapshot.models) if may_use(call.key, n)]


def _refuse_unsupported(run: Run) -> None:
    if run.runnable is None:
        if run.target.provider.name == "local":
            refuse_extra(run.request, "a local model")
        return
    refuse_extra(run.request, "an app")
    for index, message in enumerate(run.request.messages):
        if message.role in ("system", "developer"):
            raise BadField(
                f"messages[{index}].role",
                "an app brings its own instructions.",
                fix="Leave system messages out, or ask a model by its own name.",
            )
    if run.request.call.stop:
        raise BadField("stop", "an app answers in whole, checked sentences.", fix="Leave it out.")
    if not run.question.strip():
        raise BadField("messages", "an app needs a user message with a question.")


@contextmanager
def admitted(run: Run) -> Iterator[None]:
    """Steps 3 and 10: count the request, hold its worst case, and settle the true cost on every way out.

    Settling is synchronous, so no cancellation can come between; the ledger takes a hold only once.
    """
    deps, key = run.deps, run.call.key
    run.rate = deps.rates.take(key)
    messages, extra = run.request.messages, _forwarded(run)
    run.admission = admit(deps.ledger, key, run.target, messages, run.max_tokens, extra)
    try:
        yield
    finally:
        fault("serving.before_settle")
        with run.trace.step("settle") as step:
            hold = run.admission.hold
            deps.ledger.settle(hold, run.cost_nusd)
            if hold.account is not None:
                step.set("mainstay.budget.held_nusd", hold.nusd)
                step.set("mainstay.budget.settled_nusd", run.cost_nusd)


async def guard_input(run: Run) -> None:
    """Step 4: what users say is checked; masked text goes on masked, also into the trace."""
    policy = run.policy
    if policy is None or not policy.rails.get("input"):
        run.describe_messages()
        return
    with run.trace.step("guard.input") as step:
        guarded: list[ChatMessage] = []
        short = sum(len(m.content) for m in run.messages) <= _INLINE_GUARD_CHARS
        for message in run.messages:
            if message.role != "user":
                guarded.append(message)
                continue
            verdict = await _checked(run, message.content, policy, inline=short)
            run.findings.extend(verdict.findings)
            step.set(Attr.GUARD, [finding_body(f) for f in run.findings] or None)
            if verdict.action == "block":
                run.describe_blocked(verdict)
                raise ContentBlocked(
                    policy.blocked_message,
                    fix="Rephrase the message.",
                    param="messages",
                    guard=[finding_body(f) for f in verdict.findings],
                )
            guarded.append(replace(message, content=verdict.text))
        run.messages = tuple(guarded)
    run.describe_messages()


def look_up(run: Run) -> Final | None:
    """Step 5: the exact cache, when the release or the caller asks for it."""
    wanted = run.runnable is not None and run.runnable.generation.cache
    if run.call.cache == "skip" or not (wanted or run.call.cache == "use"):
        return None
    with run.trace.step("cache.lookup") as step:
        served_by = run.target.public_name if run.runnable is None else run.runnable.release.digest
        request = replace(run.request, call=replace(run.request.call, messages=run.messages))
        run.cache_key = cache_key(request, run.call.identity, served_by)
        found = run.deps.cache.get(run.cache_key)
        run.cache = "miss" if found is None else "hit"
        step.set(Attr.CACHE, run.cache)
    return found


def _replayed(run: Run, cached: Final) -> Final:
    """A cached answer as this request's own: it cost nothing, and this release's environment asked."""
    environment = None if run.runnable is None else run.runnable.environment
    return replace(
        cached,
        cost_nusd=0,
        latency_ms=run.elapsed_ms,
        trace_id=run.trace.trace_id,
        cache="hit",
        environment=environment,
        guard=(*run.findings, *(f for f in cached.guard if f.rail != "input")),
    )


def _keep(run: Run, final: Final) -> None:
    """Only complete answers are kept; a blocked or cut one is not."""
    if run.cache == "miss" and run.cache_key is not None and final.finish_reason == "stop":
        run.deps.cache.put(run.cache_key, final)


async def _plain(run: Run) -> AsyncGenerator[str, None]:
    """A plain model: steps 6 and 7 fall away, and deltas pass unless a default policy guards the output."""
    call = replace(
        run.request.call,
        model=run.target.model,
        messages=run.messages,
        max_tokens=run.admission.max_tokens if run.admission else None,
        extra=_forwarded(run),
    )
    words = relay(run, run.target, call, PLAIN_DEADLINE_S)
    guarded = run.policy is not None and bool(run.policy.rails.get("output"))
    async with aclosing(checked_answer(run, words) if guarded else words) as pieces:
        async for piece in pieces:
            yield piece


def _forwarded(run: Run) -> dict[str, object]:
    """Same-family fields, untouched. A local engine knows neither users nor metadata."""
    if run.target.provider.name == "local":
        return {}
    own = {"user": run.request.user, "metadata": dict(run.request.metadata) or None}
    return {**run.request.call.extra, **{name: value for name, value in own.items() if value is not None}}


async def _app(run: Run) -> AsyncGenerator[str, None]:
    """An app: retrieve, render, call, check."""
    runnable = cast(RunnableRelease, run.runnable)
    if runnable.corpus is not None:
        answerable = await retrieve(run, runnable, runnable.corpus)
        if not run.passages or answerable < runnable.retrieval.answerable_min:
            yield refuse(run)
            return
    call = render(run, runnable)
    words = relay(run, run.target, call, runnable.generation.deadline_s)

    def last_resort(target: Target) -> AsyncGenerator[str, None]:
        again = replace(call, model=target.model, max_tokens=None)
        return relay(run, target, again, runnable.generation.deadline_s)

    async with aclosing(checked_answer(run, words, last_resort)) as pieces:
        async for piece in pieces:
            yield piece


async def retrieve(run: Run, runnable: RunnableRelease, corpus: str) -> float:
    """Step 6: passages the caller may see, from the pinned snapshot; poisoned ones are dropped. → answerability"""
    deps, groups, question = run.deps, run.call.identity.groups, run.question
    with run.trace.step("retrieve") as step:
        step.set(Attr.OPERATION, "retrieval")
        step.set("mainstay.retrieval.snapshot", corpus)
        found: Retrieved = await asyncio.to_thread(
            deps.retriever.search, corpus, question, runnable.retrieval, groups
        )
        step.set("mainstay.retrieval.answerable", found.answerable)
        step.set(Attr.PASSAGES, [passage_body(p) for p in found.passages])
    run.passages = found.passages
    if found.passages and runnable.policy.rails.get("context"):
        await guard_context(run, runnable)
    return found.answerable


async def guard_context(run: Run, runnable: RunnableRelease) -> None:
    """Documents are untrusted: each passage is checked on its own rail before a model sees it."""

    def check(passages: tuple[Passage, ...]) -> list[Passage]:
        kept = []
        for passage in passages:
            verdict = run.deps.guard.check(passage.text, "context", runnable.policy)
            run.findings.extend(verdict.findings)
            if verdict.action in ("drop", "block"):
                continue
            if verdict.text != passage.text:
                run.context[passage.number] = verdict.text
                run.citable[passage.number] = without_instructions(passage, verdict.findings)
            kept.append(passage)
        return kept

    with run.trace.step("guard.context") as step:
        before = len(run.passages)
        run.passages = tuple(await asyncio.to_thread(check, run.passages))
        step.set(Attr.GUARD, [finding_body(f) for f in run.findings if f.rail == "context"] or None)
        step.set("mainstay.guard.dropped_passages", before - len(run.passages))


def render(run: Run, runnable: RunnableRelease) -> ChatCall:
    """Step 7: the prompt with the passages marked as data; the budget hold is fitted to what will be sent."""
    with run.trace.step("render") as step:
        step.set("mainstay.prompt", runnable.prompt.name)
        step.set("mainstay.prompt.digest", runnable.prompt.digest)
        messages = runnable.prompt.render(_variables(run))
    admission = run.admission
    assert admission is not None
    run.admission = fit(admission, run.deps.ledger, run.call.key, run.target, messages, run.max_tokens)
    request, generation = run.request.call, runnable.generation
    return ChatCall(
        model=run.target.model,
        messages=messages,
        max_tokens=run.admission.max_tokens,
        temperature=generation.temperature if request.temperature is None else request.temperature,
        top_p=request.top_p,
        stop=request.stop,
        seed=generation.seed if request.seed is None else request.seed,
        question=run.question,
        passages=tuple(SourcePassage(p.number, _context_text(run, p)) for p in run.passages),
    )


def _variables(run: Run) -> dict[str, object]:
    """What a request offers a prompt; it takes what it declares. `history`: the messages before the question."""
    last = max(i for i, message in enumerate(run.messages) if message.role == "user")
    return {
        "question": run.question,
        "passages": [{**passage_body(p), "text": _context_text(run, p)} for p in run.passages],
        "history": message_bodies(run.messages[:last]),
    }


def _context_text(run: Run, passage: Passage) -> str:
    return run.context.get(passage.number, passage.text)


async def relay(run: Run, target: Target, call: ChatCall, deadline_s: float) -> AsyncGenerator[str, None]:
    """Step 8: the provider's words as they come, metered, under one client span."""
    metered = ModelCall(target, call)
    run.calls.append(metered)
    with run.trace.step(f"chat {target.model}", kind="client") as step:
        _describe_call(step, target, call)
        try:
            async with aclosing(call_provider(target, call, deadline_s, step, run.deps.sleep)) as deltas:
                async for delta in deltas:
                    if delta.text and not metered.text:
                        step.set(Attr.TTFT_MS, round(run.elapsed_ms, 3))
                    metered.take(delta)
                    if delta.text:
                        yield delta.text
            run.finish_reason = metered.finish_reason or run.finish_reason
        except ProviderError:
            metered.failed_unheard = not metered.text
            raise
        finally:
            _describe_result(step, metered)


def _describe_call(step: Step, target: Target, call: ChatCall) -> None:
    step.set(Attr.OPERATION, "chat")
    step.set(Attr.PROVIDER, target.provider.name)
    step.set(Attr.REQUEST_MODEL, target.model)
    step.set(Attr.INPUT_MESSAGES, message_bodies(call.messages))
    step.set("gen_ai.request.temperature", call.temperature)
    step.set("gen_ai.request.max_tokens", call.max_tokens)
    step.set("gen_ai.request.seed", call.seed)


def _describe_result(step: Step, call: ModelCall) -> None:
    usage = call.usage
    step.set(Attr.INPUT_TOKENS, usage.input_tokens)
    step.set(Attr.OUTPUT_TOKENS, usage.output_tokens)
    step.set("mainstay.usage.estimated", usage.estimated)
    step.set(Attr.COST_NUSD, call.cost_nusd)
    step.set(Attr.OUTPUT_MESSAGES, [{"role": "assistant", "content": "".join(call.text)}])
    if call.finish_reason is not None:
        step.set(Attr.FINISH_REASONS, [call.finish_reason])


async def _checked(run: Run, text: str, policy: Policy, inline: bool) -> Verdict:
    if inline:
        return run.deps.guard.check(text, "input", policy)
    return await asyncio.to_thread(run.deps.guard.check, text, "input", policy)


async def ask(call: Call, deps: Deps) -> Final:
    """Answer in process: the playground's, evaluation's and replay's way in. Raises what `answer` raises."""
    async with aclosing(answer(call, deps)) as events:
        async for event in events:
            if isinstance(event, Final):
                return event
    raise AssertionError("an answer ends with Final or an error")
