"""What the hot path holds in memory: whom it lets in, and how it is made anew."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mainstay.core.database import Database, read_change_counter
from mainstay.core.errors import Unauthenticated
from mainstay.govern import KeyStore, local_identity
from mainstay.govern.types import ApiKey, Identity, Limits
from mainstay.serving.snapshot import Refresher, ServingSnapshot, SnapshotHolder, build_snapshot, may_use

CALLER = Identity("key_a", "a", "key", "developer")


def key(models: tuple[str, ...] | None = None, **fields: Any) -> ApiKey:
    values: dict[str, Any] = {"expires_at_us": None, "revoked_at_us": None, **fields}
    return ApiKey("key_a", "a", "ms-a", "h", "developer", models, frozenset(), Limits(), 0, **values)


@pytest.mark.parametrize(
    ("models", "name", "allowed"),
    [
        (None, "anything", True),
        (("*",), "anything", True),
        (("bot",), "bot@dev", True),
        (("bot",), "bot2", False),
        (("bot@production",), "bot@dev", False),
        (("openai/*",), "openai/gpt-4o", True),
        ((), "bot", False),
    ],
)
def test_a_key_covers_the_names_it_lists(models: tuple[str, ...] | None, name: str, allowed: bool) -> None:
    assert may_use(key(models), name) is allowed


@pytest.mark.parametrize("fields", [{"expires_at_us": 5}, {"revoked_at_us": 1}])
def test_an_expired_or_revoked_key_is_refused(fields: dict[str, int]) -> None:
    snapshot = ServingSnapshot("1", {"h": (key(**fields), CALLER)})
    with pytest.raises(Unauthenticated):
        snapshot.identify("h", 5)
    with pytest.raises(Unauthenticated):
        snapshot.identify("unknown", 5)


def test_a_changed_counter_swaps_the_snapshot_within_its_poll() -> None:
    counter, rebuilt = [1], threading.Event()
    holder = SnapshotHolder(ServingSnapshot("0"))

    def build() -> ServingSnapshot:
        if counter[0] == 2:
            rebuilt.set()
        return ServingSnapshot(str(counter[0]))

    refresher = Refresher(holder, lambda: counter[0], build, poll_s=0.01)
    assert refresher.refresh()
    assert not refresher.refresh()
    refresher.start()
    counter[0] = 2
    assert rebuilt.wait(10)
    refresher.close()
    assert holder.current.id == "2"


def test_a_failed_rebuild_keeps_the_old_snapshot_and_tries_again() -> None:
    broken = [True]
    holder = SnapshotHolder(ServingSnapshot("old"))

    def build() -> ServingSnapshot:
        if broken[0]:
            raise OSError("database is gone")
        return ServingSnapshot("new")

    refresher = Refresher(holder, lambda: 1, build)
    assert not refresher.refresh()
    assert holder.current.id == "old"
    assert holder.failure is not None
    assert "database is gone" in holder.failure.reason
    broken[0] = False
    assert refresher.refresh()
    assert (holder.current.id, holder.failure) == ("new", None)


def test_a_revoked_key_is_refused_after_the_next_poll(sqlite_database: Database) -> None:
    keys = KeyStore(sqlite_database, b"k" * 32)
    created, token = keys.create(local_identity(), "ci")

    def build() -> ServingSnapshot:
        counter = read_change_counter(sqlite_database)
        return build_snapshot(counter, keys.active(), {}, ("local/extractive",))

    holder = SnapshotHolder(build())
    refresher = Refresher(holder, lambda: read_change_counter(sqlite_database), build)
    before = holder.current
    assert before.identify(keys.hash_token(token.reveal()), 0)[1].name == "ci"
    keys.revoke(local_identity(), created.id)
    assert refresher.refresh()
    with pytest.raises(Unauthenticated):
        holder.current.identify(keys.hash_token(token.reveal()), 0)
    assert holder.current.id != before.id


def test_of_two_refreshes_at_once_the_newer_snapshot_stays() -> None:
    counter, slow, go_on = [1], threading.Event(), threading.Event()
    holder = SnapshotHolder(ServingSnapshot("0"))

    def build() -> ServingSnapshot:
        seen = counter[0]
        if seen == 1:
            slow.set()
            assert go_on.wait(10)
        return ServingSnapshot(str(seen))

    refresher = Refresher(holder, lambda: counter[0], build)
    first = threading.Thread(target=refresher.refresh)
    first.start()
    assert slow.wait(10)
    counter[0] = 2
    second = threading.Thread(target=refresher.refresh)
    second.start()
    second.join(0.2)  # were it let through, it would be done by now
    go_on.set()
    first.join()
    second.join()
    assert holder.current.id == "2"


def test_a_database_that_answers_again_ends_the_failure_though_nothing_changed() -> None:
    broken = [False]
    holder = SnapshotHolder(ServingSnapshot("0"))

    def read_counter() -> int:
        if broken[0]:
            raise OSError("database is locked")
        return 1

    refresher = Refresher(holder, read_counter, lambda: ServingSnapshot("1"))
    refresher.refresh()
    broken[0] = True
    refresher.refresh()
    assert holder.failure is not None
    broken[0] = False
    assert not refresher.refresh()
    assert holder.failure is None
