"""Requests, errors, cache and snapshot: the parts a request passes before a model is asked."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from mainstay.core.database import Database, read_change_counter
from mainstay.core.errors import Unauthenticated
from mainstay.govern import KeyStore, local_identity
from mainstay.govern.types import ApiKey, Identity, Limits
from mainstay.models import ProviderAuthFailed, ProviderRateLimited
from mainstay.models.types import ChatCall, Choice, Usage
from mainstay.serving.apps import refuse_for_app
from mainstay.serving.cache import ExactCache, cache_key
from mainstay.serving.errors import BadField, InsufficientQuota, reply_to
from mainstay.serving.snapshot import Refresher, ServingSnapshot, SnapshotHolder, build_snapshot, may_use
from mainstay.serving.surfaces.chat_read import read_chat_request
from mainstay.serving.types import ChatRequest, Final, SurfaceName

USER = {"role": "user", "content": "Hello"}
CALLER = Identity("key_a", "a", "key", "developer")


def _asked(request: ChatRequest) -> tuple[SurfaceName, ChatCall]:
    return request.surface, request.call


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def key(models: tuple[str, ...] | None = None, **fields: Any) -> ApiKey:
    values: dict[str, Any] = {"expires_at_us": None, "revoked_at_us": None, **fields}
    return ApiKey("key_a", "a", "ms-a", "h", "developer", models, frozenset(), Limits(), 0, **values)


def final(text: str) -> Final:
    return Final((Choice(text),), Usage(1, 1), 5, 1.0, "t", "m", "miss")


def test_text_parts_are_joined_and_the_newer_token_limit_wins() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    request = read_chat_request(
        body(messages=[{"role": "user", "content": parts}], max_tokens=5, max_completion_tokens=7, stop="x")
    )
    assert request.messages[0].content == "Hello"
    assert (request.call.max_tokens, request.call.stop) == (7, ("x",))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[1].content[0].image_url",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
            "messages[0].tool_calls[0]",
        ),
        ({"model": ""}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"models": ["acme/large"]}, "models"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"n": 17}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"seed": "1"}, "seed"),
        ({"metadata": []}, "metadata"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        read_chat_request(body(**fields))
    reply = reply_to(caught.value)
    assert reply.status == 400
    assert reply.body["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
        ({"stop": "x"}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"messages": [{"role": "system", "content": "Obey."}, USER]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "messages"),
    ],
)
def test_what_an_app_cannot_do_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        refuse_for_app(read_chat_request(body(**fields)))
    assert reply_to(caught.value).body["error"]["param"] == param


def test_neutral_values_some_clients_always_send_are_accepted() -> None:
    refuse_for_app(read_chat_request(body(frequency_penalty=0, tools=[], tool_choice=None, store=False)))


def test_an_upstream_refusal_of_our_key_is_not_passed_off_as_the_callers() -> None:
    reply = reply_to(ProviderAuthFailed("refused our key", provider="openai", upstream_status=401))
    assert reply.status == 502
    assert reply.body["error"]["code"] == "upstream_credentials_exhausted"
    assert reply.headers["x-should-retry"] == "false"


def test_a_providers_wait_is_passed_on() -> None:
    reply = reply_to(
        ProviderRateLimited("slow down", provider="openai", upstream_status=429, retry_after_s=7.2)
    )
    assert (reply.status, reply.headers["x-should-retry"], reply.headers["retry-after"]) == (429, "true", "8")


def test_a_spent_budget_must_not_be_retried() -> None:
    reply = reply_to(InsufficientQuota("spent", retry_after_s=None, scope="key_a"), "trace")
    assert reply.headers == {"x-should-retry": "false"}
    assert reply.body["error"]["type"] == "insufficient_quota"
    assert reply.body["error"]["mainstay"]["scope"] == "key_a"
    assert reply.body["error"]["mainstay"]["trace_id"] == "trace"


def test_an_unforeseen_error_says_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    reply = reply_to(RuntimeError("password=hunter2"))
    assert reply.status == 500
    assert "hunter2" not in str(reply.body)
    assert reply.body["error"]["mainstay"]["error_id"] in caplog.text


def test_the_cache_key_tells_callers_releases_and_settings_apart() -> None:
    request, other = read_chat_request(body()), read_chat_request(body(temperature=1))
    masked = replace(request, call=replace(request.call, source=None))
    board = Identity("key_a", "a", "key", "developer", frozenset({"board"}))
    keys = {
        cache_key(*_asked(request), CALLER, "project:1", "r1"),
        cache_key(*_asked(request), CALLER, "project:1", "r2"),
        cache_key(*_asked(other), CALLER, "project:1", "r1"),
        cache_key(*_asked(masked), CALLER, "project:1", "r1"),
        cache_key(*_asked(request), CALLER, "key_b", "r1"),
        cache_key(*_asked(request), board, "project:1", "r1"),
    }
    assert len(keys) == 6
    assert cache_key(*_asked(read_chat_request(body(stream=True))), CALLER, "project:1", "r1") in keys


def test_a_cached_answer_expires() -> None:
    now = [0]
    cache = ExactCache(clock=lambda: now[0])
    cache.put("k", final("x"), ttl_s=10)
    assert cache.get("k") is not None
    now[0] = 10_000_000
    assert cache.get("k") is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_the_cache_forgets_the_longest_unused_above_its_size() -> None:
    cache = ExactCache(limit_bytes=10_000)
    for name in "abc":
        cache.put(name, final("x" * 1000))
    cache.get("a")
    cache.put("d", final("x" * 1000))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.size_bytes <= 10_000
    cache.put("huge", final("x" * 20_000))
    assert cache.get("huge") is None


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


def test_a_field_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"a": [nested]}
    for name in ("metadata", "response_format"):
        with pytest.raises(BadField, match=f"{name}: is nested"):
            read_chat_request(body(**{name: nested}))
