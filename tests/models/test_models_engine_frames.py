"""Frames between gateway and engine, and the reading of GGUF heads: bytes that come in pieces, or are wrong."""

from __future__ import annotations

import contextlib
import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.core.errors import InvalidInput
from mainstay.models.engine import read_facts, usable_context_tokens
from mainstay.models.engine.frames import (
    FRAME_BYTES_MAX,
    BrokenFrame,
    Failure,
    Frame,
    FrameReader,
    Kind,
    frame,
    message,
)

FRAMES = [
    Frame(Kind.CHUNK, 7, b'{"a":1}'),
    Frame(Kind.DONE, 7, b""),
    Frame(Kind.CHUNK, 0xFFFF_FFFF, bytes(300)),
]


@given(st.lists(st.integers(0, 400), max_size=12))
def test_frames_come_out_whole_however_their_bytes_are_cut(cuts: list[int]) -> None:
    data = b"".join(frame(Kind(one.kind), one.call, one.payload) for one in FRAMES)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = FrameReader()

    read = [one for start, end in itertools.pairwise(edges) for one in reader.feed(data[start:end])]

    assert read == FRAMES


def test_a_frame_too_long_to_be_one_is_refused_on_both_sides() -> None:
    with pytest.raises(BrokenFrame):
        list(FrameReader().feed(struct.pack("<IBI", FRAME_BYTES_MAX + 1, Kind.CHUNK, 1)))
    with pytest.raises(BrokenFrame):
        frame(Kind.CHAT, 1, bytes(FRAME_BYTES_MAX + 1))


def test_a_message_is_a_frame_of_json() -> None:
    (one,) = FrameReader().feed(message(Kind.FAILED, Failure("load", "why"), 3))

    assert one == Frame(Kind.FAILED, 3, b'{"code":"load","message":"why"}')


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words)) + words.encode()


PAIRS = [
    text("general.architecture") + struct.pack("<I", 8) + text("llama"),
    text("tokenizer.chat_template") + struct.pack("<I", 8) + text("{% if tools %}"),
    text("llama.context_length") + struct.pack("<II", 4, 4096),
    text("llama.block_count") + struct.pack("<II", 4, 2),
    text("llama.embedding_length") + struct.pack("<II", 4, 64),
    text("llama.attention.head_count") + struct.pack("<II", 4, 4),
    text("llama.attention.head_count_kv") + struct.pack("<IIQ2i", 9, 5, 2, 1, 2),
    text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1100) + text("word") * 1100,
    text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 1100) + bytes(4 * 1100),
]
HEAD = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(PAIRS)) + b"".join(PAIRS)
HEAD += text("w") + struct.pack("<I2QIQ", 2, 64, 32, 0, 0)


def test_facts_are_read_past_a_long_vocabulary_and_with_heads_by_layer(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(HEAD)

    facts = read_facts(path)

    assert (facts.architecture, facts.context_tokens, facts.takes_tools) == ("llama", 4096, True)
    assert facts.kv_bytes_per_token == (1 + 2) * (16 + 16) * 2
    assert facts.tensors == {"w": (64, 32)}
    assert usable_context_tokens(path, 8192) == 4096
    assert usable_context_tokens(path, 1024) == 1024


@given(cut=st.integers(0, len(HEAD) - 1), spoilt=st.integers(0, len(HEAD) - 1), byte=st.integers(0, 255))
def test_a_damaged_head_is_refused_and_never_more(
    tmp_path_factory: pytest.TempPathFactory, cut: int, spoilt: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(HEAD[:cut])
    with pytest.raises(InvalidInput):
        read_facts(path)

    path.write_bytes(HEAD[:spoilt] + bytes([byte]) + HEAD[spoilt + 1 :])
    with contextlib.suppress(InvalidInput):  # or the byte did no harm; nothing else may come of it
        assert read_facts(path).kv_bytes_per_token >= 0
