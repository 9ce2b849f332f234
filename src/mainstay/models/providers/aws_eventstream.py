"""AWS's binary event streams (`application/vnd.amazon.eventstream`), read from bytes as they come.

A message is: total length, length of the headers and a CRC-32 of these two (4 bytes each, big-endian), the
headers, the payload, and a CRC-32 of all before. Source: Smithy specification, "Amazon Event Stream".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

HEADERS_BYTES_MAX: Final = 128 << 10
PAYLOAD_BYTES_MAX: Final = 24 << 20

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_NUMBERS: Final = {
    2: struct.Struct(">b"),
    3: struct.Struct(">h"),
    4: struct.Struct(">i"),
    5: struct.Struct(">q"),
}
_TRUE, _FALSE, _BYTES, _STRING, _TIMESTAMP, _UUID = 0, 1, 6, 7, 8, 9
_SHORT: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">q")
_OVERHEAD: Final = _PRELUDE.size + _CRC.size

HeaderValue = bool | int | bytes | str


class EventStreamCorrupt(ValueError):
    """Bytes that are no event stream: a wrong checksum, an impossible length, a header of no known type."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """`headers`: timestamps are milliseconds since 1970, UUIDs 16 bytes."""

    headers: Mapping[str, HeaderValue]
    payload: bytes

    def text(self, header: str) -> str:
        """A string header; empty when it is missing."""
        value = self.headers.get(header)
        return value if isinstance(value, str) else ""


class EventStreamReader:
    """Feed bytes, get whole messages; an unfinished one waits."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Of a message that is not yet whole; at the end of a stream there must be none."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[EventMessage]:
        """Messages completed by `chunk`. Raises EventStreamCorrupt; nothing after it can be read."""
        self._buffer += chunk
        messages, start = [], 0
        while len(self._buffer) - start >= _PRELUDE.size:
            total, headers = _lengths(self._buffer, start)
            if len(self._buffer) - start < total:
                break
            messages.append(_message(bytes(self._buffer[start : start + total]), headers))
            start += total
        del self._buffer[:start]
        return messages


def _lengths(buffer: bytearray, start: int) -> tuple[int, int]:
    """Total and headers' length of the message that begins at `start`, once they are known to be true."""
    total, headers, crc = _PRELUDE.unpack_from(buffer, start)
    if crc32(buffer[start : start + 8]) != crc:
        raise EventStreamCorrupt("the checksum of a message's lengths is wrong")
    if (
        headers > HEADERS_BYTES_MAX
        or not headers + _OVERHEAD <= total <= headers + _OVERHEAD + PAYLOAD_BYTES_MAX
    ):
        raise EventStreamCorrupt(f"a message of {total} bytes with {headers} of headers")
    return total, headers


def _message(whole: bytes, headers_length: int) -> EventMessage:
    if crc32(whole[: -_CRC.size]) != _CRC.unpack_from(whole, len(whole) - _CRC.size)[0]:
        raise EventStreamCorrupt("the checksum of a message is wrong")
    end = _PRELUDE.size + headers_length
    return EventMessage(_headers(whole[_PRELUDE.size : end]), whole[end : -_CRC.size])


def _headers(data: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode("utf-8")
            value, at = _value(data, name_end)
            if name in headers:
                raise EventStreamCorrupt(f"the header {name!r} comes twice")
            headers[name] = value
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise EventStreamCorrupt(f"headers that cannot be read ({error})") from error
    if at != len(data):
        raise EventStreamCorrupt("headers that end in the middle of a value")
    return headers


def _value(data: bytes, at: int) -> tuple[HeaderValue, int]:
    """The value whose type byte is at `at`, and where the next header begins."""
    kind, at = data[at], at + 1
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _NUMBERS:
        return _NUMBERS[kind].unpack_from(data, at)[0], at + _NUMBERS[kind].size
    if kind == _TIMESTAMP:
        return _LONG.unpack_from(data, at)[0], at + _LONG.size
    if kind == _UUID:
        return data[at : at + 16], at + 16
    if kind in (_BYTES, _STRING):
        start = at + _SHORT.size
        end = start + _SHORT.unpack_from(data, at)[0]
        return data[start:end] if kind == _BYTES else data[start:end].decode("utf-8"), end
    raise EventStreamCorrupt(f"a header of type {kind}")
