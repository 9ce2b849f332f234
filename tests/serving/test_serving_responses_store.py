"""The table of kept responses, on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from mainstay.core.database import Database
from mainstay.serving.responses import ResponseStore
from mainstay.serving.responses import store as store_module
from mainstay.serving.responses.store import responses

OUTPUT = [{"id": "msg_x_0", "type": "message", "role": "assistant", "content": []}]


def body(name: str, previous: str | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "response",
        "model": "m",
        "previous_response_id": previous,
        "output": OUTPUT,
    }


def keep(store: ResponseStore, name: str, previous: str | None = None, owner: str = "key_1") -> None:
    store.save(owner, body(name, previous), [{"id": f"in_{name}", "type": "message"}], shows_secret=False)


def test_a_response_comes_back_as_it_was_kept(database: Database):
    store = ResponseStore(database, lambda: 42)
    text = "snow\u2603 \x00 \U0001f600"

    store.save("key_1", {**body("resp_1"), "note": text}, [{"id": "a", "text": text}], shows_secret=True)

    found = store.get("resp_1", "key_1")
    assert found is not None
    assert {**found.body, "output": found.output_items} == {**body("resp_1"), "note": text}
    assert list(found.body) == [*body("resp_1"), "note"]
    assert found.input_items == [{"id": "a", "text": text}]
    assert (found.created_at_us, found.shows_secret, found.model) == (42, True, "m")


def test_a_response_is_its_callers_alone(database: Database):
    store = ResponseStore(database)
    keep(store, "resp_1")

    assert store.get("resp_1", "key_2") is None
    assert store.links(["resp_1"], "key_2") == []
    assert store.chain("resp_1", "key_2", 9) == []
    assert not store.delete("resp_1", "key_2")
    assert store.get("resp_1", "key_1") is not None


def test_an_id_is_taken_once(database: Database):
    store = ResponseStore(database)
    keep(store, "resp_1")

    with pytest.raises(sa.exc.IntegrityError):
        keep(store, "resp_1", owner="key_2")


def test_a_chain_goes_back_to_its_first_response_or_to_a_gap(database: Database):
    store = ResponseStore(database)
    keep(store, "a")
    keep(store, "b", "a")
    keep(store, "c", "b")
    keep(store, "other", "a")

    assert [link.id for link in store.chain("c", "key_1", 9)] == ["c", "b", "a"]
    assert [link.id for link in store.chain("c", "key_1", 2)] == ["c", "b"]
    assert all(link.size_bytes > 100 for link in store.chain("c", "key_1", 9))
    assert store.delete("a", "key_1")
    assert [link.previous_response_id for link in store.chain("c", "key_1", 9)] == ["b", "a"]


def test_a_chain_does_not_pass_through_another_callers_response(database: Database):
    store = ResponseStore(database)
    keep(store, "a", owner="key_2")
    keep(store, "b", "a")

    assert [link.id for link in store.chain("b", "key_1", 9)] == ["b"]


def test_what_is_too_old_is_pruned(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "PRUNED_AT_ONCE", 1)
    for at_us, name in ((10, "old"), (11, "older"), (20, "edge"), (30, "new")):
        keep(ResponseStore(database, lambda at=at_us: at), name)
    store = ResponseStore(database)

    assert store.prune(20) == 2
    assert store.prune(20) == 0
    assert set(store.many(["old", "older", "edge", "new"], "key_1")) == {"edge", "new"}


def test_the_migrated_table_is_the_declared_one(database: Database):
    inspector = sa.inspect(database.engine)

    made = {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns("responses")}
    dialect = database.engine.dialect
    declared = {c.name: (c.type.compile(dialect), bool(c.nullable)) for c in responses.columns}
    assert made == declared
    assert [i["name"] for i in inspector.get_indexes("responses")] == ["ix_responses_created_at_us"]
