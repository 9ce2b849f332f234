"""Server-sent events, read from bytes as they come (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

EVENT_BYTES_MAX: Final = 4 << 20
_BOM: Final = b"\xef\xbb\xbf"
_CR: Final = 13


class SseTooLarge(ValueError):
    """One event is larger than EVENT_BYTES_MAX."""


class SseEvent(NamedTuple):
    """`event` is the name the stream gave it, None when it gave none. A tuple, as tens of thousands a second pass."""

    event: str | None
    data: bytes


_make = partial(tuple.__new__, SseEvent)
"""What its constructor does, without a call in between."""


class SseReader:
    """Feed bytes, get whole events. Comments, ids and retry hints are dropped; an unfinished event waits."""

    __slots__ = ("_after_cr", "_bom", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the event not yet whole
        self._size = 0
        self._after_cr = False
        self._bom: bytes | None = b""  # what has come while a byte order mark may still begin

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Events completed by `chunk`. Raises SseTooLarge."""
        if (
            chunk[:6] == b"data: "
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk.endswith(b"\n\n")
            and _CR not in chunk
            and not (self._parts or self._after_cr or self._bom)
            and len(chunk) <= EVENT_BYTES_MAX
        ):  # one whole event of one line, as most reads bring
            self._bom = None
            return [_make((None, chunk[6:-2]))]
        if self._bom is not None:
            chunk = self._without_bom(chunk)
        if b"\r" in chunk or self._after_cr:
            chunk = self._line_feeds_only(chunk)
        if self._parts:
            if not self._ends_in(chunk):
                self._keep(chunk)
                return []
            self._parts.append(chunk)
            chunk = b"".join(self._parts)
            self._parts, self._size = [], 0
        if chunk.endswith(b"\n\n"):  # the usual case: nothing is left over
            return _events(chunk[:-2])
        end = chunk.rfind(b"\n\n")
        if end < 0:
            self._keep(chunk)
            return []
        self._keep(chunk[end + 2 :])
        return _events(chunk[:end])

    def _ends_in(self, chunk: bytes) -> bool:
        """Whether the event that waits ends in `chunk`; the blank line may be cut in two."""
        return b"\n\n" in chunk or (chunk[:1] == b"\n" and self._parts[-1].endswith(b"\n"))

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > EVENT_BYTES_MAX:
                raise SseTooLarge(f"an event exceeds {EVENT_BYTES_MAX} bytes")

    def _without_bom(self, chunk: bytes) -> bytes:
        start = (self._bom or b"") + chunk
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._bom = start
            return b""
        self._bom = None
        return start.removeprefix(_BOM)

    def _line_feeds_only(self, chunk: bytes) -> bytes:
        r"""Line ends as \n. A \r ends its line at once; the \n that may follow in the next chunk adds none."""
        if not chunk:
            return chunk
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _events(text: bytes) -> list[SseEvent]:
    r"""The events of blocks parted by blank lines, line ends \n."""
    events = []
    for block in text.split(b"\n\n"):
        if block[:6] == b"data: " and b"\n" not in block and len(block) <= EVENT_BYTES_MAX:
            events.append(_make((None, block[6:])))
        elif (event := _event(block)) is not None:
            events.append(event)
    return events


def _event(block: bytes) -> SseEvent | None:
    if len(block) > EVENT_BYTES_MAX:
        raise SseTooLarge(f"an event exceeds {EVENT_BYTES_MAX} bytes")
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
        elif field == b"event":
            name = value[1:] if value[:1] == b" " else value
    if not data:
        return None
    return SseEvent(name.decode("utf-8", "replace") or None, data[0] if len(data) == 1 else b"\n".join(data))
