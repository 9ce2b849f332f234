"""What a reader sees of a stream, and what a reader who leaves stops."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest
from serving_routing_lab import FOREVER, STOP, Lab, Scripted, Step, in_virtual_time, now, route, target

from mainstay.models.errors import ProviderError, ProviderStreamBroken, ProviderTimeout
from mainstay.models.types import ChatCall, Delta, Route, Thinking, ToolCallDelta, Usage
from mainstay.serving.errors import DeadlineExceeded, UpstreamFailed

BROKEN = ProviderStreamBroken("cut", provider="acme")
META = Delta(model="m-1", raw=b'{"role":"assistant"}')

CONTENT = [
    Delta(text="a"),
    Delta(reasoning="hm"),
    Delta(refusal="no"),
    Delta(tool_calls=(ToolCallDelta(0, "call_1", "look"),)),
    Delta(thinking=Thinking(encrypted="x")),
]


def stream(lab: Lab, given: Route, deadline_s: float = 100.0) -> AsyncGenerator[Delta]:
    return lab.dispatcher.stream(lab.plans(given, deadline_s), lab.prepare, lab.log)


async def read(deltas: AsyncGenerator[Delta], into: list[Delta]) -> None:
    async for delta in deltas:
        into.append(delta)


@in_virtual_time
async def test_deltas_pass_in_order_and_as_they_are() -> None:
    tail = Delta(usage=Usage(3, 2))
    acme = Scripted().always(META, CONTENT[0], CONTENT[1], STOP, tail)
    got = [delta async for delta in stream(Lab(), route(target(acme)))]
    assert [id(d) for d in got] == [id(d) for d in (META, CONTENT[0], CONTENT[1], STOP, tail)]


@pytest.mark.parametrize("error", [BROKEN, ProviderError("overloaded", provider="acme", upstream_status=529)])
@in_virtual_time
async def test_nothing_is_given_on_before_content_so_that_failover_is_unseen(error: ProviderError) -> None:
    acme = Scripted("acme").plays([META, META, error])
    lab, other = Lab(), Scripted("other")
    got = [delta async for delta in stream(lab, route(target(acme), target(other)))]
    assert got == [Delta(text="hello"), STOP]


@pytest.mark.parametrize("first", CONTENT, ids=lambda d: str(d)[6:20])
@in_virtual_time
async def test_after_content_an_error_ends_the_stream_for_good(first: Delta) -> None:
    lab, acme, other = Lab(), Scripted("acme").plays([META, first, BROKEN]), Scripted("other")
    got: list[Delta] = []
    with pytest.raises(UpstreamFailed) as caught:
        await read(stream(lab, route(target(acme), target(other))), got)
    assert got == [META, first]
    assert other.calls == []
    assert (caught.value.status, caught.value.detail["cause"]) == (502, "provider_stream_broken")
    assert [a["code"] for a in caught.value.detail["attempts"]] == ["provider_stream_broken"]


@in_virtual_time
async def test_at_most_64_deltas_without_content_are_held() -> None:
    acme, other = Scripted("acme").plays([META] * 64 + [BROKEN]), Scripted("other")
    got: list[Delta] = []
    with pytest.raises(UpstreamFailed):
        await read(stream(Lab(), route(target(acme), target(other))), got)
    assert len(got) == 64


@in_virtual_time
async def test_large_deltas_without_content_are_not_held_for_long() -> None:
    big = Delta(raw=b"x" * (100 << 10))
    acme = Scripted().plays([big, big, big, FOREVER])
    async with aclosing(stream(Lab(), route(target(acme)))) as deltas:
        assert [await anext(deltas) for _ in range(3)] == [big] * 3


@pytest.mark.parametrize("script", [(), (META,)])
@in_virtual_time
async def test_a_stream_that_ends_without_a_word_is_failed_over(script: tuple[Step, ...]) -> None:
    lab = Lab()
    given = route(target(Scripted("acme").plays(script)), target(Scripted("other")))
    assert await lab.ask(given) == "hello"
    assert isinstance(lab.log.over[0].error, ProviderStreamBroken)


@in_virtual_time
async def test_a_stream_that_ends_without_a_finish_reason_is_a_failure() -> None:
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(target(Scripted().plays(["half an"]))))


@in_virtual_time
async def test_every_choice_that_began_must_finish() -> None:
    one, two = Delta(text="a", index=1), Delta(finish_reason="stop", index=1)
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(target(Scripted().plays(["x", one, STOP]))))
    with pytest.raises(UpstreamFailed):
        await Lab().ask(route(target(Scripted().plays(["x", one, two]))))
    assert await Lab().ask(route(target(Scripted().plays(["x", one, two, STOP])))) == "xa"


@pytest.mark.parametrize("step", [BROKEN, KeyError("x"), FOREVER])
@in_virtual_time
async def test_what_follows_a_finish_reason_fails_no_answer(step: Step) -> None:
    lab = Lab()
    assert await lab.ask(route(target(Scripted().plays(["hi", STOP, step]))), 5.0) == "hi"
    assert [a.error for a in lab.log.over] == [None]


@in_virtual_time
async def test_an_empty_answer_that_finished_is_an_answer() -> None:
    got = [d async for d in stream(Lab(), route(target(Scripted().plays([META, STOP]))))]
    assert got == [META, STOP]


@in_virtual_time
async def test_the_deadline_ends_a_stream_that_fell_silent_half_way() -> None:
    lab, acme, began = Lab(), Scripted().plays(["half", FOREVER]), now()
    with pytest.raises(DeadlineExceeded):
        await lab.ask(route(target(acme)), 5.0)
    assert (now() - began, acme.hung_up_s) == (5.0, [began + 5.0])
    assert isinstance(lab.log.over[0].error, DeadlineExceeded)
    assert lab.states()["acme/m"] == "closed"


@in_virtual_time
async def test_the_deadline_counts_also_while_the_reader_is_slow() -> None:
    lab, acme = Lab(), Scripted().always("a", "b", "c", STOP)
    async with aclosing(stream(lab, route(target(acme)), 5.0)) as deltas:
        await anext(deltas)
        await anext(deltas)
        await asyncio.sleep(6)  # the reader's own wait is not cut off
        with pytest.raises(DeadlineExceeded):
            await anext(deltas)
    assert len(acme.hung_up_s) == 1


@in_virtual_time
async def test_a_providers_own_timer_for_the_same_deadline_is_the_deadline() -> None:
    lab = Lab()
    acme = Scripted().always(4.995, ProviderTimeout("late", provider="acme"))
    with pytest.raises(DeadlineExceeded):
        await lab.ask(route(target(acme), attempts_max=1), 5.0)


@pytest.mark.parametrize("script", [(FOREVER,), (META, FOREVER), ("a", FOREVER), ("a", STOP, FOREVER)])
@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_who_cancels_hangs_up_at_once_and_the_target_is_not_to_blame(
    script: tuple[Step, ...], way: str
) -> None:
    lab, acme = Lab(), Scripted().always(*script)
    for _ in range(6):
        task = asyncio.create_task(getattr(lab, way)(route(target(acme), first_token_timeout_s=50.0)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert acme.hung_up_s[-1] == now()
    assert len(lab.log.over) == len(lab.log.begun) == len(acme.hung_up_s) == 6
    assert {a.error for a in lab.log.over} == {None}
    assert (lab.in_flight(), lab.states()["acme/m"]) == (0, "closed")


@pytest.mark.parametrize("deltas_read", [1, 2])
@in_virtual_time
async def test_who_closes_the_stream_hangs_up_at_once(deltas_read: int) -> None:
    lab, acme = Lab(), Scripted().always("a", "b", FOREVER)
    deltas = stream(lab, route(target(acme)))
    for _ in range(deltas_read):
        await anext(deltas)
    await deltas.aclose()
    assert (acme.hung_up_s, len(lab.log.over), lab.in_flight()) == ([now()], 1, 0)


@in_virtual_time
async def test_a_stream_that_was_never_begun_leaves_nothing() -> None:
    lab, acme = Lab(), Scripted()
    await stream(lab, route(target(acme))).aclose()
    assert (acme.calls, lab.log.begun) == ([], [])


@in_virtual_time
async def test_who_cancels_during_a_pause_or_a_reservation_leaves_nothing_open() -> None:
    lab, acme = Lab(), Scripted().always(ProviderError("no", provider="acme", retry_after_s=5.0))
    task = asyncio.create_task(lab.ask(route(target(acme))))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held = Lab()

    async def never(_: object) -> None:
        await asyncio.sleep(FOREVER)

    held.prepare = never  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(held.ask(route(target(acme))))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(lab.log.over), lab.in_flight(), held.in_flight(), held.log.begun) == (1, 0, 0, [])


@in_virtual_time
async def test_a_reservation_that_hangs_is_ended_by_the_deadline() -> None:
    lab = Lab()

    async def never(_: object) -> None:
        await asyncio.sleep(FOREVER)

    lab.prepare = never  # type: ignore[method-assign,assignment]
    with pytest.raises(DeadlineExceeded):
        await lab.ask(route(target(Scripted())), 5.0)
    assert lab.in_flight() == 0


@in_virtual_time
async def test_a_deadline_and_a_cancellation_at_once_is_a_cancellation() -> None:
    lab = Lab()
    task = asyncio.create_task(lab.ask(route(target(Scripted().always(FOREVER))), 5.0))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(now() + 5.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.in_flight() == 0


@in_virtual_time
async def test_a_caller_that_is_timed_out_itself_sees_its_own_timeout() -> None:
    lab = Lab()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await lab.ask(route(target(Scripted().always("a", FOREVER))), 5.0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@in_virtual_time
async def test_a_deadline_leaves_its_task_uncancelled() -> None:
    with pytest.raises(DeadlineExceeded):
        await Lab().ask(route(target(Scripted().always(FOREVER))), 5.0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)


@pytest.mark.parametrize("script", [("a", "b", STOP), (BROKEN,), ("a", BROKEN), (FOREVER,)])
@in_virtual_time
async def test_a_request_leaves_no_timer_and_no_task_behind(script: tuple[Step, ...]) -> None:
    lab = Lab()
    with suppress(UpstreamFailed):
        await lab.ask(route(target(Scripted().always(*script)), first_token_timeout_s=3.0, attempts_max=1))
    loop = asyncio.get_running_loop()
    assert [h for h in loop._scheduled if not h.cancelled()] == []  # type: ignore[attr-defined]
    assert len(asyncio.all_tasks()) == 1
    gc.collect()


@in_virtual_time
async def test_the_time_to_the_first_token_is_on_the_attempt() -> None:
    lab = Lab()
    await lab.ask(route(target(Scripted().plays([META, 0.5, "a", 2.0, STOP]))))
    attempt = lab.log.over[0]
    assert attempt.ended_s is not None
    assert (attempt.ttft_s, attempt.ended_s - attempt.started_s) == (0.5, 2.5)


class Stubborn(Scripted):
    """An adapter that makes an error of its own of being cancelled."""

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        try:
            async with aclosing(super().stream(call, deadline_s)) as deltas:
                async for delta in deltas:
                    yield delta
        except asyncio.CancelledError:
            raise ProviderError("interrupted", provider=self.name) from None


@pytest.mark.parametrize("script", [(FOREVER,), ("a", FOREVER)])
@pytest.mark.parametrize("way", ["ask", "complete"])
@in_virtual_time
async def test_a_deadline_is_a_deadline_whatever_an_adapter_makes_of_it(
    script: tuple[Step, ...], way: str
) -> None:
    lab = Lab()
    with pytest.raises(DeadlineExceeded):
        await getattr(lab, way)(route(target(Stubborn().always(*script))), 5.0)
    task = asyncio.current_task()
    assert task is not None
    assert (task.cancelling(), lab.states()["acme/m"]) == (0, "closed")


@in_virtual_time
async def test_a_silent_target_is_failed_over_whatever_its_adapter_makes_of_it() -> None:
    given = route(target(Stubborn().always(FOREVER)), target(Scripted("other")), first_token_timeout_s=2.0)
    assert await Lab().ask(given) == "hello"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@in_virtual_time
async def test_a_probe_whose_client_left_makes_room_for_the_next() -> None:
    lab, acme = Lab(), Scripted().plays(*[ProviderError("no", provider="acme")] * 5)
    given = route(target(acme), attempts_max=1)
    for _ in range(5):
        with pytest.raises(UpstreamFailed):
            await lab.ask(given)
    await asyncio.sleep(10)
    acme.plays([FOREVER])
    probe = asyncio.create_task(lab.ask(given))
    await asyncio.sleep(1)
    probe.cancel()
    await asyncio.wait((probe,))
    assert await lab.ask(given) == "hello"
    assert lab.states()["acme/m"] == "closed"
