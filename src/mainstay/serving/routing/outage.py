"""What to say when every target is out of service before one was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mainstay.core.errors import MainstayError
from mainstay.models.errors import ProviderRateLimited
from mainstay.serving.routing.breakers import TargetState, retry_in_s, view
from mainstay.serving.routing.errors import CredentialsExhausted, NoTargetNow


def none_ready(name: str, states: Sequence[TargetState], now_s: float) -> MainstayError:
    """429 when all of them asked for patience, 502 when no key is good, else 503; with the wait, where known."""
    targets = [_said(state, now_s) for state in states]
    if all(state.key_out_until_s(now_s) is not None for state in states):
        return CredentialsExhausted(name, attempts=[], targets=targets)
    wait_s = retry_in_s(states, now_s) or None
    if all(state.limited_until_s > now_s for state in states):
        limited = ProviderRateLimited(
            f"The providers of {name!r} have limited our rate.",
            provider=states[0].target.provider.name,
            fix="Wait, or send fewer requests.",
            retry_after_s=wait_s,
        )
        limited.detail.update(attempts=[], targets=targets)
        return limited
    error = NoTargetNow(
        f"No target of {name!r} is in service now.",
        fix="Send the request again in a moment.",
        attempts=[],
        targets=targets,
    )
    error.retry_after_s = wait_s
    return error


def _said(state: TargetState, now_s: float) -> dict[str, Any]:
    seen = view(state, now_s)
    wait_s = None if seen.retry_in_s is None else round(seen.retry_in_s, 3)
    return {"target": f"{seen.provider}/{seen.model}", "state": seen.availability, "retry_in_s": wait_s}
