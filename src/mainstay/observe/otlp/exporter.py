"""Sending a copy of every trace to another OpenTelemetry back end, in the background."""

from __future__ import annotations

import gzip
import http.client
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from mainstay.core.errors import ConfigError
from mainstay.observe.otlp.encode import encode
from mainstay.observe.types import Span

QUEUE_SPANS_MAX = 20_000
BATCH_SPANS_MAX = 512
GATHER_S = 0.5
RETRY_STATUSES = frozenset((408, 429, 500, 502, 503, 504))
PAUSE_S_MAX = 30.0

log = logging.getLogger(__name__)


class _Refused(Exception):
    """The back end will not take this batch, however often it is sent."""


class _Later(Exception):
    """Not now. `after_s` when the back end says when."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class OtlpExporter:
    """A SpanSink that posts protobuf to `base_url` + `/v1/traces` (OTLP/HTTP).

    Retries on connection errors, 408, 429 and 5xx with jittered exponential back-off (Retry-After obeyed) for
    `give_up_s`, then drops the batch. At most 20,000 spans wait. Every dropped span is counted, logged and
    told to `on_drop`.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        on_drop: Callable[[int], None] | None = None,
        timeout_s: float = 10.0,
        give_up_s: float = 120.0,
        pause_s: float = 0.5,
    ) -> None:
        url = urlsplit(base_url.rstrip("/"))
        if url.scheme not in ("http", "https") or url.hostname is None:
            raise ConfigError(
                f"{base_url!r} is no OTLP/HTTP base URL.", fix="Write it like http://host:4318."
            )
        self.sent = 0
        self.dropped = 0
        self._url = url
        self._path = url.path if url.path.endswith("/v1/traces") else f"{url.path}/v1/traces"
        self._headers = {
            **(headers or {}),
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
        }
        self._on_drop = on_drop
        self._timeout_s, self._give_up_s, self._pause_s = timeout_s, give_up_s, pause_s
        self._connection: http.client.HTTPConnection | None = None
        self._changed = threading.Condition()  # guards the four below
        self._queue: deque[Span] = deque()
        self._busy = False
        self._hurry = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mainstay-otlp-export", daemon=True)
        self._thread.start()

    def record(self, spans: list[Span]) -> None:
        """Hand over spans; never waits. What the queue cannot hold is dropped and counted."""
        with self._changed:
            room = 0 if self._closing else QUEUE_SPANS_MAX - len(self._queue)
            self._queue.extend(spans[:room])
            self._changed.notify_all()
        self._drop(len(spans) - room, "the queue is full")

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until all is sent or dropped; False when that took too long."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits, one try each, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._deliver(batch)
            except Exception:  # the thread's boundary
                log.exception("Spans cannot be exported.")
                self._drop(len(batch), "they cannot be encoded")
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        self._disconnect()

    def _take(self) -> list[Span]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(self._is_due, GATHER_S)
            batch = [self._queue.popleft() for _ in range(min(BATCH_SPANS_MAX, len(self._queue)))]
            self._busy = bool(batch)
            if not self._queue:
                self._hurry = False
            return batch

    def _is_due(self) -> bool:
        return self._hurry or self._closing or len(self._queue) >= BATCH_SPANS_MAX

    def _deliver(self, batch: list[Span]) -> None:
        body = gzip.compress(encode(batch), compresslevel=3)
        give_up, pause_s = time.monotonic() + self._give_up_s, self._pause_s
        while True:
            try:
                self._post(body)
            except _Refused as error:
                return self._drop(len(batch), str(error))
            except _Later as error:
                wait_s = error.after_s if error.after_s is not None else pause_s * random.uniform(0.5, 1)  # noqa: S311
                if self._closing or time.monotonic() + wait_s > give_up:
                    return self._drop(len(batch), str(error))
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, wait_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
            else:
                self.sent += len(batch)
                return None

    def _post(self, body: bytes) -> None:
        try:
            connection = self._connect()
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise _Later(f"{type(error).__name__}: {error}") from error
        if response.status in RETRY_STATUSES:
            after = response.getheader("Retry-After", "")
            raise _Later(f"HTTP {response.status}", float(after) if after.isdigit() else None)
        if response.status >= 300:
            raise _Refused(f"HTTP {response.status}")

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout_s)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _drop(self, count: int, why: str) -> None:
        if count > 0:
            self.dropped += count
            log.error("Dropped %d spans of the OTLP export: %s.", count, why)
            if self._on_drop is not None:
                self._on_drop(count)
