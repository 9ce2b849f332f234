"""Reading with a memory, keeping, and the routes of kept responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from serving_responses_harness import IDS, STARTED, events_of, final_of, tool_call, words

from mainstay.core.database import Database
from mainstay.core.errors import InvalidInput
from mainstay.core.ids import new_id, new_trace_id
from mainstay.models.types import ChatMessage, Delta, Thinking, ToolCall
from mainstay.serving.errors import BadField
from mainstay.serving.responses import ResponseNotFound, ResponsesService, ResponseStore
from mainstay.serving.responses import service as service_module
from mainstay.serving.surfaces.responses import ResponsesSurface
from mainstay.serving.surfaces.types import Ids


@pytest.fixture
def service(sqlite_database: Database) -> ResponsesService:
    return ResponsesService(ResponseStore(sqlite_database))


async def answered(
    service: ResponsesService, deltas: list[Delta] | None = None, owner: str = "key_1", **body: Any
) -> dict[str, Any]:
    request = await service.prepare({"model": "m", "input": "Hi", **body}, owner)
    ids = Ids(new_id("req"), new_trace_id(), 1_790_000_000)
    answer: dict[str, Any] = orjson.loads(
        await service.whole(final_of(deltas or words("Hello")), request, ids, owner)
    )
    return answer


async def test_a_conversation_goes_on_with_all_that_was_said_but_old_instructions(database: Database):
    service = ResponsesService(ResponseStore(database))
    thought = Delta(thinking=Thinking("Hm.", signature="sig"))
    calls = [
        Delta(reasoning="Hm."),
        thought,
        *words("Let me look."),
        *tool_call("weather", "{}", call_id="c1"),
    ]
    first = await answered(service, calls, input="Weather?", instructions="Be brief.")
    output = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
    second = await answered(service, words("Rain."), input=[output], previous_response_id=first["id"])

    request = await service.prepare(
        {"model": "m", "input": "Thanks", "instructions": "Be kind.", "previous_response_id": second["id"]},
        "key_1",
    )

    assert second["previous_response_id"] == first["id"]
    assert request.messages[2].thinking == (Thinking("Hm.", signature="sig"),)
    assert [(m.role, m.content) for m in request.messages] == [
        ("system", "Be kind."),
        ("user", "Weather?"),
        ("assistant", "Let me look."),
        ("tool", "rain"),
        ("assistant", "Rain."),
        ("user", "Thanks"),
    ]
    assert request.messages[2].tool_calls == (ToolCall("c1", "weather", "{}"),)


async def test_two_answers_may_continue_one(service: ResponsesService):
    first = await answered(service)

    one, other = [await answered(service, previous_response_id=first["id"]) for _ in range(2)]

    assert one["id"] != other["id"]
    for later in (one, other):
        assert later["previous_response_id"] == first["id"]
        assert await service.get(later["id"], "key_1") == later


async def test_a_response_reads_back_as_it_was_sent(service: ResponsesService):
    sent = await answered(service, metadata={"a": "b"})

    assert await service.get(sent["id"], "key_1") == sent


async def test_hidden_reasoning_shows_when_it_is_asked_for(service: ResponsesService):
    deltas = [Delta(thinking=Thinking(encrypted="opaque")), *words("2")]
    plain = await answered(service, deltas)
    included = await answered(service, deltas, include=["reasoning.encrypted_content"])

    again = await service.get(plain["id"], "key_1", "include%5B%5D=reasoning.encrypted_content")

    assert "encrypted_content" not in plain["output"][0]
    assert again["output"][0]["encrypted_content"].endswith(":opaque")
    assert (await service.get(included["id"], "key_1")) == included


@pytest.mark.parametrize("stored", [None, True])
async def test_a_stream_is_kept_before_its_last_event(service: ResponsesService, stored: bool | None):
    request = await service.prepare({"model": "m", "input": "Hi", "stream": True, "store": stored}, "key_1")
    stream = ResponsesSurface().stream(request, IDS)
    frames = stream.start(STARTED)
    for delta in words("Hel", "lo"):
        frames += stream.delta(delta)

    frames += await service.end(stream, final_of(words("Hel", "lo")), request, "key_1")

    last = events_of(frames)[-1]
    assert last["type"] == "response.completed"
    assert await service.get(last["response"]["id"], "key_1") == last["response"]


async def test_what_shall_not_be_kept_touches_no_database(tmp_path: Any):
    service = ResponsesService(ResponseStore(Database(f"sqlite:///{tmp_path / 'none' / 'there.db'}")))

    answer = await answered(service, store=False)

    assert answer["store"] is False
    assert "warning" not in answer["mainstay"]


async def test_an_answer_that_could_not_be_kept_says_so(tmp_path: Any):
    service = ResponsesService(ResponseStore(Database(f"sqlite:///{tmp_path / 'none' / 'there.db'}")))

    answer = await answered(service)

    assert answer["output"][0]["content"][0]["text"] == "Hello"
    assert answer["store"] is False
    assert "could not be kept" in answer["mainstay"]["warning"]


async def test_a_slow_database_does_not_hold_an_answer_back(sqlite_database: Database):
    service = ResponsesService(ResponseStore(sqlite_database), save_timeout_s=0.05)
    with sqlite_database.begin():
        answer = await answered(service)

    assert answer["store"] is False
    assert "did not confirm" in answer["mainstay"]["warning"]


@pytest.mark.parametrize("owner", ["key_2", "user_1"])
async def test_another_callers_response_does_not_exist(service: ResponsesService, owner: str):
    kept = await answered(service)
    uses: list[Callable[[], Any]] = [
        lambda: service.get(kept["id"], owner),
        lambda: service.delete(kept["id"], owner),
        lambda: service.input_items(kept["id"], owner),
        lambda: service.cancel(kept["id"], owner),
        lambda: answered(service, owner=owner, previous_response_id=kept["id"]),
    ]

    for use in uses:
        with pytest.raises(ResponseNotFound) as caught:
            await use()
        assert caught.value.status == 404

    item = {"type": "item_reference", "id": kept["output"][0]["id"]}
    with pytest.raises(BadField):
        await answered(service, owner=owner, input=[item])


async def test_a_deleted_turn_ends_its_conversation(service: ResponsesService):
    first = await answered(service)
    second = await answered(service, previous_response_id=first["id"])

    told = await service.delete(first["id"], "key_1")

    assert told == {"id": first["id"], "object": "response", "deleted": True}
    with pytest.raises(ResponseNotFound, match="no longer whole") as caught:
        await answered(service, previous_response_id=second["id"])
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.detail["param"] == "previous_response_id"
    with pytest.raises(ResponseNotFound):
        await service.delete(first["id"], "key_1")


async def test_a_conversation_that_is_too_long_is_refused(
    service: ResponsesService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service_module, "TURNS_MAX", 2)
    last: dict[str, Any] = {"id": None}
    for _ in range(3):
        last = await answered(service, previous_response_id=last["id"])

    with pytest.raises(BadField, match="turns"):
        await answered(service, previous_response_id=last["id"])


async def test_items_may_be_named_by_their_id(service: ResponsesService):
    first = await answered(service, input="One")
    (given,) = (await service.input_items(first["id"], "key_1"))["data"]

    request = await service.prepare(
        {
            "model": "m",
            "input": [
                {"type": "item_reference", "id": given["id"]},
                {"id": first["output"][0]["id"]},
                {"role": "user", "content": "Two"},
            ],
        },
        "key_1",
    )

    assert request.messages == (
        ChatMessage("user", "One"),
        ChatMessage("assistant", "Hello"),
        ChatMessage("user", "Two"),
    )


async def test_reasoning_sent_back_by_its_id_is_whole_again(service: ResponsesService):
    first = await answered(service, [Delta(thinking=Thinking(encrypted="opaque")), *words("2")])

    request = await service.prepare({"model": "m", "input": first["output"]}, "key_1")

    assert [t.encrypted for t in request.messages[0].thinking] == ["opaque"]


async def test_input_items_are_paged(service: ResponsesService):
    items = [{"role": "user", "content": f"{n}"} for n in range(5)]
    kept = await answered(service, input=items)

    async def page(query: str) -> tuple[list[str], bool, str]:
        answer = await service.input_items(kept["id"], "key_1", query)
        assert answer["object"] == "list"
        assert (answer["first_id"], answer["last_id"]) == (answer["data"][0]["id"], answer["data"][-1]["id"])
        return [i["content"][0]["text"] for i in answer["data"]], answer["has_more"], answer["last_id"]

    assert (await page(""))[:2] == (["4", "3", "2", "1", "0"], False)
    texts, more, last = await page("order=asc&limit=2")
    assert (texts, more) == (["0", "1"], True)
    texts, more, last = await page(f"order=asc&limit=2&after={last}")
    assert (texts, more) == (["2", "3"], True)
    assert (await page(f"order=asc&limit=2&after={last}"))[:2] == (["4"], False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
        ("q=1", "q"),
    ],
)
async def test_a_mistaken_page_is_told(service: ResponsesService, query: str, param: str):
    kept = await answered(service)

    with pytest.raises(BadField) as caught:
        await service.input_items(kept["id"], "key_1", query)

    assert caught.value.detail["param"] == param


async def test_a_kept_response_is_neither_cancelled_nor_streamed_again(service: ResponsesService):
    kept = await answered(service)

    with pytest.raises(InvalidInput, match="background"):
        await service.cancel(kept["id"], "key_1")
    with pytest.raises(BadField, match="background"):
        await service.get(kept["id"], "key_1", "stream=true")
