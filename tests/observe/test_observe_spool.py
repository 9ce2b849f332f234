"""The spool keeps what it took, whatever happens to the file's end or to its writer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.core.errors import Unavailable
from mainstay.observe.spool import Spool


def read_all(spool: Spool, max_bytes: int = 1 << 20) -> list[bytes]:
    payloads: list[bytes] = []
    position = {}
    while True:
        batch = spool.read_from(position, max_bytes)
        if batch.position == position:
            return payloads
        payloads += batch.payloads
        position = dict(batch.position)


def test_what_was_appended_is_read_in_order_across_segments(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=100)
    payloads = [f"payload {i}".encode() * 5 for i in range(20)]

    for payload in payloads:
        spool.append([payload])

    assert read_all(spool) == payloads
    assert len(spool.segments()) > 3
    spool.close()


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_tail_loses_only_the_torn_record(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path)
    spool.append([b"first", b"second", b"third, which was not acknowledged"])
    spool.close()
    (segment,) = spool.segments()

    segment.write_bytes(segment.read_bytes()[:-cut])

    again = Spool(tmp_path)
    again.append([b"after the crash"])
    assert read_all(again) == [b"first", b"second", b"after the crash"]
    again.close()


def test_damage_in_the_middle_costs_one_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"first", b"second", b"third"])
    spool.close()
    (segment,) = spool.segments()

    data = bytearray(segment.read_bytes())
    data[data.index(b"second")] ^= 0xFF
    segment.write_bytes(data)

    assert read_all(spool) == [b"first", b"third"]


def test_a_record_still_being_written_is_waited_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"first"])
    (segment,) = spool.segments()
    whole = segment.read_bytes()
    with segment.open("ab") as file:
        file.write(whole[:9])
        file.flush()
        batch = spool.read_from({})
        file.write(whole[9:])

    assert batch.payloads == (b"first",)
    assert spool.read_from(batch.position).payloads == (b"first",)
    spool.close()


def test_drained_segments_are_deleted_but_never_a_live_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"first"])
    position = spool.read_from({}).position

    kept = spool.forget(position)
    assert kept == position
    assert len(spool.segments()) == 1

    spool.close()
    assert spool.forget(kept) == {}
    assert spool.segments() == []


def test_two_writers_share_a_folder(tmp_path: Path) -> None:
    server, command = Spool(tmp_path), Spool(tmp_path)

    server.append([b"from the server"])
    command.append([b"from a command"])
    server.append([b"from the server again"])

    assert sorted(read_all(server)) == [b"from a command", b"from the server", b"from the server again"]
    server.close()
    command.close()


def test_a_disk_that_refuses_is_said_and_the_spool_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()

    with pytest.raises(Unavailable, match="cannot be written"):
        spool.append([b"nowhere"])

    (tmp_path / "spool").mkdir()
    spool.append([b"later"])
    assert read_all(spool) == [b"later"]
    spool.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 500))
def test_any_bytes_come_back_whatever_the_reader_takes_at_once(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], max_bytes: int
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"), segment_bytes=200)

    for payload in payloads:
        spool.append([payload])

    assert read_all(spool, max_bytes) == payloads
    spool.close()
