"""A key that a provider refuses: what is tried instead, how long it is out, and what the client hears."""

from __future__ import annotations

import asyncio

import pytest
from serving_routing_lab import Lab, Scripted, failure, in_virtual_time, now, route, target

from mainstay.models.errors import ProviderAuthFailed, ProviderError, ProviderQuotaExhausted
from mainstay.serving.errors import reply_to
from mainstay.serving.routing import CredentialsExhausted


@pytest.mark.parametrize(
    "error",
    [
        failure(ProviderAuthFailed, 401),
        failure(ProviderQuotaExhausted, 402),
        failure(ProviderAuthFailed, 403),
    ],
    ids=lambda e: str(e.upstream_status),
)
@in_virtual_time
async def test_a_refused_key_is_left_at_once_for_the_next_and_out_for_five_minutes(
    error: ProviderError,
) -> None:
    lab, bad, good = Lab(), Scripted().plays(error), Scripted()
    keys = route(target(bad, credential="key 1"), target(good, credential="key 2"))
    began = now()
    assert await lab.ask(keys) == "hello"
    assert now() == began
    await asyncio.sleep(299)
    await lab.ask(keys)
    assert (len(bad.calls), len(good.calls)) == (1, 2)
    await asyncio.sleep(2)
    await lab.ask(keys)
    assert len(bad.calls) == 2


@in_virtual_time
async def test_a_refused_key_is_out_for_all_its_models_and_403_for_one() -> None:
    lab, acme, other = Lab(), Scripted("acme"), Scripted("other")
    first, second = (route(target(acme, m), target(other)) for m in ("a", "b"))
    acme.plays(failure(ProviderAuthFailed, 403))
    await lab.ask(first)
    await lab.ask(second)
    assert acme.calls == ["a", "b"]
    acme.plays(failure(ProviderAuthFailed, 401))
    await lab.ask(second)
    await asyncio.sleep(1)
    await lab.ask(first)
    await lab.ask(second)
    assert acme.calls == ["a", "b", "b"]


@in_virtual_time
async def test_when_every_key_is_refused_the_client_learns_that_it_is_not_its_own() -> None:
    lab, acme = Lab(), Scripted().always(failure(ProviderAuthFailed, 401))
    given = route(target(acme))
    for _ in range(2):  # refused there, then known to be out
        with pytest.raises(CredentialsExhausted) as caught:
            await lab.ask(given)
        reply = reply_to(caught.value)
        assert (reply.status, reply.body["error"]["code"]) == (502, "upstream_credentials_exhausted")
        assert reply.headers["x-should-retry"] == "false"
    assert len(acme.calls) == 1


@in_virtual_time
async def test_new_settings_of_a_provider_bring_its_key_back() -> None:
    lab = Lab()
    with pytest.raises(CredentialsExhausted):
        await lab.ask(route(target(Scripted("acme").plays(failure(ProviderAuthFailed, 401)))))
    assert await lab.ask(route(target(Scripted("acme")))) == "hello"
