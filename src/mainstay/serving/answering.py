"""Step 9: what of a model's words is shown, and what is said instead when too little of it is supported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from mainstay.guard.types import GroundingRule, Policy, Rail
from mainstay.models.types import Route
from mainstay.observe import Step
from mainstay.observe.types import Attr
from mainstay.retrieval import has_end
from mainstay.retrieval.types import Citation
from mainstay.serving.deps import EXTRACTIVE
from mainstay.serving.grounding import GroundedText, Numbering, SentenceCutter, SentenceJudge
from mainstay.serving.run import Run
from mainstay.serving.types import Grounding, citation_body, finding_body

WITHHELD = "[withheld by the app's policy]"

LastResort = Callable[[Route], AsyncGenerator[str, None]]
"""Asks another model the same question."""


async def checked_answer(
    run: Run, words: AsyncGenerator[str, None], last_resort: LastResort | None = None
) -> AsyncGenerator[str, None]:
    """Relay `words` sentence by sentence as policy and sources allow; replace them when they do not stand.

    Sets the run's grounding, citations, findings and `answered_by`. `last_resort` is for apps with a corpus.
    """
    policy = run.policy
    assert policy is not None
    numbering = Numbering()
    text = GroundedText(policy.grounding, numbering)
    with run.trace.step("ground" if run.passages else "guard.output") as step:
        async with aclosing(_judged(run, policy, words, text)) as pieces:
            async for piece in pieces:
                yield piece
        rest = text.flush() if text.enough and not text.blocked else ""
        run.grounding = _grounding(text)
        run.supported_sentences, run.scored_sentences = text.supported, text.scored
        run.answered_by = run.target.public_name
        if text.blocked:
            yield _blocked(run, policy, text)
        elif run.passages and not text.enough:
            async with aclosing(_instead(run, policy, text, numbering, last_resort)) as pieces:
                async for piece in pieces:
                    yield piece
        elif rest:
            yield rest
        run.citations = await asyncio.to_thread(_shown_citations, run, policy, numbering)
        _describe(run, step)


def refuse(run: Run) -> str:
    """The policy's refusal, when the sources hold no answer."""
    policy = run.policy
    assert policy is not None
    run.refused = True
    run.finish_reason = "stop"
    run.answered_by = "refusal"
    run.grounding = replace(run.grounding, fallback="refused")
    return policy.grounding.refusal


async def _judged(
    run: Run, policy: Policy, words: AsyncGenerator[str, None], text: GroundedText
) -> AsyncGenerator[str, None]:
    """Cut, judge off the event loop, show what may be shown; stops reading when a sentence is blocked."""
    sources = [run.citable.get(p.number, p) for p in run.passages]
    judge = SentenceJudge(run.deps.guard, policy, sources, run.deps.scorer, run.deps.version_text)
    cutter = SentenceCutter(drop_markers=bool(run.passages))
    try:
        async with aclosing(words):
            async for piece in words:
                for gap, sentence in cutter.feed(piece):
                    if shown := text.take(gap, await asyncio.to_thread(judge, sentence)):
                        yield shown
                    if text.blocked:
                        return
        for gap, sentence in cutter.rest():
            if run.passages and run.model_finished == "length" and not has_end(sentence):
                text.cut_off(await asyncio.to_thread(judge, sentence))
                continue
            if shown := text.take(gap, await asyncio.to_thread(judge, sentence)):
                yield shown
            if text.blocked:
                return
        if cutter.tail and run.has_shown and not run.passages:
            yield cutter.tail
    finally:
        run.findings.extend(text.findings)


async def _instead(
    run: Run, policy: Policy, text: GroundedText, numbering: Numbering, last_resort: LastResort | None
) -> AsyncGenerator[str, None]:
    """The model's words do not stand: its own refusal, the sources' own sentences, or the policy's refusal."""
    if text.refusals and not text.supported:
        said = refuse(run)
        run.answered_by = run.target.public_name
        run.grounding = replace(run.grounding, fallback=None)
        yield said
        return
    run.grounding = replace(run.grounding, removed=(*text.removed, *text.discard()))
    usable = last_resort is not None and run.target.public_name != EXTRACTIVE
    if policy.grounding.fallback == "extractive" and usable and last_resort is not None:
        route = run.deps.models.route(EXTRACTIVE)
        strict = replace(policy, grounding=_strict(policy.grounding))
        extracted = GroundedText(strict.grounding, numbering)
        async with aclosing(_judged(run, strict, last_resort(route), extracted)) as pieces:
            async for piece in pieces:
                yield piece
        if extracted.enough:
            yield extracted.flush()
            run.answered_by, run.finish_reason = route.name, "stop"
            run.grounding = replace(run.grounding, fallback="extractive")
            return
    yield refuse(run)


def _strict(rule: GroundingRule) -> GroundingRule:
    return replace(rule, unsupported="remove", min_supported_sentences=1)


def _blocked(run: Run, policy: Policy, text: GroundedText) -> str:
    run.finish_reason = "content_filter"
    run.answered_by = "refusal"
    run.refused = True
    return policy.blocked_message if not run.has_shown else f"\n\n{policy.blocked_message}"


def _grounding(text: GroundedText) -> Grounding:
    return Grounding(text.supported_share, tuple(text.removed), tuple(text.flagged))


def _shown_citations(run: Run, policy: Policy, numbering: Numbering) -> tuple[Citation, ...]:
    """Quotes were verified against the stored text; what the policy masks in an answer is masked in them too."""
    rails: tuple[Rail, ...] = ("context", "output")
    return tuple(replace(c, quote=_guarded_quote(run, policy, c.quote, rails)) for c in numbering.citations)


def _guarded_quote(run: Run, policy: Policy, quote: str, rails: tuple[Rail, ...]) -> str:
    for rail in rails:
        verdict = run.deps.guard.check(quote, rail, policy)
        if verdict.action in ("drop", "block"):
            return WITHHELD
        quote = verdict.text
    return quote


def _describe(run: Run, step: Step) -> None:
    step.set(Attr.GROUNDED_SHARE, run.grounding.supported_share)
    step.set(Attr.ANSWERED_BY, run.answered_by)
    step.set("mainstay.grounding.removed", list(run.grounding.removed))
    step.set("mainstay.grounding.fallback", run.grounding.fallback)
    step.set(Attr.CITATIONS, [citation_body(c) for c in run.citations] or None)
    step.set(Attr.GUARD, [finding_body(f) for f in run.findings if f.rail == "output"] or None)
