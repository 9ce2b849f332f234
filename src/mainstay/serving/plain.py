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
from mainstay.serving.structured import Emulation, emulated


async def whole_answer(run: Run, plan: Plan) -> None:
    """The answer in one piece, in `run.whole`."""
    await _whole(run, plan, emulated(run.asked, run.route))


async def _whole(run: Run, plan: Plan, emulation: Emulation | None) -> None:
    run.dropped = dropped_fields(run.asked, run.route.targets[0].target)
    if emulation is not None:
        plan.needs -= {"json_schema"}
        await emulation.answer(run, plan)
    else:
        completion = await run.deps.dispatcher.complete(plan, preparer(run, run.asked), run.meter)
        run.whole = completion.choices
        run.raw = completion.raw if run.asked.source_format == run.target.provider.wire_format else None
    policy = run.policy
    if policy is not None and policy.rails.get("output"):
        await guard_whole(run, policy)


def streamed_answer(run: Run, plan: Plan) -> AsyncGenerator[Delta, None]:
    """Deltas as they come. An answer that follows an emulated schema is checked as a whole first."""
    if emulation := emulated(run.asked, run.route):
        return _in_pieces(run, plan, emulation)
    run.dropped = dropped_fields(run.asked, run.route.targets[0].target)
    policy = run.policy
    if policy is None or not policy.rails.get("output"):
        return _streamed(run, plan)
    run.asked = replace(run.asked, relay=False)
    return guard_stream(run, policy, _streamed(run, plan))


async def _in_pieces(run: Run, plan: Plan, emulation: Emulation) -> AsyncGenerator[Delta, None]:
    await _whole(run, plan, emulation)
    for delta in choice_deltas(run.choices(), run.meter.model):
        yield delta


async def _streamed(run: Run, plan: Plan) -> AsyncGenerator[Delta, None]:
    meter = run.meter
    stream = run.deps.dispatcher.stream(plan, preparer(run, run.asked), meter)
    async with aclosing(stream):
        take = None
        async for delta in stream:
            if take is None:  # whoever has spoken is not replaced
                take = meter.current.take
            take(delta)
            yield delta
