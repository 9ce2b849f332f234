"""Both OpenAPI documents, fuzzed: no 5xx, answers as documented, wrong data refused, nothing without a key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import schemathesis
from fastapi import FastAPI
from faults_table import FINE_STREAM, whole
from faults_world import World
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from mainstay import api
from mainstay.govern import SYSTEM
from mainstay.serving.openapi import openapi_document
from support.raw_server import Peer, RawServer, answer

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=QUIET, database=None, derandomize=True)
DEEP = settings(max_examples=400, deadline=None, suppress_health_check=QUIET, database=None)


@pytest.fixture(scope="session")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str, str]]:
    """(a gateway, a route on it whose upstream always answers, an administrator's token)"""
    world = World(tmp_path_factory.mktemp("fuzzed")).start()

    def in_loop(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, world.loop).result(30)

    upstream = RawServer(always_answers)
    in_loop(upstream.__aenter__())
    route = asyncio.run(world.configure(upstream.origin))
    _, token = world.services.keys.create(SYSTEM, "fuzz", role="admin")
    world.services.refresher.refresh()
    yield world, route, token.reveal()
    in_loop(upstream.__aexit__())
    world.stop()


def with_route(route: str) -> dict[str, Any]:
    """The document with the one model that is there, so that generated requests come through to it."""
    document = openapi_document()
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):
            schema["properties"]["model"] = {"const": route}
    for item in document["paths"].values():
        for parameter in item.get("post", {}).get("parameters", ()):
            parameter["schema"]["minimum"] = 60_000  # a deadline of a millisecond is a 504, and rightly so
    return document


async def always_answers(peer: Peer) -> None:
    while True:
        seen = await peer.request()
        asked = orjson.loads(seen.body)
        if seen.path.endswith("/embeddings"):
            data = [
                {"index": n, "embedding": [0.5] * (min(8, asked.get("dimensions") or 3))}
                for n in range(len(asked["input"]))
            ]
            peer.send(answer(orjson.dumps({"data": data, "model": "m", "usage": {"prompt_tokens": 3}})))
        else:
            peer.send(FINE_STREAM if asked.get("stream") else answer(whole()))


def control_document() -> dict[str, Any]:
    """As `GET /api/openapi.json` gives it; no service is needed to make it."""
    app = FastAPI(title="Mainstay")
    app.include_router(api.router())
    return app.openapi()


def operations(document: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(path, method, id=f"{method.upper()} {path}")
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    ]


def fuzz(schema: Any, path: str, method: str, world: World, token: str, profile: settings) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    for mode in GenerationMode:

        @profile
        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        def holds(case: Any) -> None:
            case.call_and_validate(base_url=world.origin, headers=headers, checks=CHECKS, timeout=30)

        with contextlib.suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
            holds()


@pytest.mark.parametrize(("path", "method"), operations(openapi_document()))
def test_the_data_plane_keeps_to_its_document(fuzzed: tuple[World, str, str], path: str, method: str) -> None:
    world, route, token = fuzzed
    fuzz(schemathesis.openapi.from_dict(with_route(route)), path, method, world, token, QUICK)


@pytest.mark.parametrize(("path", "method"), operations(control_document()))
def test_the_control_plane_keeps_to_its_document(
    fuzzed: tuple[World, str, str], path: str, method: str
) -> None:
    world, _, token = fuzzed
    fuzz(schemathesis.openapi.from_dict(control_document()), path, method, world, token, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), operations(control_document()))
def test_the_control_plane_keeps_to_its_document_for_long(
    fuzzed: tuple[World, str, str], path: str, method: str
) -> None:
    world, _, token = fuzzed
    fuzz(schemathesis.openapi.from_dict(control_document()), path, method, world, token, DEEP)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), operations(openapi_document()))
def test_the_data_plane_keeps_to_its_document_for_long(
    fuzzed: tuple[World, str, str], path: str, method: str
) -> None:
    world, route, token = fuzzed
    fuzz(schemathesis.openapi.from_dict(with_route(route)), path, method, world, token, DEEP)
