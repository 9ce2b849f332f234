"""Server-sent events, read from bytes as they come (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVENT_BYTES_MAX: Final = 4 << 20


class SseTooLarge(ValueError):
    """One event is larger than EVENT_BYTES_MAX."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    name: str
    data: str


class SseReader:
    """Feed bytes, get whole events. Comments, ids and retry hints are dropped; an unfinished event waits."""

    def __init__(self) -> None:
        self._buffer = b""
        self._name = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Events completed by `chunk`. Raises SseTooLarge."""
        lines = (self._buffer + chunk).splitlines(keepends=True)
        self._buffer = b""
        # A last line without its end, or a lone \r that may be half of \r\n, waits for more.
        if lines and not lines[-1].endswith(b"\n"):
            self._buffer = lines.pop()
        events = [event for line in lines if (event := self._line(line)) is not None]
        if len(self._buffer) + self._data_bytes > EVENT_BYTES_MAX:
            raise SseTooLarge(f"an event exceeds {EVENT_BYTES_MAX} bytes")
        return events

    def _line(self, raw: bytes) -> SseEvent | None:
        line = raw.rstrip(b"\r\n").decode("utf-8", errors="replace")
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._data_bytes += len(raw)
        elif field == "event":
            self._name = value
        return None

    def _dispatch(self) -> SseEvent | None:
        data, name = self._data, self._name
        self._data, self._name, self._data_bytes = [], "", 0
        return SseEvent(name or "message", "\n".join(data)) if data else None
