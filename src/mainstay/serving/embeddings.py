"""`POST /v1/embeddings` (OpenAI API reference, "Create embeddings") on an embedder that was handed in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mainstay.govern.types import ApiKey
from mainstay.observe import TraceBuilder
from mainstay.observe.types import Attr, SpanSink
from mainstay.retrieval.types import Embedder
from mainstay.serving.errors import BadField, ModelNotAllowed, ModelNotFound
from mainstay.serving.snapshot import may_use

INPUTS_MAX = 2048
_FIELDS = {"model", "input", "encoding_format", "dimensions", "user"}


def names_of(embedder: Embedder) -> tuple[str, ...]:
    return (embedder.name,) if "/" in embedder.name else (f"local/{embedder.name}", embedder.name)


async def embed(
    body: Mapping[str, Any],
    embedder: Embedder | None,
    key: ApiKey | None,
    trace: TraceBuilder,
    sink: SpanSink,
) -> dict[str, Any]:
    """The response body. Raises BadField, ModelNotAllowed or ModelNotFound; the trace is recorded either way."""
    try:
        # In a thread: the first question about its dimension may load the embedder.
        texts, as_base64 = await asyncio.to_thread(_read, body, embedder, key)
        assert embedder is not None
        trace.set(Attr.OPERATION, "embeddings")
        trace.set(Attr.REQUEST_MODEL, embedder.name)
        trace.set(Attr.PROVIDER, "local")
        trace.set(Attr.KEY, None if key is None else key.id)
        vectors, tokens = await asyncio.to_thread(_embed, embedder, texts, as_base64)
        trace.set(Attr.INPUT_TOKENS, tokens)
        trace.set(Attr.COST_NUSD, 0)
    except BaseException as error:
        trace.fail(error)
        raise
    finally:
        sink.record(trace.finish())
    data = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _embed(embedder: Embedder, texts: list[str], as_base64: bool) -> tuple[list[str | list[float]], int]:
    vectors = [_encoded(vector, as_base64) for vector in embedder.embed(texts)]
    return vectors, embedder.count_tokens(texts)


def _encoded(vector: NDArray[np.float32], as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    floats: list[float] = vector.tolist()
    return floats


def _read(body: Mapping[str, Any], embedder: Embedder | None, key: ApiKey | None) -> tuple[list[str], bool]:
    for name in body:
        if name not in _FIELDS:
            raise BadField(name, "is not supported here.", fix=f"Leave {name} out.")
    model = body.get("model")
    if not isinstance(model, str):
        raise BadField("model", "must be a string.")
    if not may_use(key, model):
        raise ModelNotAllowed(model)
    known = names_of(embedder) if embedder is not None else ()
    if embedder is None or model not in known:
        raise ModelNotFound(model, known)
    if body.get("dimensions") is not None and body["dimensions"] != embedder.dimension:
        raise BadField("dimensions", f"{model} gives {embedder.dimension}.")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BadField("encoding_format", "must be float or base64.")
    return _texts(body.get("input")), encoding == "base64"


def _texts(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise BadField("input", "must be a string or a list of strings, none empty.")
    if len(texts) > INPUTS_MAX:
        raise BadField("input", f"at most {INPUTS_MAX} texts in one request.")
    return texts
