"""What a GGUF file says of itself, read from its head without loading the model.

Source of the layout and of the keys: the GGUF specification (ggml, docs/gguf.md, version 3).
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mainstay.core.errors import InvalidInput

_STRING, _ARRAY = 8, 9
_LAYOUT: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_ARRAY_ITEMS_KEPT: Final = 1024
_ITEMS_MAX: Final = 1 << 24
_TAKES_TOOLS: Final = re.compile(r"\btools\b")
_F16_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """`context_tokens`: what the model was trained for. `kv_bytes_per_token`: of the attention cache, as float16.

    `is_adapter`: the file holds a LoRA adapter, to be applied to a model of the same `architecture`.
    `tensors` maps a tensor's name to its dimensions, the fastest one first.
    """

    architecture: str | None
    is_adapter: bool
    adapter_type: str | None
    context_tokens: int | None
    kv_bytes_per_token: int
    takes_tools: bool
    tensors: dict[str, tuple[int, ...]]


def read_facts(path: Path) -> GgufFacts:
    """Raises InvalidInput when the file cannot be read, or is no whole GGUF head of version 2 or 3."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found, tensors = _read(data, path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    except (struct.error, KeyError, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{path} is no whole GGUF file: {error}.", fix="Fetch the file again: it may be cut short."
        ) from error
    architecture = found.get("general.architecture")
    template = found.get("tokenizer.chat_template")
    context = found.get(f"{architecture}.context_length")
    return GgufFacts(
        architecture=architecture if isinstance(architecture, str) else None,
        is_adapter=found.get("general.type") == "adapter",
        adapter_type=found.get("adapter.type"),
        context_tokens=context if isinstance(context, int) and context > 0 else None,
        kv_bytes_per_token=_kv_bytes_per_token(found, f"{architecture}."),
        takes_tools=isinstance(template, str) and _TAKES_TOOLS.search(template) is not None,
        tensors=tensors,
    )


def usable_context_tokens(gguf: Path, wanted: int) -> int:
    """`wanted`, or what the model was trained for when that is less."""
    try:
        trained = read_facts(gguf).context_tokens
    except InvalidInput:  # loading it says what is wrong with the file
        return wanted
    return wanted if trained is None else min(wanted, trained)


def _kv_bytes_per_token(found: dict[str, Any], prefix: str) -> int:
    """Keys and values of every layer; attention that keeps less (windows, latent) is thereby overestimated."""

    def number(name: str) -> int:
        value = found.get(prefix + name)
        return value if isinstance(value, int) else 0

    layers, heads = number("block_count"), number("attention.head_count")
    head_size = number("embedding_length") // heads if heads else 0
    sizes = (number("attention.key_length") or head_size) + (number("attention.value_length") or head_size)
    kv_heads = found.get(f"{prefix}attention.head_count_kv")
    if isinstance(kv_heads, list):  # one a layer
        in_all = sum(count for count in kv_heads if isinstance(count, int))
    else:
        in_all = (kv_heads if isinstance(kv_heads, int) else heads) * layers
    return max(0, in_all * sizes * _F16_BYTES)


def _read(data: mmap.mmap, path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    cursor = _Cursor(data)
    magic, version = cursor.take(4), cursor.number("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("it does not begin as one of version 2 or 3")
    count, pairs = cursor.count(), cursor.count()
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.string()
        found[key] = cursor.value(cursor.number("I"))
    tensors: dict[str, tuple[int, ...]] = {}
    for _ in range(count):
        name = cursor.string()
        tensors[name] = tuple(cursor.number("Q") for _ in range(cursor.number("I")))
        cursor.take(12)  # its type and where its data begin
    return found, tensors


class _Cursor:
    """Reads on from `at`; beyond the end it raises struct.error or ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if len(piece) != size:
            raise ValueError("it is cut short")
        self.at += size
        return piece

    def number(self, layout: str) -> Any:
        (value,) = struct.unpack_from("<" + layout, self._data, self.at)
        self.at += struct.calcsize("<" + layout)
        return value

    def count(self) -> int:
        value = int(self.number("Q"))
        if value > _ITEMS_MAX:
            raise ValueError(f"it says that {value} items follow")
        return value

    def string(self) -> str:
        return self.take(int(self.number("Q"))).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_LAYOUT[kind])
        item, count = self.number("I"), self.count()
        if count <= _ARRAY_ITEMS_KEPT:
            return [self.value(item) for _ in range(count)]
        if item in _LAYOUT:
            self.at += struct.calcsize("<" + _LAYOUT[item]) * count
        else:
            self._skip(item, count)
        return None

    def _skip(self, item: int, count: int) -> None:
        """A vocabulary: so many strings that each call would be felt."""
        if item != _STRING:
            raise ValueError("an array of arrays is too long")
        unpack, data, at = struct.Struct("<Q").unpack_from, self._data, self.at
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
