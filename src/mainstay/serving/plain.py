"""A plain model: steps 6 and 7 fall away; what is left is the call, and the output rail of the default policy."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from mainstay.models.types import Delta
from mainstay.serving.from_cache import choice_deltas
from mainstay.serving.output_rail import guard_stream, guard_whole
from mainstay.serving.preparing import dropped_fields, preparer
from mainstay.serving.routing.types import Plan
from mainstay.serving.run import Run
from mainstay.serving.structured import emulated


async def whole_answer(run: Run, plan: Plan) -> None:
    """The answer in one piece, in `run.whole`."""
    run.dropped = dropped_fields(run.asked, run.route.targets[0].target)
    if emulation := emulated(run.asked, run.route):
        plan.needs -= {"json_schema"}
        await emulation.answer(run, plan)
    else:
        completion = await run.deps.dispatcher.complete(plan, preparer(run, run.asked), run.meter)
        run.whole = completion.choices
        run.raw = completion.raw if run.asked.source_format == run.target.provider.wire_format else None
    policy = run.policy
    if policy is not None and policy.rails.get("output"):
        await guard_whole(run, policy)


async def streamed_answer(run: Run, plan: Plan) -> AsyncGenerator[Delta, None]:
    """Deltas as they come. One that follows an emulated schema was checked as a whole."""
    if emulated(run.asked, run.route):
        await whole_answer(run, plan)
        for delta in choice_deltas(run.choices(), run.meter.model):
            yield delta
        return
    run.dropped = dropped_fields(run.asked, run.route.targets[0].target)
    policy = run.policy
    guarded = policy is not None and bool(policy.rails.get("output"))
    run.asked = replace(run.asked, relay=not guarded)
    async with aclosing(_streamed(run, plan)) as deltas:
        relayed = guard_stream(run, policy, deltas) if policy is not None and guarded else deltas
        async with aclosing(relayed):
            async for delta in relayed:
                yield delta


async def _streamed(run: Run, plan: Plan) -> AsyncGenerator[Delta, None]:
    meter = run.meter
    stream = run.deps.dispatcher.stream(plan, preparer(run, run.asked), meter)
    async with aclosing(stream):
        async for delta in stream:
            meter.current.take(delta)
            yield delta
