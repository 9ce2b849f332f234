"""What the gateway and an engine's process say to each other over a Unix socket pair.

A frame is its payload's length (u32), its kind (u8), the number of the call it belongs to (u32; 0 for the
process itself), all little-endian, and the payload: JSON, or nothing. A CHUNK holds one event of an OpenAI
chat-completions stream as it came from the engine, so that nobody between decodes it.

A call may have WINDOW chunks under way; the reader grants more by CREDIT as it takes them. So a reader who is
behind slows its own call and no other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

WINDOW: Final = 64
FRAME_BYTES_MAX: Final = 64 << 20
_HEAD: Final = struct.Struct("<IBI")


class Kind(IntEnum):
    """From the gateway below 16, from the engine's process from there on."""

    LOAD = 1
    CHAT = 2
    CANCEL = 3
    CREDIT = 4
    COUNT = 5
    PING = 6
    UNLOAD = 7
    READY = 16
    CHUNK = 17
    DONE = 18
    FAILED = 19
    COUNTED = 20
    PONG = 21


class Frame(NamedTuple):
    kind: int
    call: int
    payload: bytes


class Load(msgspec.Struct, frozen=True):
    """How to load a model. `adapters` are paths of LoRA files; a call chooses one by its position.

    `memory_bytes_max`: the process ends itself when it holds more than this.
    """

    name: str
    gguf: str
    adapters: tuple[str, ...]
    threads: int
    slots: int
    context_tokens: int
    memory_bytes_max: int | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why a call failed, or why the process cannot go on (call 0)."""

    code: str
    message: str


class Credit(msgspec.Struct, frozen=True):
    chunks: int


class Counted(msgspec.Struct, frozen=True):
    tokens: int


class BrokenFrame(ValueError):
    """Bytes that cannot be a frame: the other side is not ours, or gone mad."""


def frame(kind: Kind, call: int = 0, payload: bytes = b"") -> bytes:
    """A frame's bytes. Raises BrokenFrame when the payload is beyond FRAME_BYTES_MAX."""
    if len(payload) > FRAME_BYTES_MAX:
        raise BrokenFrame(f"a frame of {len(payload)} bytes is too long")
    return _HEAD.pack(len(payload), kind, call) + payload


def message(kind: Kind, content: msgspec.Struct, call: int = 0) -> bytes:
    return frame(kind, call, msgspec.json.encode(content))


class FrameReader:
    """Takes bytes in any pieces, gives whole frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises BrokenFrame for a length beyond FRAME_BYTES_MAX."""
        self._held += data
        at = 0
        try:
            while len(self._held) - at >= _HEAD.size:
                size, kind, call = _HEAD.unpack_from(self._held, at)
                if size > FRAME_BYTES_MAX:
                    raise BrokenFrame(f"a frame says that it is {size} bytes long")
                end = at + _HEAD.size + size
                if len(self._held) < end:
                    return
                payload = bytes(self._held[at + _HEAD.size : end])
                at = end
                yield Frame(kind, call, payload)
        finally:
            del self._held[:at]
