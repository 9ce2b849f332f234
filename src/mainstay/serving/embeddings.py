"""`POST /v1/embeddings` (OpenAI API reference, "Create embeddings"): the local embedder, or a provider's.

What a provider embeds goes there as the input rail of the default policy lets it go on, but for rules on injection:
an embedding model follows no instructions. What is embedded here leaves nothing, so it stays as it is.
"""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from mainstay.core.errors import MainstayError
from mainstay.models import UnknownModel, cost_nusd, worst_case_nusd
from mainstay.models.tokens import token_ceiling, token_estimate
from mainstay.models.types import EmbeddingProvider, Embeddings, Target, Usage
from mainstay.observe import TraceBuilder
from mainstay.observe.types import Attr
from mainstay.retrieval.types import Embedder
from mainstay.serving.admission import UNTRACKED
from mainstay.serving.deps import Deps
from mainstay.serving.errors import BadField, ModelNotAllowed, ModelNotFound
from mainstay.serving.exchange import rate_headers
from mainstay.serving.http import RawHeaders, raw_header
from mainstay.serving.input_rail import guarded_texts
from mainstay.serving.limits.types import Ask, Hold
from mainstay.serving.metering import MAY_BE_BILLED
from mainstay.serving.snapshot import may_use
from mainstay.serving.types import Call

INPUTS_MAX = 2048
DEADLINE_S = 120.0
MARKS_PER_TEXT = 4
"""Tokens that a model puts around each text, at most."""
_FIELDS = {"model", "input", "encoding_format", "dimensions", "user"}


@dataclass(frozen=True, slots=True)
class EmbeddingReply:
    body: bytes
    headers: RawHeaders


@dataclass(frozen=True, slots=True)
class _Asked:
    model: str
    texts: tuple[str, ...]
    as_base64: bool
    dimensions: int | None


def names_of(embedder: Embedder) -> tuple[str, ...]:
    return (embedder.name,) if "/" in embedder.name else (f"local/{embedder.name}", embedder.name)


async def embed(body: Mapping[str, Any], embedder: Embedder | None, call: Call, deps: Deps) -> EmbeddingReply:
    """The response. Raises BadField, ModelNotAllowed, ModelNotFound, the limits' refusals and ProviderError.

    The trace is recorded either way.
    """
    trace = TraceBuilder(f"embeddings {body.get('model')}", trace_id=call.trace_id, parent_id=call.parent_id)
    failure: BaseException | None = None
    try:
        return await _embedded(_read(body), embedder, call, deps, trace)
    except BaseException as error:
        failure = error
        raise
    finally:
        deps.sink.record(trace.finish(failure))


async def _embedded(
    asked: _Asked, embedder: Embedder | None, call: Call, deps: Deps, trace: TraceBuilder
) -> EmbeddingReply:
    trace.set(Attr.OPERATION, "embeddings")
    trace.set(Attr.REQUEST_MODEL, asked.model)
    trace.set(Attr.KEY, None if call.key is None else call.key.id)
    if not may_use(call.key, asked.model):
        raise ModelNotAllowed(asked.model)
    local = embedder if embedder is not None and asked.model in names_of(embedder) else None
    target = None if local is not None else _target(asked.model, embedder, deps)
    hold = await _admitted(asked, target, call, deps)
    tokens = sum(map(token_estimate, asked.texts))  # should it be cut off: what was sent may be billed
    cost = _cost(tokens, target)
    try:
        if local is not None:
            trace.set(Attr.PROVIDER, "local")
            found = await asyncio.to_thread(_embed_here, local, asked)
        else:
            assert target is not None
            trace.set(Attr.PROVIDER, target.provider.name)
            texts = await guarded_texts(asked.texts, deps.snapshots.current.default_policy, deps)
            found = await _embed_there(target, replace(asked, texts=texts), call)
        tokens = found.input_tokens
        cost = _cost(tokens, target)
    except MainstayError as error:
        if not isinstance(error, MAY_BE_BILLED):
            tokens, cost = 0, 0
        raise
    finally:
        if hold is not UNTRACKED:
            deps.limiter.settle(hold, cost, tokens)
        trace.set(Attr.INPUT_TOKENS, tokens)
        trace.set(Attr.COST_NUSD, cost)
    headers = rate_headers(hold.rate, hold.token_rate)
    return EmbeddingReply(_body(asked, found), [raw_header(b"x-mainstay-model", asked.model), *headers])


def _target(name: str, embedder: Embedder | None, deps: Deps) -> Target:
    known = names_of(embedder) if embedder is not None else ()
    try:
        target = deps.models.route(name).targets[0].target
    except UnknownModel as error:
        raise ModelNotFound(name, known, error.how_to_know) from error
    if not isinstance(target.provider, EmbeddingProvider):
        raise BadField("model", f"{name} gives no embeddings.", fix="Ask an embedding model.")
    return target


async def _admitted(asked: _Asked, target: Target | None, call: Call, deps: Deps) -> Hold:
    scopes = deps.snapshots.current.scopes_of(call.key, None)
    if not scopes:
        return UNTRACKED
    tokens = sum(token_ceiling(text) + MARKS_PER_TEXT for text in asked.texts)
    worst: int | None = 0
    if target is not None:
        worst = None if target.price is None else worst_case_nusd(tokens, 0, target.price)
    return await deps.limiter.reserve(scopes, Ask(tokens, worst, worst))


def _cost(tokens: int, target: Target | None) -> int | None:
    """None for an unknown price; what is embedded here is free."""
    if target is None:
        return 0
    return None if target.price is None else cost_nusd(Usage(tokens, 0), target.price)


def _embed_here(embedder: Embedder, asked: _Asked) -> Embeddings:
    if asked.dimensions is not None and asked.dimensions != embedder.dimension:
        raise BadField("dimensions", f"{asked.model} gives {embedder.dimension}.")
    vectors = embedder.embed(asked.texts)
    return Embeddings(tuple(tuple(row) for row in vectors.tolist()), embedder.count_tokens(asked.texts))


async def _embed_there(target: Target, asked: _Asked, call: Call) -> Embeddings:
    deadline_s = DEADLINE_S if call.deadline_s is None else min(DEADLINE_S, call.deadline_s)
    provider = target.provider
    assert isinstance(provider, EmbeddingProvider)
    return await provider.embed(target.model, asked.texts, asked.dimensions, deadline_s)


def _body(asked: _Asked, found: Embeddings) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, asked.as_base64)}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.input_tokens, "total_tokens": found.input_tokens}
    return orjson.dumps({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _encoded(vector: Sequence[float], as_base64: bool) -> str | Sequence[float]:
    """Little-endian 32-bit floats in base64, as OpenAI's SDKs ask for by default."""
    return base64.b64encode(array("f", vector).tobytes()).decode() if as_base64 else vector


def _read(body: Mapping[str, Any]) -> _Asked:
    for name in body:
        if name not in _FIELDS:
            raise BadField(name, "is not supported here.", fix=f"Leave {name} out.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadField("model", "must be a string that is not empty.")
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise BadField("encoding_format", "must be float or base64.")
    dimensions = body.get("dimensions")
    if dimensions is not None and (
        not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 1
    ):
        raise BadField("dimensions", "must be a whole number of at least 1.")
    user = body.get("user")
    if user is not None and not isinstance(user, str):
        raise BadField("user", "must be a string.")
    return _Asked(model, _texts(body.get("input")), encoding == "base64", dimensions)


def _texts(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise BadField("input", "must be a string or a list of strings, none empty.")
    if len(texts) > INPUTS_MAX:
        raise BadField("input", f"at most {INPUTS_MAX} texts in one request.")
    return tuple(texts)
