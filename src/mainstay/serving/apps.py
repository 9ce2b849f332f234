"""Steps 6 to 9 for an app: retrieve, render, call, check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from mainstay.delivery.types import RunnableRelease
from mainstay.models import ProviderError
from mainstay.models.capabilities import FIELD_OF, needs
from mainstay.models.types import Capability, ChatCall, Delta, Route, SourcePassage
from mainstay.observe.types import Attr
from mainstay.retrieval.types import Passage, Retrieved
from mainstay.serving.answering import checked_answer, refuse
from mainstay.serving.errors import BadField, UpstreamFailed
from mainstay.serving.grounding import without_instructions
from mainstay.serving.metering import message_bodies
from mainstay.serving.preparing import preparer, refuse_meaningful
from mainstay.serving.routing.types import Plan
from mainstay.serving.run import Run
from mainstay.serving.types import ChatRequest, finding_body, passage_body

_APPS_TAKE: frozenset[Capability] = frozenset({"temperature", "top_p", "seed"})


def refuse_for_app(request: ChatRequest) -> None:
    """An app's release says how it answers: what a caller may not change is refused, not ignored."""
    call = request.call
    for capability in sorted(needs(call) - _APPS_TAKE):
        if capability == "stop":
            raise BadField("stop", "an app answers in whole, checked sentences.", fix="Leave it out.")
        if capability in ("images", "files", "audio"):
            raise BadField(
                "messages", f"an app reads text, no {capability}.", fix="Send the question as text."
            )
        field = FIELD_OF.get(capability, capability)
        raise BadField(field, "an app does not support this field.", fix=f"Leave {field} out.")
    for name, value in call.extra.items():
        refuse_meaningful(name, value, "an app does not support this field")
    for index, message in enumerate(call.messages):
        if message.role in ("system", "developer"):
            raise BadField(
                f"messages[{index}].role",
                "an app brings its own instructions.",
                fix="Leave system messages out, or ask a model by its own name.",
            )
    if not any(m.role == "user" and m.content.strip() for m in call.messages):
        raise BadField("messages", "an app needs a user message with a question.")


def app_limits(call: ChatCall, runnable: RunnableRelease) -> ChatCall:
    """The call within the release's limit of output tokens; the client's own body is never sent on."""
    limit = runnable.generation.max_tokens
    asked = limit if call.max_tokens is None else min(call.max_tokens, limit)
    return replace(call, max_tokens=asked, source=None, source_format=None, extra={})


async def app_answer(run: Run, runnable: RunnableRelease) -> AsyncGenerator[Delta, None]:
    """The app's words, sentence by sentence as policy and sources allow."""
    if runnable.corpus is not None:
        answerable = await retrieve(run, runnable, runnable.corpus)
        if not run.passages or answerable < runnable.retrieval.answerable_min:
            yield Delta(text=refuse(run))
            return
    call = render(run, runnable)
    assert run.plan is not None

    def last_resort(route: Route) -> AsyncGenerator[str, None]:
        assert run.plan is not None
        return words(run, replace(run.plan, route=route, attempts=[]), replace(call, max_tokens=None))

    answered = checked_answer(run, words(run, run.plan, call), last_resort)
    async with aclosing(answered):
        async for text in answered:
            yield Delta(text=text)


async def words(run: Run, plan: Plan, call: ChatCall) -> AsyncGenerator[str, None]:
    """Step 8: a model's words as they come."""
    async with aclosing(run.deps.dispatcher.stream(plan, preparer(run, call), run.meter)) as deltas:
        try:
            async for delta in deltas:
                run.meter.current.take(delta)
                run.model_finished = delta.finish_reason or run.model_finished
                if delta.text:
                    yield delta.text
        except (ProviderError, UpstreamFailed) as error:
            _keep_to_operators(run, error)
            raise


def _keep_to_operators(run: Run, error: ProviderError | UpstreamFailed) -> None:
    """A provider's own words may repeat the prompt with its passages, which are not the caller's to read.

    The spans of the attempts hold them, for who operates the app.
    """
    cause = error.detail.get("cause") or error.code
    error.message = f"The model of {run.request.model!r} failed to answer ({cause})."


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
    """Step 7: the prompt with the passages marked as data. What it costs at most is held before it is sent."""
    with run.trace.step("render") as step:
        step.set("mainstay.prompt", runnable.prompt.name)
        step.set("mainstay.prompt.digest", runnable.prompt.digest)
        messages = runnable.prompt.render(_variables(run))
    asked, generation = run.asked, runnable.generation
    return ChatCall(
        model="",
        messages=messages,
        max_tokens=asked.max_tokens,
        temperature=generation.temperature if asked.temperature is None else asked.temperature,
        top_p=asked.top_p,
        seed=generation.seed if asked.seed is None else asked.seed,
        question=run.question,
        passages=tuple(SourcePassage(p.number, _context_text(run, p)) for p in run.passages),
        user=asked.user,
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
