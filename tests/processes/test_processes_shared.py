"""Three gateway processes on one port, a control plane beside them, limits in a real Redis."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from processes_world import Answer, Started, World, ask, free_ports, fresh_session, get, until, world

from mainstay.core.money import nusd_from_usd
from mainstay.govern.types import Budget, Limits
from support.redis_server import RedisServer

WORKERS = 3


@dataclass
class Cluster:
    world: World
    gateway: Started
    control: Started
    metrics_port: int
    reader: str

    @property
    def base_url(self) -> str:
        return self.gateway.base_url

    def watch_url(self, worker: int) -> str:
        return f"http://127.0.0.1:{self.metrics_port + worker}"

    def metric(self, worker: int, name: str, labels: str = "") -> float:
        text = get(f"{self.watch_url(worker)}/metrics", self.reader).text
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith(name) and labels in line
        )

    def snapshots(self) -> set[str]:
        return {get(f"{self.watch_url(worker)}/readyz").json()["snapshot"] for worker in range(WORKERS)}

    def know(self) -> None:
        """Wait until every process has the present state of the control database."""
        wanted = {f"s{self.world.change_counter()}"}
        until(lambda: self.snapshots() == wanted)

    def budget(self, key_id: str) -> dict[str, int]:
        """As the control plane shows it."""
        budgets = get(f"{self.control.base_url}/api/v1/budgets", self.reader).json()["budgets"]
        found: dict[str, int] = next(budget for budget in budgets if budget["scope_id"] == key_id)
        return found

    def settled(self, key_id: str) -> dict[str, int]:
        until(lambda: self.budget(key_id)["held_nusd"] == 0)
        return self.budget(key_id)

    def pids(self) -> list[int]:
        """Of the gateway's processes."""
        children = f"/proc/{self.gateway.process.pid}/task/{self.gateway.process.pid}/children"
        with open(children) as file:  # noqa: PTH123 - no file on a disk
            return [int(pid) for pid in file.read().split()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Cluster]:
    port = free_ports(WORKERS)
    with world(tmp_path_factory.mktemp("shared"), MAINSTAY_REDIS_URL=redis_server.url) as made:
        gateway = made.start("gateway", "--workers", str(WORKERS), "--metrics-port", str(port))
        control = made.start("control")
        cluster = Cluster(made, gateway, control, port, made.key(name="reader")[0])
        cluster.know()
        yield cluster


def total_nusd(answers: list[Answer]) -> int:
    """What the answers say that they cost."""
    return sum(nusd_from_usd(a.headers["x-mainstay-cost-usd"]) for a in answers if a.status == 200)


async def ask_many(cluster: Cluster, token: str, count: int, **order: object) -> list[Answer]:
    async with fresh_session() as session:
        orders = [{"output": random.randint(1, 50), **order} for _ in range(count)]
        return await asyncio.gather(*(ask(session, cluster.base_url, token, **each) for each in orders))


def test_a_hard_budget_is_not_overspent_by_many_processes_and_counted_to_the_nano_dollar(
    cluster: Cluster,
) -> None:
    limit_nusd = 4_000_000
    token, key_id = cluster.world.key(Limits(budgets=(Budget(limit_nusd, "day", hard=True),)))
    cluster.know()
    before = [cluster.metric(worker, "mainstay_requests_total") for worker in range(WORKERS)]
    answers = asyncio.run(ask_many(cluster, token, 200, pace_s=0.02))
    state, spent_nusd = cluster.settled(key_id), total_nusd(answers)
    assert {a.status for a in answers} == {200, 429}
    assert {a.code for a in answers if a.status == 429} <= {"budget_in_flight", "insufficient_quota"}
    assert 0 < spent_nusd <= limit_nusd
    assert state["spent_nusd"] == spent_nusd
    after = [cluster.metric(worker, "mainstay_requests_total") for worker in range(WORKERS)]
    assert sum(after) - sum(before) == 200
    assert all(late > early for early, late in zip(before, after, strict=True)), "every process had its share"


def test_a_request_rate_is_shared_by_all_processes(cluster: Cluster) -> None:
    token, _ = cluster.world.key(Limits(requests_per_minute=20))
    cluster.know()
    began = time.monotonic()
    answers = asyncio.run(ask_many(cluster, token, 80))
    refilled = (time.monotonic() - began) * 20 / 60 + 1
    assert 20 <= sum(a.status == 200 for a in answers) <= 20 + refilled
    assert {a.code for a in answers if a.status != 200} == {"rate_limit_exceeded"}


def test_a_revoked_key_is_refused_by_every_process(cluster: Cluster) -> None:
    token, key_id = cluster.world.key()
    cluster.know()
    first = asyncio.run(ask_many(cluster, token, 12))
    assert {a.status for a in first} == {200}
    cluster.world.revoke(key_id)
    revoked = time.monotonic()
    cluster.know()
    print(f"revoked everywhere after {time.monotonic() - revoked:.2f} s")
    refused = asyncio.run(ask_many(cluster, token, 40))
    assert {a.status for a in refused} == {401}


def test_an_answer_names_the_snapshot_that_served_it(cluster: Cluster) -> None:
    token, _ = cluster.world.key()
    cluster.know()
    first = asyncio.run(ask_many(cluster, token, 1))[0].headers["x-mainstay-snapshot"]
    cluster.world.key(name="another")
    cluster.know()
    second = asyncio.run(ask_many(cluster, token, 1))[0].headers["x-mainstay-snapshot"]
    assert int(second.removeprefix("s")) > int(first.removeprefix("s"))


def test_each_process_tells_its_own_metrics_and_the_shared_port_says_where(cluster: Cluster) -> None:
    token, _ = cluster.world.key()
    cluster.know()
    asyncio.run(ask_many(cluster, token, 30))
    labels = 'target="steady",provider="old"'
    told = [get(f"{cluster.watch_url(worker)}/metrics", cluster.reader).text for worker in range(WORKERS)]
    for text in told:
        assert re.search(
            r'mainstay_target_available\{credential="[^"]*",provider="old",target="steady"\} 1.0', text
        )
        assert "mainstay_target_whole_seconds{" in text, labels
        assert "mainstay_limit_store_down 0.0" in text
        assert "mainstay_limit_holds_open 0.0" in text
    shared = get(f"{cluster.base_url}/metrics", cluster.reader)
    assert (shared.status_code, "--metrics-port" in shared.text) == (404, True)
    assert get(f"{cluster.base_url}/readyz").json()["status"] == "ready"


def test_names_that_nobody_configured_make_one_series(cluster: Cluster) -> None:
    token, _ = cluster.world.key()
    cluster.know()

    async def ask_for_anything() -> list[Answer]:
        async with fresh_session() as session:
            names = [f"old/anything-{n}" for n in range(30)]
            return await asyncio.gather(*(ask(session, cluster.base_url, token, name) for name in names))

    assert {a.status for a in asyncio.run(ask_for_anything())} == {200}
    for worker in range(WORKERS):
        assert "anything-" not in get(f"{cluster.watch_url(worker)}/metrics", cluster.reader).text
    others = [cluster.metric(worker, "mainstay_requests_total", 'model="other"') for worker in range(WORKERS)]
    assert sum(others) == 30
    assert cluster.metric(0, "mainstay_target_available", 'target="other"') == 1


def test_the_control_plane_shows_traces_that_gateways_recorded(cluster: Cluster) -> None:
    token, _ = cluster.world.key()
    cluster.know()
    answers = asyncio.run(ask_many(cluster, token, 6))
    asked = time.monotonic()
    for answer in answers:
        url = f"{cluster.control.base_url}/api/v1/traces/{answer.headers['x-mainstay-trace-id']}"
        until(lambda url=url: get(url, cluster.reader).status_code == 200)
    print(f"traces readable after {time.monotonic() - asked:.2f} s")


def test_a_control_plane_alone_says_where_answers_are_given_and_a_gateway_where_pages_are(
    cluster: Cluster,
) -> None:
    control = get(f"{cluster.control.base_url}/v1/models", cluster.reader)
    assert (control.status_code, control.json()["error"]["code"]) == (404, "not_found")
    assert "mainstay gateway" in control.text
    gateway = get(f"{cluster.base_url}/apps", cluster.reader)
    assert (gateway.status_code, "mainstay control" in gateway.text) == (404, True)
    assert get(f"{cluster.control.base_url}/api/openapi.json").status_code == 200


def test_a_killed_process_is_started_again_while_the_others_answer_and_no_spend_is_lost(
    cluster: Cluster,
) -> None:
    token, key_id = cluster.world.key(Limits(budgets=(Budget(10**9, "day", hard=True),)))
    cluster.know()
    pids = cluster.pids()
    assert len(pids) == WORKERS

    async def ask_while_one_dies() -> list[Answer]:
        async with fresh_session() as session:
            asking = [asyncio.create_task(ask(session, cluster.base_url, token, output=9)) for _ in range(40)]
            done = await asyncio.gather(*asking)
            os.kill(pids[0], signal.SIGKILL)
            return done

    answers = asyncio.run(ask_while_one_dies())
    assert {a.status for a in answers} == {200}
    later = until(lambda: _none_lost(asyncio.run(ask_many(cluster, token, 10, output=9))))
    killed = time.monotonic()
    until(lambda: len(cluster.pids()) == WORKERS and pids[0] not in cluster.pids())
    until(lambda: _reaches(cluster, 0))
    print(f"serves again after {time.monotonic() - killed:.2f} s")
    state = cluster.settled(key_id)
    assert state["spent_nusd"] >= total_nusd(answers) + total_nusd(later)
    assert "started again" in cluster.gateway.said()


def _none_lost(answers: list[Answer]) -> list[Answer] | None:
    return answers if {a.status for a in answers} == {200} else None


def _reaches(cluster: Cluster, worker: int) -> bool:
    try:
        return get(f"{cluster.watch_url(worker)}/readyz").status_code == 200
    except OSError:
        return False
    except Exception as error:
        if type(error).__name__ in ("ConnectError", "ReadError", "RemoteProtocolError"):
            return False
        raise


@pytest.mark.slow
def test_what_a_killed_process_held_is_settled_in_full_by_the_others(cluster: Cluster) -> None:
    token, key_id = cluster.world.key(Limits(budgets=(Budget(10**9, "day", hard=True),)))
    cluster.know()

    async def ask_and_lose_the_processes() -> list[Answer]:
        async with fresh_session() as session:
            asking = [
                asyncio.create_task(
                    ask(session, cluster.base_url, token, stream=True, pieces=100, pace_s=0.2)
                )
                for _ in range(6)
            ]
            while cluster.budget(key_id)["held_nusd"] == 0:
                await asyncio.sleep(0.05)
            for pid in cluster.pids():
                os.kill(pid, signal.SIGKILL)
            return await asyncio.gather(*asking)

    answers = asyncio.run(ask_and_lose_the_processes())
    assert not any(answer.complete for answer in answers)
    held = cluster.budget(key_id)["held_nusd"]
    assert held > 0
    until(lambda: cluster.budget(key_id)["held_nusd"] == 0, within_s=120)
    assert cluster.budget(key_id)["spent_nusd"] >= held
