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


def test_names_comments_and_many_data_lines_follow_the_standard():
    stream = b": hello\nevent: delta\ndata: a\ndata:b\nid: 3\nretry: 5\n\ndata\n\nevent: nothing\n\n"

    assert SseReader().feed(stream) == [SseEvent("delta", "a\nb"), SseEvent("message", "")]


def test_an_endless_event_is_refused():
    reader = SseReader()
    assert reader.feed(b"data: " + b"x" * (EVENT_BYTES_MAX - 6)) == []

    with pytest.raises(SseTooLarge):
        reader.feed(b"x")
