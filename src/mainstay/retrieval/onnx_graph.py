"""Write ONNX models without the onnx package: the part of the protobuf wire format that ONNX needs.

Field numbers are those of onnx.proto3 (IR version 8, operator set 17); encoding after the Protocol
Buffers encoding specification (varints, length-delimited fields).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attribute = int | float | Sequence[int]

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
_IR_VERSION, _OPSET = 8, 17
_ELEMENT_TYPES = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32, "int64": INT64}


def varint(value: int) -> bytes:
    """Base-128 little-endian; negative numbers as their 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def int_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def text_field(number: int, value: str) -> bytes:
    return bytes_field(number, value.encode())


def tensor(name: str, array: Array) -> bytes:
    """A TensorProto with raw little-endian data."""
    array = np.ascontiguousarray(array)
    dims = b"".join(int_field(1, size) for size in array.shape)
    kind = int_field(2, _ELEMENT_TYPES[array.dtype.name])
    return dims + kind + text_field(8, name) + bytes_field(9, array.tobytes())


def attribute(name: str, value: Attribute) -> bytes:
    """An AttributeProto of type INT, FLOAT or INTS."""
    head = text_field(1, name)
    if isinstance(value, float):
        return head + varint(2 << 3 | 5) + struct.pack("<f", value) + int_field(20, 1)
    if isinstance(value, int):
        return head + int_field(3, value) + int_field(20, 2)
    return head + b"".join(int_field(8, item) for item in value) + int_field(20, 7)


def value_info(name: str, element_type: int, dims: Sequence[int | str]) -> bytes:
    """A ValueInfoProto; a string names a dimension known only at run time."""
    shape = b"".join(
        bytes_field(1, int_field(1, size) if isinstance(size, int) else text_field(2, size)) for size in dims
    )
    return text_field(1, name) + bytes_field(
        2, bytes_field(1, int_field(1, element_type) + bytes_field(2, shape))
    )


class Graph:
    """Collects nodes and constants in the order they are to run; names are made up as needed."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def _new_name(self, kind: str) -> str:
        return f"{kind}_{len(self._nodes) + len(self._constants)}"

    def constant(self, array: Array) -> str:
        name = self._new_name("const")
        self._constants.append(tensor(name, array))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values, np.float32))

    def op(
        self, kind: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Attribute
    ) -> str:
        """Add a node with one output and return the output's name. An empty input name means absent."""
        return self.op_many(
            kind, *inputs, domain=domain, outputs=(output or self._new_name(kind),), **attributes
        )[0]

    def op_many(
        self, kind: str, *inputs: str, outputs: Sequence[str], domain: str = "", **attributes: Attribute
    ) -> Sequence[str]:
        node = b"".join(text_field(1, name) for name in inputs)
        node += b"".join(text_field(2, name) for name in outputs)
        node += text_field(3, self._new_name("node")) + text_field(4, kind)
        node += b"".join(bytes_field(5, attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(node + (text_field(7, domain) if domain else b""))
        return outputs

    def model(self, inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
        """The ModelProto; `inputs` and `outputs` come from `value_info`."""
        graph = b"".join(bytes_field(1, node) for node in self._nodes) + text_field(2, "encoder")
        graph += b"".join(bytes_field(5, constant) for constant in self._constants)
        graph += b"".join(bytes_field(11, item) for item in inputs)
        graph += b"".join(bytes_field(12, item) for item in outputs)
        opsets = text_field(1, "") + int_field(2, _OPSET), text_field(1, "com.microsoft") + int_field(2, 1)
        return (
            int_field(1, _IR_VERSION)
            + text_field(2, "mainstay")
            + bytes_field(7, graph)
            + b"".join(bytes_field(8, opset) for opset in opsets)
        )
