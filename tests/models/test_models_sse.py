"""The event-stream reader: cut anywhere, the events are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.models.sse import EVENT_BYTES_MAX, SseEvent, SseReader, SseTooLarge

WIRE = sorted((Path(__file__).parents[1] / "wire" / "models").glob("*.sse"))


@given(st.sampled_from(WIRE), st.lists(st.integers(1, 97), min_size=1, max_size=40))
def test_a_stream_gives_the_same_events_however_it_is_cut(path, sizes):
    data = path.read_bytes()
    whole = SseReader().feed(data)
    reader, at, pieces = SseReader(), 0, []
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size

    events = [event for piece in pieces for event in reader.feed(piece)]

    assert events == whole
    assert whole


@pytest.mark.parametrize("path", WIRE, ids=lambda path: path.stem)
def test_a_stream_gives_the_same_events_when_each_comes_by_itself(path):
    data, reader = path.read_bytes(), SseReader()

    events = [event for block in data.split(b"\n\n") for event in reader.feed(block + b"\n\n")]

    assert events == SseReader().feed(data)


def test_names_comments_and_many_data_lines_follow_the_standard():
    stream = b": hello\nevent: delta\ndata: a\ndata:b\nid: 3\nretry: 5\n\ndata\n\nevent: nothing\n\n"

    assert SseReader().feed(stream) == [SseEvent("delta", b"a\nb"), SseEvent(None, b"")]


ODD = {
    "line feeds": b"data: a\n\ndata: b\n\n\n\ndata:  c\n\n",
    "crlf": b"data: a\r\n\r\ndata: b\r\n\r\ndata:  c\r\n\r\n",
    "carriage returns": b"data: a\r\rdata: b\r\rdata:  c\r\r",
    "mixed": b"data: a\n\r\ndata: b\r\n\rdata:  c\r\n\n",
    "byte order mark": b"\xef\xbb\xbfdata: a\n\ndata: b\n\ndata:  c\n\n",
    "comments": b":\n\ndata: a\n: x\n\n:keep-alive\n\ndata: b\n\nid\ndata:  c\n\ndata: unfinished\n",
}


@pytest.mark.parametrize("stream", ODD.values(), ids=ODD)
def test_any_line_end_and_any_cut_gives_the_same_events(stream):
    want = [SseEvent(None, b"a"), SseEvent(None, b"b"), SseEvent(None, b" c")]

    for cut in range(len(stream)):
        reader = SseReader()
        assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == want, cut
    reader = SseReader()
    assert [event for byte in stream for event in reader.feed(bytes([byte]))] == want


def test_a_carriage_return_ends_the_event_without_waiting_for_a_line_feed():
    assert SseReader().feed(b"data: a\r\n\r") == [SseEvent(None, b"a")]


def test_a_mark_that_is_no_byte_order_mark_is_part_of_the_text():
    reader = SseReader()

    assert reader.feed(b"\xef") + reader.feed(b"\xbb") + reader.feed(b"\ndata: a\n\n") == [
        SseEvent(None, b"a")
    ]


def test_an_endless_event_is_refused():
    reader = SseReader()
    assert reader.feed(b"data: " + b"x" * (EVENT_BYTES_MAX - 6)) == []

    with pytest.raises(SseTooLarge):
        reader.feed(b"x")


def test_a_whole_event_over_the_limit_is_refused():
    with pytest.raises(SseTooLarge):
        SseReader().feed(b"data: " + b"x" * EVENT_BYTES_MAX + b"\n\n")
