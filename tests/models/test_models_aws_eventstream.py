"""The reader of AWS event streams: known messages, any split, and every corruption seen."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.models.providers.aws_eventstream import EventStreamCorrupt, EventStreamReader
from support.bedrock_server import packed

EMPTY = bytes.fromhex("00000010 00000000 05c248eb 7d98c8ff")
ONE_HEADER = (
    bytes.fromhex("0000003d 00000020 07fd8396 0c")
    + b"content-type\x07\x00\x10application/json{'foo':'bar'}"
    + bytes.fromhex("8d9c08b1")
)
ALL_TYPES = (
    bytes.fromhex("00000062 00000052 03b5cb9c 013000 013101 01320202 0133030003 01340400000004")
    + bytes.fromhex("0135050000000000000005 0136060005")
    + b"bytes\x017\x07\x00\x04utf8"
    + bytes.fromhex("0138080000000000000008 013909")
    + b"0123456789abcdef"
    + bytes.fromhex("63353671")
)


def read(data: bytes) -> list[tuple[dict[str, object], bytes]]:
    return [(dict(message.headers), message.payload) for message in EventStreamReader().feed(data)]


def test_known_messages_are_read():
    assert read(EMPTY + ONE_HEADER) == [({}, b""), ({"content-type": "application/json"}, b"{'foo':'bar'}")]


def test_headers_of_every_type_are_read():
    assert read(ALL_TYPES) == [
        (
            {
                "0": True,
                "1": False,
                "2": 2,
                "3": 3,
                "4": 4,
                "5": 5,
                "6": b"bytes",
                "7": "utf8",
                "8": 8,
                "9": b"0123456789abcdef",
            },
            b"",
        )
    ]


names = st.text(min_size=1, max_size=20)
messages = st.tuples(st.dictionaries(names, st.text(max_size=40), max_size=4), st.binary(max_size=200))


@given(st.lists(messages, max_size=6), st.data())
def test_any_split_gives_the_same_messages(sent, data):
    whole = b"".join(packed(headers, payload) for headers, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    reader = EventStreamReader()

    read = [
        message
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for message in reader.feed(whole[start:end])
    ]

    assert [(dict(message.headers), message.payload) for message in read] == sent
    assert reader.pending_bytes == 0


def test_one_byte_at_a_time_gives_the_same_messages():
    reader = EventStreamReader()

    got = [message for byte in ALL_TYPES + ONE_HEADER for message in reader.feed(bytes([byte]))]

    assert [(dict(m.headers), m.payload) for m in got] == read(ALL_TYPES + ONE_HEADER)


@given(st.integers(0, len(ONE_HEADER) - 1), st.integers(1, 255))
def test_a_changed_byte_is_never_read_as_a_message(place, change):
    data = bytearray(ONE_HEADER)
    data[place] ^= change

    with pytest.raises(EventStreamCorrupt):
        read(bytes(data) + EMPTY)


def sealed(headers: bytes, headers_length: int | None = None, total: int | None = None) -> bytes:
    """A message whose checksums are right, whatever its lengths and headers say."""
    length = len(headers) if headers_length is None else headers_length
    lengths = struct.pack(">II", 16 + len(headers) if total is None else total, length)
    whole = lengths + struct.pack(">I", crc32(lengths)) + headers
    return whole + struct.pack(">I", crc32(whole))


@pytest.mark.parametrize(
    "data",
    [
        sealed(b"\x01a\x00\x01a\x00"),  # the same header twice
        sealed(b"\x01a\x0b"),  # no such type
        sealed(b"\x01a\x07\x00\x09abc"),  # ends within its value
        sealed(b"\x01a\x05\x00"),  # ends within a number
        sealed(b"\x05a"),  # ends within its name
        sealed(b"\x01\xff\x00"),  # no UTF-8
        sealed(b"", headers_length=0xFF000102),
        sealed(b"", headers_length=4),  # longer than the message
        sealed(b"", total=8),
        sealed(b"", total=(24 << 20) + 17),
    ],
)
def test_impossible_messages_are_corrupt_even_with_true_checksums(data):
    with pytest.raises(EventStreamCorrupt):
        read(data)
