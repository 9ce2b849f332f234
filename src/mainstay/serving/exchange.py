"""One HTTP request to the data plane: its ids, what its headers ask for, and the headers every answer carries."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from urllib.parse import parse_qs

from mainstay.core.clock import US_PER_S, Clock
from mainstay.core.ids import new_trace_id
from mainstay.core.money import usd_text
from mainstay.serving.errors import BadField, ErrorReply, RateLimited, TokensLimited
from mainstay.serving.http import RawHeaders, Scope, raw_header
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import CacheState, CacheWish, Final, RateState, Started

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_MAX_AGE = re.compile(r"max-age=(\d{1,9})")
DEADLINE_MS_MAX = 3_600_000


class Exchange:
    """`started` is set once it is known who answers."""

    __slots__ = (
        "_given",
        "created_s",
        "parent_id",
        "path",
        "request_id",
        "scope",
        "started",
        "trace_id",
    )

    def __init__(self, scope: Scope, clock: Clock) -> None:
        self.scope = scope
        self.path: str = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
        # Of headers with one name the first counts.
        self._given: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        own_id = new_trace_id()
        self.request_id = f"req_{own_id}"
        self.trace_id: str = own_id
        self.parent_id: str | None = None
        if b"traceparent" in self._given:
            self._join_trace(self._given[b"traceparent"].decode("latin-1"))
        self.created_s = clock() // US_PER_S
        self.started: Started | None = None

    def _join_trace(self, given: str) -> None:
        """From `traceparent` (W3C Trace Context §3.2); what is not valid counts as absent."""
        parent = _TRACEPARENT.fullmatch(given)
        if parent is not None:
            self.trace_id, self.parent_id = parent.group(1), parent.group(2)

    @property
    def ids(self) -> Ids:
        return Ids(self.request_id, self.trace_id, self.created_s)

    @property
    def query_string(self) -> str:
        raw: bytes = self.scope.get("query_string", b"")
        return raw.decode("latin-1")

    def header(self, name: bytes) -> str | None:
        """The first header called `name` (lower case), as text."""
        value = self._given.get(name)
        return None if value is None else value.decode("latin-1")

    def query(self, name: str) -> str | None:
        if not self.scope.get("query_string"):
            return None
        found = parse_qs(self.query_string).get(name)
        return found[-1] if found else None

    def cache_wish(self) -> tuple[CacheWish, float | None]:
        """From `x-mainstay-cache: use|skip` and `Cache-Control: no-cache|no-store|max-age=…` (RFC 9111 §5.2.1)."""
        given = self._given
        if b"cache-control" not in given and b"x-mainstay-cache" not in given:
            return "release", None
        control, wish = self.header(b"cache-control"), self.header(b"x-mainstay-cache")
        control, wish = (control or "").lower(), (wish or "").lower()
        if wish == "skip" or "no-cache" in control or "no-store" in control:
            return "skip", None
        age = _MAX_AGE.search(control)
        return "use" if wish == "use" else "release", float(age.group(1)) if age else None

    def deadline_s(self) -> float | None:
        """From `x-mainstay-deadline-ms`. Raises BadField."""
        given = self.header(b"x-mainstay-deadline-ms")
        if given is None:
            return None
        if (
            not (given.isascii() and given.isdigit() and len(given) < 10)
            or not 1 <= int(given) <= DEADLINE_MS_MAX
        ):
            raise BadField(
                "x-mainstay-deadline-ms",
                f"must be a whole number from 1 to {DEADLINE_MS_MAX:,}; got {given!r}.",
            )
        return int(given) / 1000

    def client_retry(self) -> int:
        """How often the official SDK has sent this request before."""
        given = self.header(b"x-stainless-retry-count")
        if given is None:
            return 0
        return int(given) if given.isascii() and given.isdigit() and len(given) < 4 else 0

    def headers(self, final: Final | None = None) -> RawHeaders:
        """Of every answer; `final` adds what is known only at its end."""
        request_id = self.request_id.encode()
        found = [
            (b"x-request-id", request_id),
            (b"request-id", request_id),
            (b"x-mainstay-request-id", request_id),
            (b"x-mainstay-trace-id", self.trace_id.encode()),
        ]
        if self.started is not None:
            found += _started_headers(self.started)
        if final is not None:
            found += _final_headers(final)
        return found

    def error_headers(self, reply: ErrorReply, error: Exception) -> RawHeaders:
        found = self.headers() + [raw_header(name.encode(), value) for name, value in reply.headers.items()]
        if isinstance(error, RateLimited):
            found += rate_headers(error.rate, None)
        elif isinstance(error, TokensLimited):
            found += rate_headers(None, error.token_rate)
        return found


def _started_headers(started: Started) -> RawHeaders:
    found = [
        *_target_headers(
            started.model,
            started.provider,
            started.target or started.model,
            started.attempts,
            started.cache,
            started.snapshot_id,
        )
    ]
    if started.release is not None:
        found.append(raw_header(b"x-mainstay-release", started.release))
    if started.fallback_reason is not None:
        found.append(raw_header(b"x-mainstay-fallback-reason", started.fallback_reason))
    if started.cache_age_s is not None:
        found.append((b"age", b"%d" % max(0, started.cache_age_s)))
    if started.dropped:
        found.append(raw_header(b"x-mainstay-dropped-params", ", ".join(started.dropped)))
    if started.budget_remaining_nusd is not None:
        remaining = usd_text(started.budget_remaining_nusd).encode()
        found.append((b"x-mainstay-budget-remaining-usd", remaining))
    if started.soft_exceeded:
        found.append(raw_header(b"x-mainstay-budget-warning", "; ".join(started.soft_exceeded)))
    return found + rate_headers(started.rate, started.token_rate)


@lru_cache(maxsize=1024)
def _target_headers(
    model: str, provider: str, target: str, attempts: int, cache: CacheState, snapshot_id: str
) -> tuple[tuple[bytes, bytes], ...]:
    """Of who answered: the same for all that one target answers under one snapshot."""
    return (
        raw_header(b"x-mainstay-model", model),
        raw_header(b"x-mainstay-provider", provider),
        raw_header(b"x-mainstay-target", target),
        (b"x-mainstay-attempts", b"%d" % attempts),
        (b"x-mainstay-cache", cache.encode()),
        (b"x-mainstay-snapshot", snapshot_id.encode()),
    )


def _final_headers(final: Final) -> RawHeaders:
    overhead_ms = max(0.0, final.latency_ms - final.upstream_ms)
    found = [
        (b"x-mainstay-overhead-ms", b"%.3f" % overhead_ms),
        (b"x-mainstay-cost-source", final.cost_source.encode()),
    ]
    if final.cost_nusd is not None:
        found.append((b"x-mainstay-cost-usd", usd_text(final.cost_nusd).encode()))
    if final.saved_nusd is not None:
        found.append((b"x-mainstay-saved-usd", usd_text(final.saved_nusd).encode()))
    return found


_REQUESTS, _TOKENS = (
    (b"x-ratelimit-limit-" + kind, b"x-ratelimit-remaining-" + kind, b"x-ratelimit-reset-" + kind)
    for kind in (b"requests", b"tokens")
)


def rate_headers(requests: RateState | None, tokens: RateState | None) -> RawHeaders:
    """`x-ratelimit-*` as OpenAI names them."""
    found = [] if requests is None else _rate_headers(_REQUESTS, requests)
    return found if tokens is None else found + _rate_headers(_TOKENS, tokens)


def _rate_headers(names: tuple[bytes, bytes, bytes], state: RateState) -> RawHeaders:
    limit, remaining, reset = names
    return [
        (limit, b"%d" % state.limit),
        (remaining, b"%d" % state.remaining),
        (reset, b"%.3fs" % (math.ceil(state.reset_s * 1000) / 1000)),
    ]
