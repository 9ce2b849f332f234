"""Makes a call ready for one target: the money it needs there is held, and only then may it be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mainstay.models.types import ChatCall, Target
from mainstay.serving.admission import UNTRACKED, ask_for, asked_tokens, clamped, has_hard_budget, need_of
from mainstay.serving.errors import BadField
from mainstay.serving.routing.types import Prepare
from mainstay.serving.run import Run

_HARMLESS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "user",
    }
)
"""Fields that change nothing of an answer's meaning: left out where a provider has no place for them."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # Values that ask for nothing, sent by some clients always: no reason to refuse them anywhere.
    "logit_bias": ({},),
    "functions": ([],),
    "modalities": (["text"],),
}


def preparer(run: Run, call: ChatCall) -> Prepare:
    """Routing's `prepare` for this request. Raises the budget's refusals and BadField."""

    async def prepare(target: Target) -> ChatCall:
        shaped = for_target(call, target)
        if run.hold is UNTRACKED or not has_hard_budget(run.scopes):
            limit = asked_tokens(shaped, target)
            return shaped if limit == shaped.max_tokens else replace(shaped, max_tokens=limit)
        # Held already for this very call: nothing but its name and its provider's fields has changed.
        need = run.needs.get(id(target)) if call is run.asked else None
        need, spent_nusd = need or need_of(shaped, target), run.meter.known_cost_nusd
        if need.worst_nusd == 0:  # it is asked even where failed attempts have cost more than was held
            spent_nusd = min(spent_nusd, run.hold.nusd)
        if need.worst_nusd is None or need.worst_nusd + spent_nusd != run.hold.nusd:
            run.hold = await run.deps.limiter.resize(run.hold, ask_for([need], spent_nusd))
        return clamped(shaped, target, need, run.hold, spent_nusd)

    return prepare


def for_target(call: ChatCall, target: Target) -> ChatCall:
    """The call under the target's own name of the model, with nothing that its wire format cannot carry."""
    same_family = call.source_format is not None and call.source_format == target.provider.wire_format
    if same_family:
        return call.named(target.model)
    for name in call.extra:
        refuse_meaningful(name, call.extra[name], f"{target.public_name} has no such field")
    return replace(call, model=target.model, source=None, extra={})


def refuse_meaningful(name: str, value: Any, why: str) -> None:
    """Raise BadField for a field that asks for something: an answer without it would be wrong in silence."""
    if name in _HARMLESS or (name in _NEUTRAL and value in _NEUTRAL[name]):
        return
    raise BadField(name, f"{why}.", fix=f"Leave {name} out.")


def dropped_fields(call: ChatCall, target: Target) -> tuple[str, ...]:
    """Names of harmless fields that `for_target` leaves out."""
    if call.source_format is not None and call.source_format == target.provider.wire_format:
        return ()
    return tuple(sorted(call.extra))
