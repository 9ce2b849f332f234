"""Storing Q4_1 tensors as Q8_0."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.core.errors import InvalidInput
from mainstay.models.gguf import from_q4_1, store_as_q8_0, to_q8_0


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def tiny_gguf(path: Path, q4_1: bytes, plain: bytes) -> None:
    """Two tensors: 64 values in Q4_1, four in F32; metadata of every shape of value."""
    metadata = (
        string("general.architecture") + struct.pack("<I", 8) + string("llama")
        + string("words") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")
        + string("numbers") + struct.pack("<IIQ3f", 9, 6, 3, 1.0, 2.0, 3.0)
        + string("general.file_type") + struct.pack("<II", 4, 3)
        + string("flag") + struct.pack("<I?", 7, True)
    )  # fmt: skip
    infos = (
        string("w") + struct.pack("<I2QIQ", 2, 32, 2, 3, 0) + string("n") + struct.pack("<IQIQ", 1, 4, 0, 64)
    )
    head = struct.pack("<4sIQQ", b"GGUF", 3, 2, 5) + metadata + infos
    body = q4_1 + bytes(64 - len(q4_1)) + plain
    path.write_bytes(head + bytes(-len(head) % 32) + body)


def test_a_file_keeps_all_but_the_form_of_its_q4_1_tensors(tmp_path):
    rng = np.random.default_rng(1)
    scales = np.array([[0.5, -3.0], [0.01, 0.25]], dtype=np.float16).view(np.uint8)
    packed = np.concatenate([scales, rng.integers(0, 256, (2, 16), dtype=np.uint8)], axis=1)
    plain = struct.pack("<4f", 1.5, -2.0, 0.0, 9.0)
    tiny_gguf(tmp_path / "a.gguf", packed.tobytes(), plain)

    store_as_q8_0(tmp_path / "a.gguf", tmp_path / "b.gguf")

    written = (tmp_path / "b.gguf").read_bytes()
    infos = (
        string("w") + struct.pack("<I2QIQ", 2, 32, 2, 8, 0) + string("n") + struct.pack("<IQIQ", 1, 4, 0, 96)
    )
    end = written.index(infos) + len(infos)
    data = written[end + -end % 32 :]
    assert string("general.file_type") + struct.pack("<II", 4, 7) in written
    assert string("numbers") + struct.pack("<IIQ3f", 9, 6, 3, 1.0, 2.0, 3.0) in written
    assert data[:68] == to_q8_0(from_q4_1(packed)).tobytes()
    assert data[96:112] == plain


def from_q8_0(packed: np.ndarray) -> np.ndarray:
    scale = packed[:, :2].copy().view(np.float16).astype(np.float32)
    return scale * packed[:, 2:].copy().view(np.int8)


@given(
    scale=st.floats(2**-10, 8.0, width=16),
    least=st.floats(-16.0, 16.0, width=16),
    steps=st.binary(min_size=16, max_size=16),
)
def test_no_value_moves_by_more_than_a_step_of_the_new_form(scale, least, steps):
    head = np.array([[scale, least]], dtype=np.float16).view(np.uint8)
    values = from_q4_1(np.concatenate([head, np.frombuffer(steps, np.uint8)[None]], axis=1))

    moved = np.abs(from_q8_0(to_q8_0(values)) - values).max()

    assert values.shape == (1, 32)
    assert moved <= np.abs(values).max() * (0.5 / 127 + 2**-10)


def test_four_bit_steps_are_read_low_halves_first():
    packed = np.concatenate(
        [np.array([[1.0, 10.0]], np.float16).view(np.uint8), np.arange(16, dtype=np.uint8)[None] * 16 + 3],
        axis=1,
    )

    values = from_q4_1(packed)

    assert values[0, :16].tolist() == [13.0] * 16
    assert values[0, 16:].tolist() == [10.0 + step for step in range(16)]


def test_a_block_of_zeros_stays_zero():
    assert not to_q8_0(np.zeros((1, 32), np.float32)).any()


@pytest.mark.parametrize("cut", [4, 30, 120, 290])
def test_a_file_cut_short_is_refused(tmp_path, cut):
    tiny_gguf(tmp_path / "a.gguf", bytes(40), bytes(16))
    (tmp_path / "c.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:cut])

    with pytest.raises(InvalidInput):
        store_as_q8_0(tmp_path / "c.gguf", tmp_path / "d.gguf")
