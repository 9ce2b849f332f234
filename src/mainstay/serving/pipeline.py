"""The life of a request, step by step; each step is one call into the layer that owns it.

`answer` is an asynchronous generator of events. Three callers read it: the gateway writes it as server-sent
events or as one JSON body, and `ask` returns its end to the playground, to evaluation and to replay.
Whoever stops reading closes it (`contextlib.aclosing`): the provider's call ends and its cost is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from mainstay.core.clock import US_PER_S
from mainstay.core.faults import fault
from mainstay.models import UnknownModel
from mainstay.models.capabilities import needs
from mainstay.models.types import Delta
from mainstay.observe.types import Attr
from mainstay.serving.admission import UNTRACKED, ask_for, needs_of
from mainstay.serving.apps import app_answer, app_limits, refuse_for_app
from mainstay.serving.cache import TTL_S, Cached, cache_key
from mainstay.serving.deps import Deps
from mainstay.serving.errors import ModelNotAllowed, ModelNotFound
from mainstay.serving.from_cache import choice_deltas, replayed
from mainstay.serving.input_rail import guard_input
from mainstay.serving.plain import streamed_answer, whole_answer
from mainstay.serving.routing.errors import deadline_exceeded
from mainstay.serving.routing.sticky import sticky_key
from mainstay.serving.routing.types import Plan
from mainstay.serving.run import Run
from mainstay.serving.snapshot import ServingSnapshot, may_use
from mainstay.serving.types import Call, Event, Final


async def answer(call: Call, deps: Deps) -> AsyncGenerator[Event, None]:
    """Answer one identified call (step 1 is the caller's). Yields Started, Delta…, Final.

    Raises the errors of `serving.errors`, ProviderError and UnknownModel; none is raised after Final.
    An answer that was not asked for as a stream comes whole, in Final.
    """
    run = Run(call, deps)
    final: Final | None = None
    failure: BaseException | None = None
    try:
        resolve(run)  # 2
        await admit(run)  # 3
        await _guard(run)  # 4
        cached = await look_up(run)  # 5
        pieces = _again(run, cached) if cached is not None else await _anew(run)
        if pieces is not None:
            async with aclosing(pieces):
                take = run.shown.take
                async for delta in pieces:
                    if not run.has_shown:
                        yield run.started()
                        run.begin_showing()
                    take(delta)
                    yield delta
        if not run.has_shown:
            yield run.started()
        final = replayed(run, cached) if cached is not None else run.final()
        _keep(run, final)
    except BaseException as error:
        failure = error
        raise
    finally:
        settle(run)  # 10
        run.record(final, failure)  # 11
    yield final


def resolve(run: Run) -> None:
    """Step 2: the name becomes a release or a route, from memory."""
    name, key = run.request.model, run.call.key
    if not may_use(key, name):
        raise ModelNotAllowed(name)
    run.runnable = run.snapshot.resolve(name)
    if run.runnable is not None:
        run.describe_release(run.runnable)
    try:
        run.route = run.deps.models.route(name if run.runnable is None else run.runnable.model)
        run.describe_route()
    except UnknownModel as error:
        if run.runnable is not None:
            raise
        visible = visible_names(run.snapshot, run.call)
        raise ModelNotFound(name, visible, error.how_to_know) from error
    if run.runnable is not None:
        refuse_for_app(run.request)
        run.asked = app_limits(run.asked, run.runnable)
        run.meter.with_messages = True


def visible_names(snapshot: ServingSnapshot, call: Call) -> list[str]:
    return [n for n in (*snapshot.runnables, *snapshot.models) if may_use(call.key, n)]


async def admit(run: Run) -> None:
    """Step 3: count the request against every limit it falls under, and hold its worst case."""
    app = None if run.runnable is None else run.runnable.release.app
    run.scopes = run.snapshot.scopes_of(run.call.key, app)
    if run.scopes:
        targets = [routed.target for routed in run.route.targets]
        needed = needs_of(run.asked, targets)
        run.needs = dict(zip(map(id, targets), needed, strict=True))
        run.hold = await run.deps.limiter.reserve(run.scopes, ask_for(needed))
        fault("serving.after_reserve")


async def _guard(run: Run) -> None:
    """Step 4. A mask may be longer than what it hides: what the call needs is then counted anew."""
    admitted = run.asked
    await guard_input(run)
    if run.asked is not admitted:
        run.needs = {}


def settle(run: Run) -> None:
    """Step 10: the hold becomes what was spent, on every way out, and twins that wait are told.

    Synchronous, so that no cancellation can come between.
    """
    if run.leads is not None:  # first: whatever fails here must not leave twins waiting
        run.deps.flights.land(run.leads)
    fault("serving.before_settle")
    if run.hold is not UNTRACKED:
        cost, usage = run.cost_nusd, run.meter.usage
        run.deps.limiter.settle(run.hold, cost, usage.input_tokens + usage.output_tokens)
        run.trace.set("mainstay.budget.held_nusd", run.hold.nusd)
        run.trace.set("mainstay.budget.settled_nusd", cost)


async def look_up(run: Run) -> Cached | None:
    """Step 5: the exact cache, when the route, the release or the caller asks for it.

    A request whose twin is being answered waits for that answer; else this one leads those that come after it.
    """
    if not _caches(run):
        return None
    call, cache, flights = run.call, run.deps.cache, run.deps.flights
    run.cache_key = key = cache_key(
        run.request.surface, run.asked, call.identity, _tenant(call), _served_by(run)
    )
    found = cache.get(key, call.cache_max_age_s)
    if found is not None or run.runnable is not None or key in flights:  # else the trace says: a miss
        with run.trace.step("cache.lookup") as step:
            if found is None and key in flights:
                found = await _of_twin(run, key)
            run.cache = "miss" if found is None else "hit"
            step.set(Attr.CACHE, run.cache)
    else:
        run.cache = "miss"
    if found is None and flights.lead(key):
        run.leads = key
    return found


async def _of_twin(run: Run, key: str) -> Cached | None:
    """The answer of the request that leads with this key; None without one, or when it came to nothing.

    It was made after this request came, so it is young enough whatever `max-age` says. Raises DeadlineExceeded.
    """
    began_us, max_age_s = run.deps.clock(), run.call.cache_max_age_s
    try:
        async with asyncio.timeout(_left_s(run)):
            if not await run.deps.flights.join(key):
                return None
    except TimeoutError:
        raise deadline_exceeded(run.route.name) from None
    waited_s = (run.deps.clock() - began_us) / US_PER_S
    return run.deps.cache.get(key, None if max_age_s is None else max(max_age_s, waited_s))


def _caches(run: Run) -> bool:
    if run.call.cache == "skip":
        return False
    by_release = run.runnable is not None and run.runnable.generation.cache
    return (
        by_release or run.call.cache == "use" or (run.runnable is None and run.route.cache_ttl_s is not None)
    )


def _tenant(call: Call) -> str:
    """Answers are shared within a project; a key without one is a tenant of its own."""
    if call.key is not None and call.key.project_id is not None:
        return f"project:{call.key.project_id}"
    return call.identity.id


def _served_by(run: Run) -> str:
    route = run.route
    if run.runnable is not None:
        return f"{run.runnable.release.digest};{route.name}={route.target_names}"
    return f"{route.name}={route.target_names};{run.snapshot.policy_digest}"


def _keep(run: Run, final: Final) -> None:
    """Only complete answers are kept; a blocked or cut one, or one that calls tools, is not."""
    if run.cache != "miss" or run.cache_key is None or final.refused:
        return
    for choice in final.choices:
        if choice.finish_reason != "stop" or choice.tool_calls:
            return
    ttl_s = run.route.cache_ttl_s if run.runnable is None else None
    kept = replace(final, masked={}) if final.masked else final
    run.deps.cache.put(run.cache_key, kept, TTL_S if ttl_s is None else ttl_s)


async def _again(run: Run, cached: Cached) -> AsyncGenerator[Delta, None]:
    """A cached answer, as a stream when one was asked for."""
    run.trace.set(Attr.SAVED_NUSD, cached.final.cost_nusd)
    run.cache_age_s = (run.deps.clock() - cached.stored_at_us) / 1e6
    if not run.request.stream:
        return
    for delta in choice_deltas(cached.final.choices, cached.final.response_model):
        yield delta


async def _anew(run: Run) -> AsyncGenerator[Delta, None] | None:
    """Steps 6 to 9; None when the answer is there as a whole.

    An app retrieves, renders, calls and checks; for a plain model only the call is made.
    """
    run.plan = plan = plan_for(run)
    if run.runnable is not None:
        return app_answer(run, run.runnable)
    if run.request.stream:
        return streamed_answer(run, plan)
    await whole_answer(run, plan)
    return None


def plan_for(run: Run) -> Plan:
    """What the attempts of this request share."""
    route, call = run.route, run.asked
    return Plan(
        route=route,
        ends_at_s=asyncio.get_running_loop().time() + _left_s(run),
        needs=needs(call),
        input_tokens=sum([len(m.content) for m in call.messages]) // 4,
        max_tokens=call.max_tokens,
        sticky_key=sticky_key(run.request) if route.sticky else None,
        client_retry=run.call.client_retry,
    )


def _left_s(run: Run) -> float:
    """Until the deadline of the route or release, or the caller's own when that is sooner."""
    deadline_s = run.route.deadline_s if run.runnable is None else run.runnable.generation.deadline_s
    if run.call.deadline_s is not None:
        deadline_s = min(deadline_s, run.call.deadline_s)
    return max(0.0, deadline_s - run.elapsed_ms / 1000)


async def ask(call: Call, deps: Deps) -> Final:
    """Answer in process: the playground's, evaluation's and replay's way in. Raises what `answer` raises."""
    async with aclosing(answer(call, deps)) as events:
        async for event in events:
            if isinstance(event, Final):
                return event
    raise AssertionError("an answer ends with Final or an error")
