"""`?dry_run=cost`: where a request would go, what it would cost, and which limit would refuse it. Nothing is sent."""

from __future__ import annotations

import asyncio
from typing import Any

from mainstay.core.clock import to_iso
from mainstay.core.errors import MainstayError
from mainstay.core.money import usd_text
from mainstay.models.prices import expected_nusd
from mainstay.serving.admission import Need, need_of
from mainstay.serving.deps import Deps
from mainstay.serving.errors import reply_to
from mainstay.serving.limits.types import BudgetState
from mainstay.serving.pipeline import admit, plan_for, resolve
from mainstay.serving.routing.policies import LIKELY_OUTPUT_TOKENS
from mainstay.serving.run import Run
from mainstay.serving.types import Call


async def dry_run(call: Call, deps: Deps) -> dict[str, Any]:
    """The report. Raises what resolving the name raises: unknown, not allowed, not supported."""
    run = Run(call, deps)
    resolve(run)
    plan = plan_for(run)
    now_s = asyncio.get_running_loop().time()
    order = deps.dispatcher.router.order(run.route, plan, streamed=call.request.stream, now_s=now_s)
    found = [(routed.target, need_of(run.asked, routed.target)) for routed in order]
    scopes = run.snapshot.scopes_of(call.key, None if run.runnable is None else run.runnable.release.app)
    states = await deps.limiter.states(scopes)
    worst = [need.worst_nusd for _, need in found]
    known = [amount for amount in worst if amount is not None]
    return {
        "object": "mainstay.dry_run",
        "model": call.request.model,
        "release": None if run.runnable is None else run.runnable.release.digest,
        "route": {"name": run.route.name, "policy": run.route.policy},
        "targets": [
            {
                "target": target.public_name,
                "credential": target.credential,
                "provider": target.provider.name,
                "input_tokens_at_most": need.input_tokens,
                "output_tokens_at_most": need.output_tokens * need.choices,
                "worst_cost_usd": _usd(need.worst_nusd),
                "expected_cost_usd": _usd(_expected(need, plan.input_tokens)),
            }
            for target, need in found
        ],
        "worst_cost_usd": _usd(max(known) if known and len(known) == len(worst) else None),
        "budgets": [_budget_body(state, found[0][1] if found else None) for state in states],
        "refusal": await _refusal(run, found[0][1] if found else None),
    }


def _expected(need: Need, input_tokens: int) -> int | None:
    if need.price is None:
        return None
    output = min(need.output_tokens, LIKELY_OUTPUT_TOKENS) * need.choices
    return expected_nusd(input_tokens, output, need.price)


def _usd(nusd: int | None) -> str | None:
    return None if nusd is None else usd_text(nusd)


def _budget_body(state: BudgetState, need: Need | None) -> dict[str, Any]:
    least = None if need is None else need.least_nusd
    return {
        "limit_source": state.kind,
        "scope": state.scope_id,
        "name": state.scope_name,
        "window": state.window,
        "hard": state.hard,
        "limit_usd": usd_text(state.limit_nusd),
        "settled_usd": usd_text(state.spent_nusd),
        "held_usd": usd_text(state.held_nusd),
        "resets_at": None if state.resets_at_us is None else to_iso(state.resets_at_us),
        "would_refuse": state.hard and (least is None or least > state.available_nusd),
    }


async def _refusal(run: Run, need: Need | None) -> dict[str, Any] | None:
    """The error the request would meet now, found by holding what it needs and letting it go at once."""
    try:
        await admit(run)
    except MainstayError as error:
        body: dict[str, Any] = reply_to(error).body["error"]
        return body
    run.deps.limiter.withdraw(run.hold)
    return None
