"""BERT sentence encoders as an ONNX graph: int8 matrix products with one activation scale per token.

A scale per token (row) instead of per tensor makes a text's vector the same bits whatever else is in its
batch, which content-addressed caching of vectors needs. Runs on ONNX Runtime from 1.17.
Architecture after Devlin et al. 2019; mean pooling after Reimers & Gurevych 2019.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mainstay.retrieval.onnx_graph import FLOAT, INT32, INT64, Array, Graph, value_info

Weights = Mapping[str, Array]

_MICROSOFT = "com.microsoft"
_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
_SMALLEST_SCALE = 1e-8


@dataclass(frozen=True, slots=True)
class BertShape:
    """Sizes from a model's config.json."""

    hidden: int
    layers: int
    heads: int
    layer_norm_epsilon: float

    @classmethod
    def read(cls, config_json: Path) -> BertShape:
        config = json.loads(config_json.read_text("utf-8"))
        return cls(
            config["hidden_size"],
            config["num_hidden_layers"],
            config["num_attention_heads"],
            float(config["layer_norm_eps"]),
        )


def read_safetensors(path: Path) -> dict[str, Array]:
    """All tensors of a safetensors file; floats as float32, a leading `bert.` dropped from names."""
    with path.open("rb") as file:
        (head_bytes,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(head_bytes))
        body = file.read()
    tensors: dict[str, Array] = {}
    for name, meta in head.items():
        if name == "__metadata__":
            continue
        start, end = meta["data_offsets"]
        array = np.frombuffer(body[start:end], _DTYPES[meta["dtype"]]).reshape(meta["shape"])
        tensors[name.removeprefix("bert.")] = (
            array if array.dtype == np.int64 else array.astype(np.float32, copy=False)
        )
    return tensors


def quantize(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale for each slice along `axis`; `weights ≈ codes * scales`."""
    scales = np.maximum(np.abs(weights).max(axis, keepdims=True), _SMALLEST_SCALE) / 127
    codes = np.clip(np.rint(weights / scales), -127, 127).astype(np.int8)
    return codes, scales.astype(np.float32)


def sentence_encoder(weights: Weights, shape: BertShape) -> bytes:
    """ONNX bytes: `input_ids`, `attention_mask` (batch, tokens) int64 → `vec` (batch, hidden), unit length."""
    return _Encoder(weights, shape).build()


class _Encoder:
    def __init__(self, weights: Weights, shape: BertShape) -> None:
        self._weights = weights
        self._shape = shape
        self._graph = Graph()
        self._batch_shape = self._graph.op("Shape", "input_ids")
        self._mask = self._graph.op("Cast", "attention_mask", to=INT32)

    def build(self) -> bytes:
        hidden = self._embeddings()
        for layer in range(self._shape.layers):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        self._pool(hidden)
        inputs = [value_info(name, INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
        return self._graph.model(inputs, [value_info("vec", FLOAT, ["batch", self._shape.hidden])])

    def _embeddings(self) -> str:
        """Words (int8, a scale per word) plus positions; the token type is always 0, so it joins the positions."""
        graph, weights = self._graph, self._weights
        codes, scales = quantize(weights["embeddings.word_embeddings.weight"], axis=1)
        words = graph.op("Cast", graph.op("Gather", graph.constant(codes), "input_ids"), to=FLOAT)
        words = graph.op("Mul", words, graph.op("Gather", graph.constant(scales), "input_ids"))
        table = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        tokens = graph.op("Slice", self._batch_shape, graph.ints(1), graph.ints(2))
        positions = graph.op("Slice", graph.constant(table), graph.ints(0), tokens, graph.ints(0))
        return graph.op(
            "LayerNormalization",
            graph.op("Add", words, positions),
            *self._norm("embeddings.LayerNorm"),
            axis=-1,
            epsilon=self._shape.layer_norm_epsilon,
        )

    def _layer(self, hidden: str, prefix: str) -> str:
        attended = self._linear(self._attention(hidden, prefix), f"{prefix}attention.output.dense")
        hidden = self._add_and_norm(attended, hidden, f"{prefix}attention.output.LayerNorm")
        inner = self._graph.op("Gelu", self._linear(hidden, f"{prefix}intermediate.dense"), domain=_MICROSOFT)
        return self._add_and_norm(
            self._linear(inner, f"{prefix}output.dense"), hidden, f"{prefix}output.LayerNorm"
        )

    def _attention(self, hidden: str, prefix: str) -> str:
        """Queries, keys and values in one product, then multi-head attention under the padding mask."""
        names = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        matrix = np.concatenate([self._weights[f"{name}.weight"] for name in names]).T
        bias = np.concatenate([self._weights[f"{name}.bias"] for name in names])
        size = self._shape.hidden
        parts = self._graph.op_many(
            "Split",
            self._product(hidden, matrix, bias),
            self._graph.ints(size, size, size),
            outputs=names,
            axis=-1,
        )
        return self._graph.op(
            "MultiHeadAttention", *parts, "", self._mask, domain=_MICROSOFT, num_heads=self._shape.heads
        )

    def _linear(self, hidden: str, name: str) -> str:
        return self._product(hidden, self._weights[f"{name}.weight"].T, self._weights[f"{name}.bias"])

    def _product(self, hidden: str, matrix: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """`hidden @ matrix + bias` in int8: a scale per row of `hidden`, a scale per column of `matrix`."""
        graph = self._graph
        size_in, size_out = matrix.shape
        codes, column_scales = quantize(matrix, axis=0)
        rows = graph.op("Reshape", hidden, graph.ints(-1, size_in))
        row_codes, row_scales = self._quantize_rows(rows)
        product = graph.op(
            "MatMulInteger", row_codes, graph.constant(codes), graph.constant(np.array(128, np.uint8))
        )
        product = graph.op(
            "Mul", graph.op("Cast", product, to=FLOAT), graph.op("Unsqueeze", row_scales, graph.ints(1))
        )
        product = graph.op("Mul", product, graph.constant(column_scales.reshape(-1)))
        product = graph.op("Add", product, graph.constant(bias))
        return graph.op(
            "Reshape", product, graph.op("Concat", self._batch_shape, graph.ints(size_out), axis=0)
        )

    def _quantize_rows(self, rows: str) -> tuple[str, str]:
        graph = self._graph
        peak = graph.op("ReduceMax", graph.op("Abs", rows), axes=[-1], keepdims=0)
        scales = graph.op("Mul", graph.op("Max", peak, graph.floats(_SMALLEST_SCALE)), graph.floats(1 / 127))
        zero = graph.op("Expand", graph.constant(np.array([128], np.uint8)), graph.op("Shape", scales))
        return graph.op("QuantizeLinear", rows, scales, zero, axis=0), scales

    def _norm(self, name: str) -> tuple[str, str]:
        return self._graph.constant(self._weights[f"{name}.weight"]), self._graph.constant(
            self._weights[f"{name}.bias"]
        )

    def _add_and_norm(self, left: str, right: str, name: str) -> str:
        return self._graph.op(
            "SkipLayerNormalization",
            left,
            right,
            *self._norm(name),
            domain=_MICROSOFT,
            epsilon=self._shape.layer_norm_epsilon,
        )

    def _pool(self, hidden: str) -> None:
        """Sum over unmasked tokens to unit length, which equals the mean to unit length."""
        graph = self._graph
        mask = graph.op(
            "Unsqueeze", graph.op("Cast", "attention_mask", to=FLOAT), graph.ints(1)
        )  # batch, 1, tokens
        total = graph.op("Squeeze", graph.op("MatMul", mask, hidden), graph.ints(1))
        length = graph.op("ReduceL2", total, axes=[-1], keepdims=1)
        graph.op("Div", total, graph.op("Max", length, graph.floats(1e-12)), output="vec")
