"""Alarms that serve one request after the other, in virtual time."""

from __future__ import annotations

import asyncio

from serving_routing_lab import in_virtual_time, now, run

from mainstay.serving.routing.alarm import Alarm, Alarms


def start(alarms: Alarms, after_s: float) -> Alarm:
    """For the task that runs."""
    return alarms.start(asyncio.get_running_loop(), now() + after_s, asyncio.current_task())


async def rings_after_s(alarm: Alarm) -> float:
    began_s = now()
    try:
        await asyncio.sleep(50.0)
    except asyncio.CancelledError:
        assert alarm.owns_cancellation()
    return now() - began_s


@in_virtual_time
async def test_an_alarm_used_again_rings_at_its_new_time_and_not_at_the_old_one() -> None:
    alarms = Alarms()
    start(alarms, 100.0)  # a request under way: the timers of idle alarms are kept
    first = start(alarms, 1.0)
    alarms.end(first)
    second = start(alarms, 5.0)
    assert second is first
    assert await rings_after_s(second) == 5.0


@in_virtual_time
async def test_an_alarm_used_again_rings_at_a_time_sooner_than_the_old_one() -> None:
    alarms = Alarms()
    start(alarms, 100.0)
    alarms.end(start(alarms, 20.0))
    assert await rings_after_s(start(alarms, 5.0)) == 5.0


@in_virtual_time
async def test_an_idle_alarm_cancels_nobody() -> None:
    alarms, task = Alarms(), asyncio.current_task()
    start(alarms, 100.0)
    alarms.end(start(alarms, 1.0))
    await asyncio.sleep(2.0)
    assert task is not None
    assert task.cancelling() == 0


@in_virtual_time
async def test_an_alarm_that_has_rung_serves_the_next_request() -> None:
    alarms = Alarms()
    start(alarms, 100.0)
    first = start(alarms, 1.0)
    await rings_after_s(first)
    alarms.end(first)
    second = start(alarms, 2.0)
    assert second is first
    assert not second.rang
    assert await rings_after_s(second) == 2.0


@in_virtual_time
async def test_an_alarm_set_to_another_time_rings_then() -> None:
    alarm = start(Alarms(), 10.0)
    alarm.set(now() + 2.0)
    assert await rings_after_s(alarm) == 2.0
    alarm.set(now() + 3.0)
    assert await rings_after_s(alarm) == 3.0


@in_virtual_time
async def test_the_last_request_leaves_no_timer() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    for alarm in [start(alarms, 1.0 + n) for n in range(3)]:
        alarms.end(alarm)
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]


def test_an_alarm_of_another_loop_is_not_used() -> None:
    alarms = Alarms()

    async def leave_one() -> None:
        start(alarms, 9.0)  # its loop ends before it does
        alarms.end(start(alarms, 9.0))

    async def ask() -> None:
        assert start(alarms, 1.0).loop is asyncio.get_running_loop()

    run(leave_one())
    run(ask())
