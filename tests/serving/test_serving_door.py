"""What the gateway's door does once for many requests equals what it would do for each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from mainstay.guard.types import Finding
from mainstay.models.types import Choice, Usage
from mainstay.serving.connected import Connections
from mainstay.serving.exchange import Exchange
from mainstay.serving.http import ClientLeft
from mainstay.serving.surfaces.common import extension
from mainstay.serving.types import Final, Grounding, Started

PLAIN = Final(
    choices=(Choice(text="Hello."),),
    usage=Usage(3, 2),
    cost_nusd=2_100,
    latency_ms=12.34567,
    trace_id="0123456789abcdef0123456789abcdef",
    answered_by="gpt",
    cache="miss",
)
NEVER = 'a "quoted" \\ näme\n'


@pytest.mark.parametrize(
    "final",
    [
        PLAIN,
        replace(PLAIN, cost_nusd=0, latency_ms=0.0, cache="hit", cost_source="cache", refused=True),
        replace(PLAIN, latency_ms=1e9, cost_nusd=12_000_000_000),
        replace(PLAIN, latency_ms=0.00004, cost_nusd=9_000_000_001),
        replace(PLAIN, cost_nusd=None, cost_source="unknown"),
        replace(PLAIN, answered_by=NEVER, app=NEVER, release=3, release_digest="sha256:x", environment="p"),
        replace(PLAIN, trace_id=NEVER),
        replace(PLAIN, grounding=Grounding(0.5, ("a",), ("b",), "refused")),
        replace(PLAIN, guard=(Finding("pii", "email", "input", "mask", 1.0, 0, 5, "a@b.c"),)),
    ],
)
def test_what_an_answer_says_of_itself_is_the_same_from_the_template(final: Final) -> None:
    assert extension(final) == orjson.dumps(final.extension())


def exchange(*headers: tuple[bytes, bytes]) -> Exchange:
    return Exchange({"path": "/v1/models/", "headers": list(headers)}, lambda: 1_000_000)


def test_the_first_of_two_headers_counts() -> None:
    asked = exchange(
        (b"x-mainstay-cache", b"skip"),
        (b"x-mainstay-cache", b"use"),
        (b"x-mainstay-deadline-ms", b"5"),
        (b"x-mainstay-deadline-ms", b"nonsense"),
    )

    assert (asked.cache_wish(), asked.deadline_s(), asked.path) == (("skip", None), 0.005, "/v1/models")


def test_headers_of_another_target_are_its_own() -> None:
    asked = exchange()
    first = Started("t", "snap", "a", "openai", None, "miss")
    asked.started = first
    one = asked.headers()

    asked.started = replace(first, model="b", snapshot_id="later", attempts=2, target="b (key 2)")

    assert (b"x-mainstay-model", b"a") in one
    assert {
        (b"x-mainstay-model", b"b"),
        (b"x-mainstay-target", b"b (key 2)"),
        (b"x-mainstay-attempts", b"2"),
        (b"x-mainstay-snapshot", b"later"),
    } <= set(asked.headers())


def test_a_client_that_leaves_is_noticed_on_each_event_loop() -> None:
    connections = Connections(look_every_s=0.001)

    async def left() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def request() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(ClientLeft), connections.watch(left, task):
            await asyncio.Event().wait()
        with connections.watch(left, task):
            pass  # the loop ends while its timer runs

    for _ in range(2):
        asyncio.run(asyncio.wait_for(request(), 10))
