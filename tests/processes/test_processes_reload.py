"""Everything that a running gateway serves is changed under load, and no request fails that should not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from processes_world import Answer, Started, World, ask, fresh_session, get, until, world

from mainstay.govern import SYSTEM
from mainstay.govern.types import Budget, Limits

EVERY_S = 0.01
LENIENT = "input: {pii: mask}\n"
STRICT = "input: {pii: block}\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Started]]:
    folder = tmp_path_factory.mktemp("reload")
    policy = folder / "plain.yaml"
    policy.write_text(LENIENT)
    with world(folder / "w", MAINSTAY_PLAIN_POLICY=str(policy)) as made:
        made.publish(promote=True)
        yield made, made.start("gateway")


class Load:
    """A hundred requests a second over all names, on connections that are kept. `answers` by name."""

    def __init__(self, base_url: str, token: str) -> None:
        self._base_url = base_url
        self._token = token
        self._asking: list[asyncio.Task[None]] = []
        self.answers: dict[str, list[Answer]] = {"steady": [], "moving": [], "helper": []}

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Until cancelled."""
        turn = 0
        while True:
            name = ("steady", "moving", "helper")[turn % 3]
            self._asking.append(asyncio.create_task(self._one(session, name, stream=turn % 2 == 0)))
            turn += 1
            await asyncio.sleep(EVERY_S)

    async def _one(self, session: aiohttp.ClientSession, name: str, stream: bool) -> None:
        self.answers[name].append(
            await ask(session, self._base_url, self._token, name, stream=stream, pace_s=0.02)
        )

    async def done(self) -> None:
        await asyncio.gather(*self._asking)

    async def saw(self, name: str, word: str) -> None:
        """Wait until the latest answer of this name came from there."""
        while not (self.answers[name] and word in self.answers[name][-1].text):
            await asyncio.sleep(0.02)


async def until_status(ask_once: Callable[[], Awaitable[Answer]], status: int) -> Answer:
    while (answer := await ask_once()).status != status:
        await asyncio.sleep(0.05)
    return answer


def test_nothing_fails_while_routes_models_keys_releases_and_limits_change(
    served: tuple[World, Started],
) -> None:
    made, gateway = served
    token, key_id = made.key()
    until(lambda: get(f"{gateway.base_url}/v1/models", token).status_code == 200)

    async def change_everything() -> Load:
        load = Load(gateway.base_url, token)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            running = asyncio.create_task(load.run(session))
            await load.saw("helper", "old")
            await _change_routes_and_models(made, gateway, load, session, token)
            await _change_keys_and_limits(made, gateway, session, key_id)
            await _change_release(made, load)
            running.cancel()
            await asyncio.wait({running})
            await load.done()
        return load

    load = asyncio.run(asyncio.wait_for(change_everything(), 60))
    for name, answers in load.answers.items():
        assert Counter(answer.status for answer in answers) == {200: len(answers)}, name
        assert not [answer.error for answer in answers if answer.error], name
        from_old, from_new = (sum(word in a.text for a in answers) for word in ("old", "new"))
        assert from_old + from_new == len(answers) > 50
        assert (from_old > 0, from_new > 0) == (True, name != "steady")
    print(f"{sum(map(len, load.answers.values()))} requests")


async def _change_routes_and_models(
    made: World, gateway: Started, load: Load, session: aiohttp.ClientSession, token: str
) -> None:
    async def brief() -> Answer:
        return await ask(session, gateway.base_url, token, "brief")

    assert (await brief()).code == "model_not_found"
    made.write_project("new", more_models="  brief: {provider: new, model: m}\n")
    await load.saw("moving", "new")
    await until_status(brief, 200)
    made.write_project("old")
    await load.saw("moving", "old")
    await until_status(brief, 404)


async def _change_keys_and_limits(
    made: World, gateway: Started, session: aiohttp.ClientSession, key_id: str
) -> None:
    other, other_id = await asyncio.to_thread(made.key)

    async def ask_as_other() -> Answer:
        return await ask(session, gateway.base_url, other)

    await until_status(ask_as_other, 200)
    limits = Limits(requests_per_minute=100_000, budgets=(Budget(10**12, "day", hard=True),))
    await asyncio.to_thread(made.stores.limits.set, SYSTEM, "key", key_id, limits)
    await asyncio.to_thread(made.revoke, other_id)
    await until_status(ask_as_other, 401)


async def _change_release(made: World, load: Load) -> None:
    made.write_project("new")
    await asyncio.to_thread(made.publish, True)
    await load.saw("helper", "new")


def test_a_broken_file_is_not_taken_over_and_the_gateway_stays_ready_with_a_warning(
    served: tuple[World, Started],
) -> None:
    made, gateway = served
    token, _ = made.key()
    until(lambda: _asked(gateway, token).status == 200)
    policy = Path(made.environment["MAINSTAY_PLAIN_POLICY"])

    def warned(*names: str) -> bool:
        reply = get(f"{gateway.base_url}/readyz")
        warnings = reply.json().get("warnings", [])
        assert (reply.status_code, reply.json()["status"]) == (200, "ready")
        return len(warnings) == len(names) and all(
            name in line for name, line in zip(names, warnings, strict=True)
        )

    made.write_project("old")
    until(lambda: "old" in _asked(gateway, token, "moving").text)
    assert warned()
    made.project.write_text(made.project.read_text().replace("provider: old", "provider: nobody"))
    policy.write_text("input: {pii: sometimes}\n")
    until(lambda: warned("mainstay.yaml", "plain.yaml"))
    assert _asked(gateway, token).status == 200
    made.write_project("new")
    policy.write_text(STRICT)
    until(warned)
    assert "new" in _asked(gateway, token, "moving").text
    until(lambda: _asked(gateway, token, note="ada@example.org").status == 400)
    assert _asked(gateway, token, note="ada@example.org").code == "content_policy_violation"
    policy.write_text(LENIENT)
    until(lambda: _asked(gateway, token, note="ada@example.org").status == 200)


def _asked(gateway: Started, token: str, model: str = "steady", **order: object) -> Answer:
    async def ask_once() -> Answer:
        async with fresh_session() as session:
            return await ask(session, gateway.base_url, token, model, **order)

    return asyncio.run(ask_once())
