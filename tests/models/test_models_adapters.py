"""What every adapter does alike, each against its vendor's server: answers, failures, silence, leaving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
from models_adapters import ADAPTERS, GEMINI, GEMINI_ARRAYS, OLLAMA, OPENAI, broken_off, deltas, failures

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models import (
    ProviderAuthFailed,
    ProviderError,
    ProviderRateLimited,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
    Usage,
)
from mainstay.models.collect import collect
from mainstay.models.providers.registry import PROVIDER_KINDS
from mainstay.models.types import Choice, Completion
from support.raw_server import RawServer, answer, repeats


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: adapter.id)
def adapter(request):
    return request.param


def greeting(adapter):
    return Completion((Choice("Hello world"),), adapter.usage, adapter.answering_model)


# --- answers ----------------------------------------------------------------------------------------------------


async def test_an_answer_streams_with_its_finish_and_then_its_usage(adapter, provider):
    seen = await deltas(provider, adapter.call())

    assert [delta.text for delta in seen if delta.text] == list(adapter.texts)
    assert [delta.finish_reason for delta in seen if delta.finish_reason] == ["stop"]
    assert seen[0].model == adapter.answering_model
    assert seen[-1].usage == adapter.usage
    assert [delta.raw for delta in seen if delta.raw] == []


async def test_a_whole_answer_is_the_streamed_one(adapter, provider):
    streamed = await collect(provider.stream(adapter.call(), 5.0))
    whole = await provider.complete(adapter.call(), 5.0)

    assert streamed == greeting(adapter)
    assert replace(whole, raw=None) == greeting(adapter)


async def test_usage_that_a_stream_does_not_tell_is_estimated(adapter, provider, upstream):
    for reply in adapter.uncounted:
        upstream.plays(reply)

        assert (await deltas(provider, adapter.call()))[-1].usage == Usage(1, 3, estimated=True)


@pytest.mark.parametrize("adapter", [GEMINI, GEMINI_ARRAYS, OLLAMA, OPENAI], ids=lambda adapter: adapter.id)
async def test_usage_that_a_whole_answer_does_not_tell_is_estimated(adapter, provider, upstream):
    for reply in adapter.uncounted:
        upstream.plays(reply)

        assert (await provider.complete(adapter.call(), 5.0)).usage == Usage(1, 3, estimated=True)


# --- the provider itself ----------------------------------------------------------------------------------------


def test_its_kind_is_registered(adapter):
    assert PROVIDER_KINDS.get(adapter.kind) is adapter.provider


def test_a_base_url_without_a_scheme_is_refused(adapter):
    with pytest.raises(ConfigError, match="http://"):
        adapter.make("localhost:8000")


async def test_connections_are_used_again(adapter, provider, upstream):
    for _ in range(3):
        await deltas(provider, adapter.call())
        await provider.complete(adapter.call(), 5.0)

    assert len(upstream.requests) == 6
    assert len(upstream.sockets) == 1


@pytest.fixture
def upstream_elsewhere(adapter) -> Iterator[Any]:
    """Its event loop runs in a thread, and outlives those of a test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    server = adapter.server()
    run(server.__aenter__())
    server.plays(adapter.greets())
    yield server
    run(server.__aexit__())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_one_provider_serves_one_event_loop_after_another(adapter, upstream_elsewhere):
    provider = adapter.make(upstream_elsewhere.base_url)

    async def once() -> str:
        try:
            return (await collect(provider.stream(adapter.call(), 5.0))).choices[0].text
        finally:
            await provider.close()

    assert [asyncio.run(once()) for _ in range(2)] == ["Hello world"] * 2


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "302 Found"])
async def test_an_error_that_is_no_json_is_known_by_its_status(adapter, status):
    page = answer(b"<html>sorry</html>", status, "Content-Type: text/html")
    async with RawServer(repeats(page)) as server:
        provider = adapter.make(server.origin)

        for error in await failures(provider, adapter.call()):
            assert type(error) is ProviderError
            assert error.retryable
            assert error.upstream_status == int(status[:3])
        await provider.close()


async def test_the_wait_a_rate_limit_asks_for_is_passed_on(adapter, provider, upstream):
    upstream.plays(
        replace(adapter.greets(), status=429, error=adapter.slow_down, headers={"Retry-After": "7"})
    )

    for error in await failures(provider, adapter.call()):
        assert type(error) is ProviderRateLimited
        assert error.retryable
        assert error.retry_after_s == 7.0


async def test_a_redirect_is_not_followed_with_the_key(adapter, provider, upstream):
    elsewhere = {"Location": f"{upstream.base_url}/elsewhere"}
    upstream.plays(
        adapter.greets(status=307, headers=elsewhere, error={"message": "moved"}), adapter.greets()
    )

    with pytest.raises(ProviderError) as caught:
        await deltas(provider, adapter.call())

    assert caught.value.upstream_status == 307
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-1\nsk-secret", "sk-secret\u2019"])
async def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(adapter, upstream, key):
    provider = adapter.make(upstream.base_url, api_key=Secret(key), options=adapter.options_beside_key)

    for error in await failures(provider, adapter.call()):
        assert type(error) is ProviderAuthFailed
        assert "does not fit into an HTTP header" in str(error)
        assert "sk-" not in f"{error!r} {error.fix}"
        assert error.__cause__ is None
    await provider.close()

    assert upstream.requests == []


async def test_a_server_that_is_not_there_is_unreachable_and_its_address_and_key_stay_ours(
    adapter, unused_tcp_port
):
    provider = adapter.make(f"http://127.0.0.1:{unused_tcp_port}")

    for error in await failures(provider, adapter.call()):
        assert type(error) is ProviderUnreachable
        assert error.retryable
        assert [word for word in ("127.0.0.1", *adapter.secrets) if word in str(error)] == []
    await provider.close()


# --- streams that end too early ---------------------------------------------------------------------------------


async def test_a_stream_cut_anywhere_is_broken_after_what_came(adapter, provider, upstream):
    heard = []
    for cut in range(adapter.end + 1):
        upstream.plays(adapter.greets(cut_after=cut))
        said, error = await broken_off(provider, adapter.call())
        assert type(error) is ProviderStreamBroken
        heard.append(said)

    assert list(dict.fromkeys(heard)) == list(accumulate(adapter.texts_before_end, initial=""))


async def test_a_stream_without_its_end_is_broken(adapter, provider, upstream):
    upstream.plays(adapter.unended)

    with pytest.raises(ProviderStreamBroken, match=adapter.ended_by):
        await deltas(provider, adapter.call())


# --- silence and leaving ----------------------------------------------------------------------------------------


async def test_silence_within_an_answer_times_out(adapter, provider, upstream):
    upstream.plays(adapter.greets(silent_after=adapter.first))

    async with asyncio.timeout(10):  # long before the deadline
        said, error = await broken_off(provider, adapter.call(), 30.0)

    assert said == adapter.texts[0]
    assert type(error) is ProviderTimeout


async def test_silence_after_the_last_event_loses_nothing(adapter, provider, upstream):
    upstream.plays(adapter.greets(silent_after=adapter.frames))

    assert await collect(provider.stream(adapter.call(), 30.0)) == greeting(adapter)


@pytest.mark.parametrize("whole", [False, True])
async def test_the_deadline_bounds_the_wait_for_the_first_byte(adapter, provider, upstream, whole):
    upstream.plays(adapter.greets(silent_before=True))

    with pytest.raises(ProviderTimeout):
        await (provider.complete if whole else partial(deltas, provider))(adapter.call(), 0.2)

    await asyncio.wait_for(upstream.hung_up.wait(), 5.0)


async def test_leaving_a_stream_hangs_up(adapter, provider, upstream):
    upstream.plays(adapter.greets(silent_after=adapter.first))

    async with aclosing(provider.stream(adapter.call(), 30.0)) as stream:
        async for delta in stream:
            if delta.text:
                break

    assert delta.text == adapter.texts[0]
    await asyncio.wait_for(upstream.hung_up.wait(), 5.0)


@pytest.mark.parametrize("whole", [False, True])
async def test_cancelling_a_call_that_waits_hangs_up(adapter, provider, upstream, whole):
    upstream.plays(adapter.greets(silent_before=True))
    waiting = asyncio.ensure_future(
        (provider.complete if whole else partial(deltas, provider))(adapter.call(), 30.0)
    )
    while not upstream.requests:
        await asyncio.sleep(0)

    waiting.cancel()

    await asyncio.wait_for(upstream.hung_up.wait(), 5.0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
