"""Every fault of the table, with one target and with two, whole and streamed, as the official SDK meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from faults_table import FAULTS, Fault, Health, Outcome, Seen, fine
from faults_world import INPUT_NUSD, OUTPUT_NUSD, World

from mainstay.serving.routing.breakers import TargetView
from support.raw_server import RawServer, self_signed

CASES = [
    pytest.param(fault, mode, outcome, id=f"{fault.name} ({mode})")
    for fault in FAULTS
    for mode, outcome in (("whole", fault.plain), ("stream", fault.streamed))
    if outcome is not None
]
PROMPT: Any = [{"role": "user", "content": "Say hello."}]


@asynccontextmanager
async def broken(fault: Fault, folder: Path) -> AsyncIterator[tuple[str, RawServer | None]]:
    """The origin of a server with this fault; the server, where there is one that sees requests."""
    if fault.script == "refused":
        async with RawServer(fine()) as gone:
            origin = gone.origin
        yield origin, None
    elif fault.script == "dns":
        yield "http://nowhere.invalid", None
    elif fault.script == "tls":
        async with RawServer(fine(), tls=self_signed(folder, "127.0.0.1")[0]) as server:
            yield server.origin, None
    else:
        assert not isinstance(fault.script, str)
        async with RawServer(fault.script) as server:
            yield server.origin, server


def code_of(error: openai.APIError) -> str:
    assert isinstance(error.body, dict)
    return str(error.body["code"])


async def ask(client: openai.AsyncOpenAI, model: str, mode: str) -> tuple[Seen, str, str]:
    """(what was seen, the words, the trace's id)"""
    try:
        if mode == "whole":
            raw = await client.chat.completions.with_raw_response.create(model=model, messages=PROMPT)
            completion = raw.parse()
            return Seen(200), completion.choices[0].message.content or "", raw.headers["x-mainstay-trace-id"]
        text = ""
        raw_stream = await client.chat.completions.with_raw_response.create(
            model=model, messages=PROMPT, stream=True
        )
        trace_id = raw_stream.headers["x-mainstay-trace-id"]
        try:
            async for piece in raw_stream.parse():
                text += (piece.choices[0].delta.content or "") if piece.choices else ""
        except openai.APIError as error:
            return Seen(200, code_of(error)), text, trace_id
        return Seen(200), text, trace_id
    except openai.APIStatusError as error:
        return Seen(error.status_code, code_of(error)), "", error.response.headers["x-mainstay-trace-id"]


@asynccontextmanager
async def client(world: World, token: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{world.origin}/v1", api_key=token, max_retries=0) as made:
        yield made


def health_of(view: TargetView) -> Health:
    if view.availability == "limited":
        return "rate limit"
    if view.availability == "key_out":
        return "key"
    return "failure" if view.failures_in_a_row else "answered"


@pytest.mark.parametrize(("fault", "mode", "outcome"), CASES)
async def test_a_fault_of_the_only_target_has_the_outcome_of_the_table(
    world: World, tmp_path: Path, fault: Fault, mode: str, outcome: Outcome
) -> None:
    key, token = world.key()
    async with broken(fault, tmp_path) as (origin, server), client(world, token) as sdk:
        route = await world.configure(origin, route=options(fault))

        seen, _, trace_id = await ask(sdk, route, mode)

        budget, trace, (target,) = (
            await world.settled(key),
            await world.trace(trace_id),
            await world.targets(route),
        )
        assert seen == outcome.seen
        if server is not None:
            assert len(server.requests) == outcome.asked or fault.first_token_timeout_s is not None
        assert len(trace.attempts) == outcome.asked
        if outcome.health != "nothing":
            assert health_of(target) == outcome.health
        assert target.in_flight == 0
        check_charge(outcome, budget.spent_nusd, trace.attempts_cost_nusd)
        assert (trace.root.status == "error") == (seen.code is not None)
        if seen.code is not None:
            assert [span.status for span in trace.attempts] == ["error"] * outcome.asked


@pytest.mark.parametrize(("fault", "mode", "outcome"), CASES)
async def test_the_next_target_answers_where_the_table_says_so(
    world: World, tmp_path: Path, fault: Fault, mode: str, outcome: Outcome
) -> None:
    key, token = world.key()
    async with (
        broken(fault, tmp_path) as (origin, _),
        RawServer(fine()) as second,
        client(world, token) as sdk,
    ):
        route = await world.configure(origin, second.origin, route=options(fault))

        seen, text, trace_id = await ask(sdk, route, mode)

        trace = await world.trace(trace_id)
        assert len(second.requests) == outcome.elsewhere
        if outcome.elsewhere:
            assert (seen, text) == (Seen(200), "Hello world")
            assert [span.status for span in trace.attempts] == ["error", "unset"]
        else:
            assert seen == outcome.seen
        budget = await world.settled(key)
        assert budget.spent_nusd == trace.attempts_cost_nusd


def options(fault: Fault) -> dict[str, Any]:
    waits = fault.first_token_timeout_s
    return {} if waits is None else {"first_token_timeout_s": waits}


def check_charge(outcome: Outcome, spent_nusd: int, in_trace_nusd: int) -> None:
    assert spent_nusd == in_trace_nusd
    if outcome.charged == "nothing":
        assert spent_nusd == 0
    elif outcome.charged == "as the provider says":
        assert spent_nusd == 11 * INPUT_NUSD + 3 * OUTPUT_NUSD
    elif outcome.charged == "input":
        assert 0 < spent_nusd <= outcome.asked * 40 * INPUT_NUSD
    else:
        assert 2 * OUTPUT_NUSD < spent_nusd <= 40 * INPUT_NUSD + 10 * OUTPUT_NUSD
