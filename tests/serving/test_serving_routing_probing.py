"""Servers that can be asked how they are: what their answers change. And what names a conversation."""

from __future__ import annotations

import asyncio
import logging

import pytest
from serving_routing_lab import FOREVER, Lab, Scripted, in_virtual_time, now, route, run, target

from mainstay.models.errors import ProviderUnreachable
from mainstay.models.types import ChatCall, ChatMessage, Health, Tool
from mainstay.serving.routing import Prober, sticky_key
from mainstay.serving.types import ChatRequest


class Server(Scripted):
    """A provider that says how it is."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.says: list[Health | Exception | float] = []
        self.asked_s: list[float] = []

    async def health(self, timeout_s: float) -> Health:
        self.asked_s.append(now())
        says = self.says.pop(0) if self.says else Health(True, running=1, waiting=0)
        if isinstance(says, float):
            await asyncio.sleep(says)
            return Health(True)
        if isinstance(says, Exception):
            raise says
        return says


BAD = [Health(False), ProviderUnreachable("gone", provider="s"), FOREVER, ValueError("odd body")]


@pytest.mark.parametrize("bad", BAD, ids=["says so", "unreachable", "silent", "unreadable"])
def test_a_server_that_is_not_well_twice_is_left_before_a_request_finds_out(
    bad: Health | Exception | float, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        lab, server, other = Lab(), Server("server"), Server("other")
        given = route(target(server), target(other))
        prober = Prober(lab.router.breakers)
        await lab.ask(given)
        server.says = [bad, bad]
        await prober.probe_once()
        await lab.ask(given)
        assert len(server.calls) == 2
        await prober.probe_once()
        await lab.ask(given)
        assert (len(server.calls), len(other.calls)) == (2, 1)

    with caplog.at_level(logging.CRITICAL, "mainstay"):
        run(work())


@in_virtual_time
async def test_a_server_that_is_well_again_is_tried_by_the_next_request() -> None:
    lab, server, other = Lab(), Server("server"), Server("other")
    given = route(target(server), target(other))
    prober = Prober(lab.router.breakers)
    await lab.ask(given)
    server.says = [Health(False), Health(False)]
    for _ in range(3):
        await prober.probe_once()
    assert lab.states()["server/m"] == "half_open"
    await lab.ask(given)
    assert (len(server.calls), lab.states()["server/m"]) == (2, "closed")


@in_virtual_time
async def test_all_models_of_a_server_are_judged_by_one_question() -> None:
    lab, server = Lab(), Server("server")
    await lab.ask(route(target(server, "a")))
    await lab.ask(route(target(server, "b")))
    await Prober(lab.router.breakers).probe_once()
    assert len(server.asked_s) == 1
    assert [v.waiting for v in lab.router.breakers.states(now())] == [0, 0]


@in_virtual_time
async def test_it_asks_every_few_seconds_while_the_server_is_used_and_no_longer() -> None:
    lab, server, plain = Lab(), Server("server"), Scripted("plain")
    prober, began = Prober(lab.router.breakers, interval_s=3.0), now()
    prober.start()
    prober.start()
    await asyncio.sleep(10)
    assert server.asked_s == []
    await lab.ask(route(target(server), target(plain)))
    await asyncio.sleep(120)
    await prober.stop()
    await prober.stop()
    assert [at - began for at in server.asked_s[:3]] == [12.0, 15.0, 18.0]
    assert len(server.asked_s) == 20
    assert len(asyncio.all_tasks()) == 1


# Conversations


def request(
    *messages: ChatMessage, metadata: dict[str, object] | None = None, **fields: object
) -> ChatRequest:
    return ChatRequest("m", ChatCall("", messages, **fields), metadata=metadata or {})  # type: ignore[arg-type]


SYSTEM, HELLO = ChatMessage("system", "be brief"), ChatMessage("user", "hello")


def test_a_conversations_id_comes_first_then_the_cache_key_then_the_user() -> None:
    full = {"metadata": {"conversation_id": "c1"}, "extra": {"prompt_cache_key": "k"}, "user": "u"}
    assert sticky_key(request(HELLO, **full)) == "conversation:c1"  # type: ignore[arg-type]
    assert sticky_key(request(HELLO, extra={"prompt_cache_key": "k"}, user="u")) == "cache:k"
    assert sticky_key(request(HELLO, user="u")) == "user:u"


def test_later_turns_of_a_conversation_have_the_key_of_its_first() -> None:
    first = sticky_key(request(SYSTEM, HELLO))
    later = sticky_key(request(SYSTEM, HELLO, ChatMessage("assistant", "hi"), ChatMessage("user", "and?")))
    assert first == later
    assert first is not None


def test_another_beginning_is_another_conversation() -> None:
    keys = {
        sticky_key(request(SYSTEM, HELLO)),
        sticky_key(request(HELLO)),
        sticky_key(request(SYSTEM, ChatMessage("user", "bye"))),
        sticky_key(request(SYSTEM, HELLO, tools=(Tool("look"),))),
    }
    assert len(keys) == 4


def test_only_the_start_of_a_long_prompt_is_read() -> None:
    long = "x" * 2048
    assert sticky_key(request(ChatMessage("user", long + "a"))) == sticky_key(
        request(ChatMessage("user", long + "b"))
    )


def test_a_request_without_any_of_it_has_no_key() -> None:
    assert sticky_key(request(ChatMessage("assistant", "hi"))) is None
