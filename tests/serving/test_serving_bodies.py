"""Bodies, headers and paths that nobody should send are told what is wrong."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from serving_door import BEARER, asked_by, door
from serving_plane import Plane

BROKEN: dict[str, tuple[bytes, int, set[str | None]]] = {
    "nan": (b'{"model":"acme/small","temperature":NaN,%s}', 400, {None}),
    "infinity": (b'{"model":"acme/small","temperature":1e999,%s}', 400, {None}),
    "huge int": (b'{"model":"acme/small","seed":%s,%%s}' % (b"9" * 400), 400, {None}),
    "beyond 64 bits": (b'{"model":"acme/small","seed":18446744073709551616,%s}', 400, {"seed"}),
    "huge limit": (
        b'{"model":"acme/small","max_tokens":18446744073709551615,%s}',
        400,
        {"messages", "prompt", "max_tokens"},
    ),
    "lone surrogate": (b'{"model":"acme/small","note":"\\ud800",%s}', 400, {None}),
    "surrogate name": (b'{"model":"acme/small","\\udc00":1,%s}', 400, {None}),
    "invalid UTF-8": (b'{"model":"acme/small","note":"\xff\xfe",%s}', 400, {None}),
    "deep": (b'{"model":"acme/small","note":' + b"[" * 900 + b"]" * 900 + b",%s}", 400, {"note"}),
    "very deep": (b'{"model":"acme/small","note":' + b"[" * 100_000 + b"]" * 100_000 + b",%s}", 400, {None}),
    "NUL": (b'{"model":"acme/small\\u0000",%s}', 404, {"model"}),
    "line end in the model": (b'{"model":"acme/small\\r\\nx-evil: 1",%s}', 404, {"model"}),
    "user no text": (b'{"model":"acme/small","user":{"a":1},%s}', 400, {"user"}),
    "model no text": (b'{"model":["acme/small"],%s}', 400, {"model"}),
}
"""Each with the status that it is answered with, and the fields that may be named."""
READ = {
    "beyond 64 bits": {"messages/count_tokens", "responses", "responses/input_tokens"},
    "huge limit": {"messages", "messages/count_tokens", "responses", "responses/input_tokens"},
    "user no text": {"messages", "messages/count_tokens"},
}
"""Where such a field means nothing, or another one of its name comes after it."""
TAILS = {
    "chat/completions": b'"messages":[{"role":"user","content":"hi"}]',
    "responses": b'"input":"hi"',
    "messages": b'"max_tokens":5,"messages":[{"role":"user","content":"hi"}]',
    "completions": b'"prompt":"hi"',
    "embeddings": b'"input":"hi"',
    "messages/count_tokens": b'"messages":[{"role":"user","content":"hi"}]',
    "responses/input_tokens": b'"input":"hi"',
}


@pytest.mark.parametrize("path", TAILS)
@pytest.mark.parametrize("what", BROKEN)
async def test_no_body_is_an_internal_error(serve: Any, plane: Plane, path: str, what: str) -> None:
    broken, expected, fields = BROKEN[what]
    plane.model.says("Fine.")
    async with door(serve, plane) as post:
        status, body = await post(f"/{path}", broken.replace(b"%s", TAILS[path]))
    told = json.loads(body)
    if path in READ.get(what, ()):
        assert status == 200, body
        assert told.get("error") is None
    else:
        assert status == expected, body
        assert (told["error"].get("param") or told.get("mainstay", {}).get("param")) in fields


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("x-mainstay-deadline-ms", "\u00b2", "x-mainstay-deadline-ms"),
        ("x-mainstay-deadline-ms", "9" * 5000, "x-mainstay-deadline-ms"),
        ("x-stainless-retry-count", "\u00b2", None),
        ("cache-control", "max-age=\u00b2", None),
        ("traceparent", "00-zz", None),
    ],
)
async def test_no_header_is_an_internal_error(
    serve: Any, plane: Plane, name: str, value: str, field: str | None
) -> None:
    """One of our own is refused by name; others may be anybody's, and are ignored."""
    plane.model.says("Fine.")
    raw = {name: value.encode("latin-1").decode("utf-8", "surrogateescape")}
    async with door(serve, plane) as post:
        status, body = await post("/chat/completions", asked_by("chat/completions", False), headers=raw)
    assert status == (200 if field is None else 400), body
    assert json.loads(body).get("error", {}).get("param") == field


@pytest.mark.parametrize(
    ("raw", "status", "said"),
    [
        (b'{"model": "m",\n  oops}', 400, "line 2, column 3"),
        (b"[1]", 400, "JSON object"),
        (b"x" * 2000, 413, "larger than"),
    ],
)
async def test_a_bad_body_is_explained(serve: Any, plane: Plane, raw: bytes, status: int, said: str) -> None:
    async with door(serve, plane, body_limit_bytes=1000) as post:
        told, body = await post("/chat/completions", raw)
    assert told == status
    assert said in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/chat/completions", 405), ("GET", "/nope", 404)]
)
async def test_other_paths_and_methods_are_refused(
    serve: Any, plane: Plane, method: str, path: str, status: int
) -> None:
    url = await serve(plane.gateway())
    async with (
        aiohttp.ClientSession(headers=BEARER) as http,
        http.request(method, url + path) as response,
    ):
        assert response.status == status
