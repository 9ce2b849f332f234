"""Rewrite a GGUF file so that llama.cpp runs it faster on a CPU: Q4_1 tensors become Q8_0.

llama.cpp has fast matrix kernels for Q8_0 on x86 and ARM but none for Q4_1. On SmolLM2-135M the same
answer took 1.5 instead of 2.2 CPU seconds (300 tokens read, 32 written), for a file half as large again.
Next to nothing is lost: 8-bit steps are 8 to 16 times finer than the 4-bit ones they store.

Source of the layout: the GGUF specification (ggml, docs/gguf.md, version 3) and ggml's block formats.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from mainstay.core.errors import InvalidInput

_Q4_1, _Q8_0 = 3, 8
_BLOCK: Final = 32
_Q4_1_BYTES, _Q8_0_BYTES = 20, 34
_FILE_TYPE_MOSTLY_Q8_0: Final = 7
_STRING, _ARRAY = 8, 9
_SCALAR_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_CHUNK_BLOCKS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: bytes
    dimensions: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Header:
    """`metadata` holds the key-value pairs as they stand in the file, its file type changed to Q8_0."""

    version: int
    pairs: int
    metadata: bytes
    tensors: tuple[_Tensor, ...]
    alignment: int
    data_start: int


def store_as_q8_0(source: Path, target: Path) -> None:
    """Write `target` with every Q4_1 tensor of `source` as Q8_0; all else is copied bit for bit.

    Raises InvalidInput when `source` is no GGUF file of version 2 or 3, or is cut short.
    """
    data = np.memmap(source, dtype=np.uint8, mode="r")
    try:
        header = _read_header(data, source)
    except (struct.error, KeyError) as error:
        raise InvalidInput(f"{source} is no whole GGUF file: {error!r}.") from error
    ends = _ends(header, len(data))
    with target.open("wb") as file:
        sizes = [_new_bytes(tensor, ends[tensor.offset]) for tensor in header.tensors]
        _write_header(file, header, sizes)
        for tensor, size in zip(header.tensors, sizes, strict=True):
            start = header.data_start + tensor.offset
            _write_tensor(file, tensor, data[start : start + ends[tensor.offset]])
            file.write(bytes(-size % header.alignment))


class _Cursor:
    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size].tobytes()
        self.at += size
        return piece

    def number(self, layout: str) -> int:
        return int(struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0])

    def string(self) -> bytes:
        return self.take(self.number("Q"))

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.string()
        elif kind == _ARRAY:
            item, count = self.number("I"), self.number("Q")
            if item in _SCALAR_BYTES:
                self.at += _SCALAR_BYTES[item] * count
            else:
                for _ in range(count):
                    self.skip_value(item)
        else:
            self.at += _SCALAR_BYTES[kind]


def _read_header(data: NDArray[np.uint8], path: Path) -> _Header:
    cursor = _Cursor(data)
    magic, version = cursor.take(4), cursor.number("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise InvalidInput(f"{path} is no GGUF file of version 2 or 3.")
    count, pairs = cursor.number("Q"), cursor.number("Q")
    start, alignment, file_type_at = cursor.at, 32, None
    for _ in range(pairs):
        key, kind = cursor.string(), cursor.number("I")
        value_at = cursor.at
        cursor.skip_value(kind)
        if key == b"general.alignment":
            alignment = int.from_bytes(data[value_at : value_at + 4].tobytes(), "little")
        elif key == b"general.file_type":
            file_type_at = value_at - start
    metadata = bytearray(data[start : cursor.at].tobytes())
    if file_type_at is not None:
        metadata[file_type_at : file_type_at + 4] = struct.pack("<I", _FILE_TYPE_MOSTLY_Q8_0)
    tensors = tuple(_read_tensor(cursor) for _ in range(count))
    data_start = cursor.at + -cursor.at % alignment
    return _Header(version, pairs, bytes(metadata), tensors, alignment, data_start)


def _read_tensor(cursor: _Cursor) -> _Tensor:
    name = cursor.string()
    dimensions = tuple(cursor.number("Q") for _ in range(cursor.number("I")))
    return _Tensor(name, dimensions, cursor.number("I"), cursor.number("Q"))


def _ends(header: _Header, file_bytes: int) -> dict[int, int]:
    """Bytes of the tensor at each offset, up to the next tensor (with padding, which is harmless)."""
    offsets = sorted(tensor.offset for tensor in header.tensors)
    stops = [*offsets[1:], file_bytes - header.data_start]
    return {offset: stop - offset for offset, stop in zip(offsets, stops, strict=True)}


def _new_bytes(tensor: _Tensor, old_bytes: int) -> int:
    if tensor.type != _Q4_1:
        return old_bytes
    return int(np.prod(tensor.dimensions)) // _BLOCK * _Q8_0_BYTES


def _write_header(file: BinaryIO, header: _Header, sizes: list[int]) -> None:
    file.write(struct.pack("<4sIQQ", b"GGUF", header.version, len(header.tensors), header.pairs))
    file.write(header.metadata)
    offset = 0
    for tensor, size in zip(header.tensors, sizes, strict=True):
        kind = _Q8_0 if tensor.type == _Q4_1 else tensor.type
        file.write(struct.pack("<Q", len(tensor.name)) + tensor.name)
        file.write(struct.pack(f"<I{len(tensor.dimensions)}Q", len(tensor.dimensions), *tensor.dimensions))
        file.write(struct.pack("<IQ", kind, offset))
        offset += size + -size % header.alignment
    file.write(bytes(-file.tell() % header.alignment))


def _write_tensor(file: BinaryIO, tensor: _Tensor, raw: NDArray[np.uint8]) -> None:
    if tensor.type != _Q4_1:
        file.write(raw.tobytes())
        return
    blocks = int(np.prod(tensor.dimensions)) // _BLOCK
    if len(raw) < blocks * _Q4_1_BYTES:
        raise InvalidInput(f"The GGUF file is cut short within tensor {tensor.name.decode()}.")
    packed = raw[: blocks * _Q4_1_BYTES].reshape(blocks, _Q4_1_BYTES)
    for at in range(0, blocks, _CHUNK_BLOCKS):
        file.write(to_q8_0(from_q4_1(packed[at : at + _CHUNK_BLOCKS])).tobytes())


def from_q4_1(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(blocks, 20) bytes → (blocks, 32) values: scale and minimum as float16, then 32 four-bit steps."""
    scale = packed[:, 0:2].copy().view(np.float16).astype(np.float32)
    least = packed[:, 2:4].copy().view(np.float16).astype(np.float32)
    steps = np.concatenate([packed[:, 4:] & 0x0F, packed[:, 4:] >> 4], axis=1)
    values: NDArray[np.float32] = scale * steps + least
    return values


def to_q8_0(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(blocks, 32) values → (blocks, 34) bytes: scale as float16, then 32 signed bytes."""
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    steps = np.rint(values * inverse).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), steps.view(np.uint8)], axis=1)
