"""A JSON array, read one object at a time: how a Gemini stream comes when a gateway in between drops `alt=sse`."""

from __future__ import annotations

import re
from typing import Final

from mainstay.models.sse import EVENT_BYTES_MAX, SseReader, SseTooLarge

_MARKS: Final = re.compile(rb'["\\{}]')


class JsonArrayReader:
    """Feed bytes, get whole objects, as bytes. What stands between them is skipped; an unfinished one waits."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self._start = 0
        self._quoted = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises SseTooLarge when one object exceeds EVENT_BYTES_MAX."""
        self._buffer += chunk
        whole: list[bytes] = []
        while (mark := _MARKS.search(self._buffer, self._at)) is not None:
            self._at = mark.end()
            if mark[0] == b"\\" and self._quoted:
                self._at += 1  # what it escapes; it may be in the next chunk
            elif mark[0] == b'"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._brace(mark[0] == b"{", mark.start(), whole)
        self._at = max(self._at, len(self._buffer))
        self._forget()
        return whole

    def _brace(self, opens: bool, at: int, whole: list[bytes]) -> None:
        if opens:
            self._start = at if self._depth == 0 else self._start
            self._depth += 1
            return
        self._depth = max(0, self._depth - 1)
        if self._depth == 0:
            whole.append(bytes(self._buffer[self._start : self._at]))

    def _forget(self) -> None:
        kept = self._start if self._depth else len(self._buffer)
        del self._buffer[:kept]
        self._at -= kept
        self._start = 0
        if len(self._buffer) > EVENT_BYTES_MAX:
            raise SseTooLarge(f"an object exceeds {EVENT_BYTES_MAX} bytes")


class ChunkReader:
    """The chunks of a stream, whichever way its Content-Type says they come."""

    def __init__(self, content_type: str) -> None:
        self._array = None if content_type.startswith("text/event-stream") else JsonArrayReader()
        self._events = SseReader()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises SseTooLarge."""
        if self._array is not None:
            return self._array.feed(chunk)
        return [event.data for event in self._events.feed(chunk)]
