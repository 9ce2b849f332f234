"""Recording: finished spans leave the request path here and are durable some milliseconds later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from mainstay.core.errors import Unavailable
from mainstay.observe.codec import encode_spans
from mainstay.observe.redact import redact_content
from mainstay.observe.spool import Spool
from mainstay.observe.types import Span, SpanSink

GROUP_COMMIT_S = 0.01
"""How long the first span of a group waits for company; with the disk's fsync it stays within 20 ms."""
QUEUE_SPANS_MAX = 50_000
FRAME_SPANS_MAX = 128
RETRY_S_MAX = 5.0

log = logging.getLogger(__name__)


_Handed = tuple[Sequence[Span], "Future[None] | None"]
"""Spans handed over together, and who waits for them."""


class Recorder:
    """A SpanSink over the spool. `record` never waits; one background thread commits in groups.

    `capture_content=False` leaves prompts, answers and passages out. `copies` (exporters) get what is recorded.
    When the disk refuses, spans wait, up to 50,000; beyond that `record` drops and counts (`on_drop`), while
    `submit` refuses with Unavailable.
    """

    def __init__(
        self,
        spool: Spool,
        capture_content: bool = True,
        copies: Sequence[SpanSink] = (),
        on_drop: Callable[[int], None] | None = None,
    ) -> None:
        self.dropped = 0
        self._spool = spool
        self._capture_content = capture_content
        self._copies = copies
        self._on_drop = on_drop
        self._lock = threading.Lock()  # guards the three below
        self._changed = threading.Condition(self._lock)
        self._hurrying = (
            threading.Event()
        )  # ends a group's wait for company; nothing else wakes the thread then
        self._queue: list[_Handed] = []
        self._queued = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mainstay-recorder", daemon=True)
        self._thread.start()

    def record(self, spans: list[Span]) -> None:
        """Hand over finished spans: the list is not the caller's any more. They are durable within about 20 ms."""
        if spans and not self._put(spans, None):
            self._drop(len(spans))

    def submit(self, spans: list[Span]) -> Future[None]:
        """As `record`, with a future that is done when the spans are durable. Raises Unavailable when full."""
        done: Future[None] = Future()
        if not self._put(spans, done):
            raise Unavailable(
                f"{QUEUE_SPANS_MAX} spans already wait for the disk.", fix="Send them again later."
            )
        return done

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything recorded so far is durable. Raises TimeoutError."""
        if self._thread.is_alive():
            done = self.submit([])
            self._hurrying.set()
            done.result(timeout_s)

    def close(self, timeout_s: float = 30.0) -> None:
        """Write what waits, then stop. What the disk still refuses at the end is dropped and counted."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._hurrying.set()
        self._thread.join(timeout_s)

    def _put(self, spans: Sequence[Span], done: Future[None] | None) -> bool:
        with self._lock:
            if self._closing or (spans and self._queued + len(spans) > QUEUE_SPANS_MAX):
                return False
            self._queue.append((spans, done))
            self._queued += len(spans)
            if len(self._queue) == 1:  # who waits for company is not woken by each one that comes
                self._changed.notify()
            return True

    def _run(self) -> None:
        while True:
            group = self._take()
            if not group:
                return
            self._commit_guarded(group)
            with self._lock:
                self._queued -= sum([len(spans) for spans, _ in group])

    def _commit_guarded(self, group: Sequence[_Handed]) -> None:
        """The thread's boundary: spans that cannot be written are dropped alone, counted, and reported."""
        try:
            self._commit(group)
        except Exception as error:
            if len(group) > 1:
                for handed in group:
                    self._commit_guarded([handed])
                return
            log.exception("Spans cannot be recorded.")
            self._give_up(group, error)

    def _take(self) -> list[_Handed]:
        """All that waits, a little after the first came. Empty only when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
        if not self._closing:
            self._hurrying.wait(GROUP_COMMIT_S)
            self._hurrying.clear()
        with self._changed:
            group, self._queue = self._queue, []
            return group

    def _commit(self, group: Sequence[_Handed]) -> None:
        spans = [span for handed, _ in group for span in handed]
        if not self._capture_content:
            spans = [redact_content(span) for span in spans]
        frames = [encode_spans(spans[i : i + FRAME_SPANS_MAX]) for i in range(0, len(spans), FRAME_SPANS_MAX)]
        if not self._append(frames):
            self._give_up(group, Unavailable("The trace spool cannot be written."))
            return
        for _, done in group:
            if done is not None:
                done.set_result(None)
        for sink in self._copies:
            sink.record(spans)

    def _give_up(self, group: Sequence[_Handed], error: Exception) -> None:
        self._drop(sum(len(spans) for spans, _ in group))
        for _, done in group:
            if done is not None and not done.done():
                done.set_exception(error)

    def _append(self, frames: Sequence[bytes]) -> bool:
        """Append until the disk takes it; False when closing and it does not."""
        pause_s = 0.05
        while True:
            try:
                self._spool.append(frames)
            except Unavailable as error:
                log.error("%s %s", error, error.error_id)  # noqa: TRY400 the cause is in the message
            else:
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, pause_s):
                    return False
            pause_s = min(2 * pause_s, RETRY_S_MAX)

    def _drop(self, count: int) -> None:
        if count:
            self.dropped += count
            log.error("Dropped %d spans that could not be recorded.", count)
            if self._on_drop is not None:
                self._on_drop(count)
