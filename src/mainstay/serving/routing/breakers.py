"""Circuit breakers and what else is known of each target: who may be called now, who is busy, who is out.

One `TargetState` for each model at a provider under one credential, one `CredentialState` for each
credential. All times are of the event loop's clock and passed in; nothing here waits or starts tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from mainstay.models.errors import (
    ProviderAuthFailed,
    ProviderBadRequest,
    ProviderError,
    ProviderModelMissing,
    ProviderQuotaExhausted,
    ProviderRateLimited,
)
from mainstay.models.types import ChatProvider, Health, Probed, Target
from mainstay.serving.routing.latency import PeakEwma

CONSECUTIVE_FAILURES: Final = 5
WINDOW_S: Final = 30.0
WINDOW_CALLS_MIN: Final = 20
WINDOW_FAILED_SHARE: Final = 0.5
OPEN_S: Final = 10.0
OPEN_S_MAX: Final = 60.0
LAST_RESORT_S: Final = 1.0
"""An open breaker lets a probe through this soon when there is no other target."""
KEY_OUT_S: Final = 300.0
FORGET_S: Final = 3600.0
STATES_MAX: Final = 10_000
HEALTH_FRESH_S: Final = 15.0
_SLOTS: Final = 6
_SLOT_S: Final = WINDOW_S / _SLOTS

BreakerState = Literal["closed", "open", "half_open"]


class _Window:
    """Calls and failures of the last 30 s, in steps of 5 s."""

    __slots__ = ("_calls", "_failures", "_slot")

    def __init__(self) -> None:
        self._calls = [0] * _SLOTS
        self._failures = [0] * _SLOTS
        self._slot = 0

    def add(self, failed: bool, now_s: float) -> None:
        slot = int(now_s / _SLOT_S)
        if slot != self._slot:
            self._forget_until(slot)
        self._calls[slot % _SLOTS] += 1
        if failed:
            self._failures[slot % _SLOTS] += 1

    def _forget_until(self, slot: int) -> None:
        for passed in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._calls[passed % _SLOTS] = self._failures[passed % _SLOTS] = 0
        self._slot = slot

    def is_bad(self) -> bool:
        calls = sum(self._calls)
        return calls >= WINDOW_CALLS_MIN and sum(self._failures) >= WINDOW_FAILED_SHARE * calls


class Breaker:
    """Opens on 5 failures in a row, or when half of at least 20 calls in 30 s failed.

    Open for 10 s, doubling to 60 s each time its probe fails. Then half open: one call may probe it, and
    its outcome closes or reopens it. Late answers of calls that began before it opened change nothing.
    """

    __slots__ = ("_failed_at_s", "_open_s", "_window", "failures_in_a_row", "probe_at_s", "probing")

    def __init__(self) -> None:
        self.probe_at_s: float | None = None
        self.probing = False
        self.failures_in_a_row = 0
        self._failed_at_s = 0.0
        self._open_s = OPEN_S
        self._window = _Window()

    def allows(self, now_s: float) -> bool:
        return self.probe_at_s is None or (not self.probing and now_s >= self.probe_at_s)

    def allows_last_resort(self, now_s: float) -> bool:
        """When there is no other target: a probe may come early, yet one at a time."""
        return self.allows(now_s) or (not self.probing and now_s - self._failed_at_s >= LAST_RESORT_S)

    def state(self, now_s: float) -> BreakerState:
        if self.probe_at_s is None:
            return "closed"
        return "half_open" if self.probing or now_s >= self.probe_at_s else "open"

    def enter(self) -> bool:
        """A call begins; True when it is the probe of an open breaker. Pass that to what ends the call."""
        if self.probe_at_s is None or self.probing:
            return False
        self.probing = True
        return True

    def released(self, probe: bool) -> None:
        """The call was cut off or says nothing of the target's health: another may probe."""
        if probe:
            self.probing = False

    def succeeded(self, probe: bool, now_s: float) -> None:
        if probe:
            self._close()
        if self.probe_at_s is None:
            self.failures_in_a_row = 0
            self._window.add(False, now_s)

    def failed(self, probe: bool, now_s: float) -> None:
        self._failed_at_s = now_s
        if probe:
            self._open_s = min(OPEN_S_MAX, self._open_s * 2)
            self._open(now_s)
        elif self.probe_at_s is None:
            self.failures_in_a_row += 1
            self._window.add(True, now_s)
            if self.failures_in_a_row >= CONSECUTIVE_FAILURES or self._window.is_bad():
                self._open(now_s)

    def trip(self, now_s: float) -> None:
        """Open it, or keep it open, on better evidence than calls: the server says that it is not well."""
        self._failed_at_s = now_s
        if self.probe_at_s is None or not self.probing:
            self._open(now_s)

    def invite(self, now_s: float) -> None:
        """The server says that it is well again: the next call may probe it."""
        if self.probe_at_s is not None and self.probe_at_s > now_s:
            self.probe_at_s = now_s

    def _open(self, now_s: float) -> None:
        self.probing = False
        self.probe_at_s = now_s + self._open_s

    def _close(self) -> None:
        self.probing = False
        self.probe_at_s = None
        self._open_s = OPEN_S
        self._window = _Window()


class CredentialState:
    """A key at a provider. A new provider object under the same name means new settings: the key is tried."""

    __slots__ = ("_provider", "until_s")

    def __init__(self) -> None:
        self._provider: ChatProvider | None = None
        self.until_s = 0.0
        """When a key that was taken out may be tried again, whoever's key it is now."""

    def take_out(self, provider: ChatProvider, now_s: float) -> None:
        self._provider, self.until_s = provider, now_s + KEY_OUT_S

    def out_until_s(self, provider: ChatProvider, now_s: float) -> float | None:
        if self._provider is not provider or self.until_s <= now_s:
            return None
        return self.until_s


class TargetState:
    """One model at one provider under one credential."""

    __slots__ = (
        "_forbidden",
        "attempts",
        "breaker",
        "credential",
        "failures",
        "health",
        "health_at_s",
        "in_flight",
        "latency",
        "limited_until_s",
        "seen_s",
        "target",
    )

    def __init__(self, target: Target, credential: CredentialState, now_s: float) -> None:
        self.target = target
        self.breaker = Breaker()
        self.credential = credential
        self.latency = (PeakEwma(), PeakEwma())
        self.limited_until_s = 0.0
        self.in_flight = 0
        self.attempts = 0
        self.failures = 0
        self.seen_s = now_s
        self.health: Health | None = None
        self.health_at_s = 0.0
        self._forbidden = CredentialState()

    def ready(self, now_s: float) -> bool:
        """May be called now: its breaker allows it, no rate limit is in force, its key is good."""
        return (
            self.limited_until_s <= now_s
            and (self.breaker.probe_at_s is None or self.breaker.allows(now_s))
            and self.key_out_until_s(now_s) is None
        )

    def key_out_until_s(self, now_s: float) -> float | None:
        if self.credential.until_s <= now_s and self._forbidden.until_s <= now_s:
            return None  # nearly always: nobody's key is out
        provider = self.target.provider
        return self.credential.out_until_s(provider, now_s) or self._forbidden.out_until_s(provider, now_s)

    def latency_of(self, streamed: bool) -> PeakEwma:
        """Time to the first token of streams, or of whole answers: the two are not to be mixed."""
        return self.latency[streamed]

    def outstanding(self, now_s: float) -> int:
        """Requests at the server: ours, or what it says itself while that is fresh; the waiting count twice."""
        health = self.health
        if health is None or now_s - self.health_at_s > HEALTH_FRESH_S:
            return self.in_flight
        return max(self.in_flight, health.running or 0) + (health.waiting or 0)

    def enter(self) -> bool:
        self.in_flight += 1
        self.attempts += 1
        return self.breaker.enter()

    def cut(self, probe: bool) -> None:
        """The caller left, or refused: nothing is held against the target."""
        self.in_flight -= 1
        self.breaker.released(probe)

    def succeeded(self, probe: bool, now_s: float) -> None:
        self.in_flight -= 1
        self.breaker.succeeded(probe, now_s)

    def failed(self, probe: bool, error: Exception, now_s: float) -> None:
        """Judge by the error's type: what the server could not help is not held against it."""
        self.in_flight -= 1
        self.failures += not isinstance(error, ProviderBadRequest)
        if isinstance(error, ProviderAuthFailed | ProviderQuotaExhausted):
            self._key_failed(error, now_s)
            self.breaker.released(probe)
        elif isinstance(error, ProviderRateLimited) and error.retry_after_s is not None:
            self.limited_until_s = max(self.limited_until_s, now_s + error.retry_after_s)
            self.breaker.released(probe)
        elif isinstance(error, ProviderModelMissing):
            self.breaker.released(probe)
        elif isinstance(error, ProviderBadRequest) or (
            isinstance(error, ProviderError) and not error.retryable
        ):
            self.breaker.succeeded(probe, now_s)  # it answered, and the request was wrong
        else:
            self.breaker.failed(probe, now_s)

    def _key_failed(self, error: ProviderError, now_s: float) -> None:
        """401 and 402 are about the key; 403 may be about this one model, and takes the key out for it alone."""
        key = self._forbidden if error.upstream_status == 403 else self.credential
        key.take_out(self.target.provider, now_s)


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target for metrics and pages. `retry_in_s`: until it may be called again; None when it may be now.

    `availability`: the breaker's state, or `limited` (Retry-After), or `key_out` (401, 402, 403).
    `first_token_s` and `whole_s` are what routing expects: they jump to a peak and fade without news. `usual_…`
    are averages of what was measured. `attempts` and `failures` count calls since the target was first seen; a request that was itself wrong, or
    was cut off, is no failure.
    """

    public_name: str
    provider: str
    model: str
    credential: str | None
    availability: BreakerState | Literal["limited", "key_out"]
    in_flight: int
    failures_in_a_row: int
    retry_in_s: float | None
    first_token_s: float | None
    whole_s: float | None
    waiting: int | None
    attempts: int = 0
    failures: int = 0
    usual_first_token_s: float | None = None
    usual_whole_s: float | None = None


class Breakers:
    """The states of all targets in use, made on first sight and forgotten an hour after the last.

    At most 10,000: beyond that the longest unseen idle ones go first. Use from one event loop.
    """

    def __init__(self) -> None:
        self._states: dict[tuple[str, str, str | None], TargetState] = {}
        self._credentials: dict[tuple[str, str | None], CredentialState] = {}
        self._swept_s = 0.0

    def of(self, target: Target, now_s: float) -> TargetState:
        key = (target.provider.name, target.model, target.credential)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._new(target, now_s)
        elif state.target is not target:
            state.target = target
        state.seen_s = now_s
        return state

    def states(self, now_s: float) -> tuple[TargetView, ...]:
        """A snapshot for metrics."""
        self._sweep(now_s)
        return tuple(view(state, now_s) for state in self._states.values())

    def probed(self, now_s: float, used_within_s: float) -> list[tuple[Probed, list[TargetState]]]:
        """Providers in use that can be asked how they are, with their targets."""
        found: dict[int, tuple[Probed, list[TargetState]]] = {}
        for state in self._states.values():
            provider = state.target.provider
            if now_s - state.seen_s <= used_within_s and isinstance(provider, Probed):
                found.setdefault(id(provider), (provider, []))[1].append(state)
        return list(found.values())

    def _new(self, target: Target, now_s: float) -> TargetState:
        if now_s - self._swept_s > FORGET_S / 60 or len(self._states) >= STATES_MAX:
            self._sweep(now_s)
        key = (target.provider.name, target.credential)
        credential = self._credentials.get(key)
        if credential is None:
            credential = self._credentials[key] = CredentialState()
        return TargetState(target, credential, now_s)

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        idle = sorted(
            (s for s in self._states.items() if s[1].in_flight == 0), key=lambda item: item[1].seen_s
        )
        # A tenth at once when there are too many: sweeping stays cheap per call.
        surplus = len(self._states) - STATES_MAX * 9 // 10 if len(self._states) >= STATES_MAX else 0
        for number, (key, state) in enumerate(idle):
            if number >= surplus and now_s - state.seen_s <= FORGET_S:
                break
            del self._states[key]
        used = {(provider, credential) for provider, _, credential in self._states}
        self._credentials = {key: state for key, state in self._credentials.items() if key in used}


def view(state: TargetState, now_s: float) -> TargetView:
    target = state.target
    key_out, breaker = state.key_out_until_s(now_s), state.breaker.state(now_s)
    availability: BreakerState | Literal["limited", "key_out"] = breaker
    if key_out is not None:
        availability = "key_out"
    elif state.limited_until_s > now_s and breaker == "closed":
        availability = "limited"
    return TargetView(
        public_name=target.public_name,
        provider=target.provider.name,
        model=target.model,
        credential=target.credential,
        availability=availability,
        in_flight=state.in_flight,
        failures_in_a_row=state.breaker.failures_in_a_row,
        retry_in_s=retry_in_s((state,), now_s) or None,
        first_token_s=state.latency_of(streamed=True).value_s(now_s),
        whole_s=state.latency_of(streamed=False).value_s(now_s),
        waiting=None if state.health is None else state.health.waiting,
        attempts=state.attempts,
        failures=state.failures,
        usual_first_token_s=state.latency_of(streamed=True).usual_s,
        usual_whole_s=state.latency_of(streamed=False).usual_s,
    )


def retry_in_s(states: Iterable[TargetState], now_s: float) -> float:
    """Until the first of them may be called again; 0.0 when one may be now."""
    return max(0.0, min((_until_s(state, now_s) for state in states), default=now_s) - now_s)


def _until_s(state: TargetState, now_s: float) -> float:
    return max(state.limited_until_s, state.breaker.probe_at_s or 0.0, state.key_out_until_s(now_s) or 0.0)
