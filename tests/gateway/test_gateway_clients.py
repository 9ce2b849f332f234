"""What official SDKs do beside asking: asynchronous clients, headers, dry runs, deadlines, cached answers, lists."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import anthropic
import openai
import pytest
from gateway_clients import ask
from gateway_said import Said
from gateway_stage import Stage
from gateway_vendors import vendors
from gateway_wishes import HI, SURFACES, SurfaceName, Wish

from mainstay.govern.types import Budget, Limits
from support.openai_server import Reply

VENDORS = tuple(vendors())


@pytest.mark.parametrize("name", VENDORS)
async def test_asynchronous_clients_stream_side_by_side(stage: Stage, name: str):
    model, key = stage.vendors[name].model, stage.server.key

    async with (
        openai.AsyncOpenAI(base_url=f"{stage.base_url}/v1", api_key=key, max_retries=0) as one,
        anthropic.AsyncAnthropic(base_url=stage.base_url, api_key=key, max_retries=0) as other,
    ):

        async def chat() -> str:
            stream = await one.chat.completions.create(model=model, messages=HI, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

        async def response() -> str:
            stream = await one.responses.create(model=model, input="Hi", stream=True)
            return "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])

        async def message() -> str:
            async with other.messages.stream(model=model, messages=HI, max_tokens=99) as stream:
                return await stream.get_final_text()

        said = await asyncio.gather(*(way() for way in (chat, response, message) for _ in range(3)))

    assert said == ["Hello world"] * 9


@pytest.mark.parametrize("name", VENDORS)
def test_usage_ends_a_stream_only_when_it_is_asked_for(stage: Stage, name: str):
    def usages(**options: Any) -> list[Any]:
        stream = stage.openai.chat.completions.create(
            model=stage.vendors[name].model, messages=HI, stream=True, **options
        )
        return [chunk.usage for chunk in stream]

    assert set(usages()) == {None}
    *before, last = usages(stream_options={"include_usage": True})
    assert set(before) == {None}
    assert last.total_tokens == stage.vendors[name].counted.input + stage.vendors[name].counted.output


# --- headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_every_answer_says_who_made_it_and_what_is_left(stage: Stage, streamed: bool):
    token, _ = stage.key(
        Limits(requests_per_minute=60, tokens_per_minute=600_000, budgets=(Budget(10**9, "day"),))
    )
    model = stage.vendors["bedrock"].model
    one, other = stage.openai_as(token), stage.anthropic_as(token)
    more = {"stream": True} if streamed else {}

    replies: list[Any] = [
        one.chat.completions.with_raw_response.create(model=model, messages=HI, **more),
        one.responses.with_raw_response.create(model=model, input="Hi", **more),
        one.completions.with_raw_response.create(model=model, prompt="Hi", **more),
        other.messages.with_raw_response.create(model=model, messages=HI, max_tokens=9, **more),
    ]

    for reply in replies:
        headers = reply.headers
        assert headers["x-request-id"] == headers["request-id"] == headers["x-mainstay-request-id"]
        assert headers["x-request-id"].startswith("req_")
        assert len(headers["x-mainstay-trace-id"]) == 32
        assert headers["x-mainstay-model"] == model
        assert headers["x-mainstay-provider"] == "bedrock"
        assert headers["x-mainstay-cache"] == "bypass"
        assert headers["x-mainstay-attempts"] == "1"
        assert headers["x-ratelimit-limit-requests"] == "60"
        assert int(headers["x-ratelimit-remaining-requests"]) < 60
        assert headers["x-ratelimit-reset-tokens"].endswith("s")
        assert float(headers["x-mainstay-budget-remaining-usd"]) < 1
        assert ("x-mainstay-cost-usd" in headers) is not streamed
    if streamed:
        for reply in replies:
            list(reply.parse())
    else:
        assert {reply.headers["x-mainstay-cost-usd"] for reply in replies} == {"0.000041"}


def test_an_answer_carries_the_id_of_its_request(stage: Stage):
    model = stage.vendors["openai-like"].model

    chat = stage.openai.chat.completions.create(model=model, messages=HI)
    response = stage.openai.responses.create(model=model, input="Hi")
    message = stage.anthropic.messages.create(model=model, messages=HI, max_tokens=9)

    ids = [chat._request_id, response._request_id, message._request_id]
    assert all(one is not None and one.startswith("req_") for one in ids)
    assert len(set(ids)) == 3


# --- dry run, deadline, cache ------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_cost_and_sends_nothing(stage: Stage):
    token, _ = stage.key(Limits(budgets=(Budget(1_000_000, "day"),)))
    vendor = stage.vendors["anthropic"]
    dry: Any = {"extra_query": {"dry_run": "cost"}}
    vendor.server.requests.clear()

    reports: list[Any] = [
        stage.openai_as(token).chat.completions.create(
            model=vendor.model, messages=HI, max_tokens=100, **dry
        ),
        stage.anthropic_as(token).messages.create(model=vendor.model, messages=HI, max_tokens=100, **dry),
        stage.openai_as(token).responses.create(model=vendor.model, input="Hi", max_output_tokens=100, **dry),
    ]

    for report in reports:
        said = report.to_dict()
        assert said["object"] == "mainstay.dry_run"
        assert [target["target"] for target in said["targets"]] == [vendor.model]
        assert said["targets"][0]["output_tokens_at_most"] == 100
        assert float(said["worst_cost_usd"]) > 100 * 2e-6
        assert said["budgets"][0]["limit_usd"] == "0.001"
        assert said["refusal"] is None
    assert vendor.server.requests == []


def test_a_deadline_bounds_a_request(stage: Stage):
    vendor = stage.vendors["openai-like"]
    vendor.server.plays(silent(vendor))
    headers = {"x-mainstay-deadline-ms": "80"}

    with pytest.raises(openai.InternalServerError) as late:
        stage.openai.chat.completions.create(model="once", messages=HI, extra_headers=headers)
    with pytest.raises(anthropic.APIStatusError) as also:
        stage.anthropic.messages.create(model="once", messages=HI, max_tokens=9, extra_headers=headers)
    bad = {"x-mainstay-deadline-ms": "soon"}
    with pytest.raises(openai.BadRequestError) as wrong:
        stage.openai.chat.completions.create(model="once", messages=HI, extra_headers=bad)

    assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
    assert also.value.status_code == 504
    assert wrong.value.param == "x-mainstay-deadline-ms"


def silent(vendor: Any, after: int | None = None) -> Any:
    """A reply of OpenAI's kind that never comes, or stops after so many pieces."""
    return Reply(silent_before=True) if after is None else Reply(silent_after=after)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_cached_answer_is_given_again_and_replayed_as_a_stream(stage: Stage, surface: SurfaceName):
    vendor = stage.vendors["openai-like"]
    vendor.plays(Said(f"Made once for {surface}"))
    wish = Wish(temperature=0.5)

    made = ask(stage, surface, "cached", wish, streamed=False)
    again = ask(stage, surface, "cached", wish, streamed=False)
    replayed = ask(stage, surface, "cached", wish, streamed=True)

    assert made.text == again.text == replayed.text == f"Made once for {surface}"
    assert made.tokens == again.tokens == replayed.tokens
    assert (made.cost_nusd, again.cost_nusd, replayed.cost_nusd) == (vendor.counted.cost_nusd, 0, 0)
    assert len(vendor.server.requests) == 1


def test_headers_tell_of_the_cache_and_a_client_can_go_round_it(stage: Stage):
    vendor = stage.vendors["openai-like"]

    def state(**headers: str) -> tuple[str, str | None]:
        reply = stage.openai.chat.completions.with_raw_response.create(
            model="cached", messages=HI, seed=5, extra_headers=headers
        )
        return reply.headers["x-mainstay-cache"], reply.headers.get("x-mainstay-saved-usd")

    assert state() == ("miss", None)
    assert state() == ("hit", "0.00003")
    assert state(**{"cache-control": "no-cache"}) == ("bypass", None)
    assert state(**{"x-mainstay-cache": "skip"}) == ("bypass", None)
    assert vendor.heard().seed == 5


# --- lists, counts, embeddings -----------------------------------------------------------------------------


def test_models_are_listed_and_found_by_name(stage: Stage):
    model = stage.vendors["gemini"].model

    names = [one.id for one in stage.openai.models.list()]
    found = stage.openai.models.retrieve(model)

    assert {v.model for v in stage.vendors.values() if v.name != "sick"} | {"helper", "cached"} <= set(names)
    assert (found.id, found.object) == (model, "model")
    with pytest.raises(openai.NotFoundError):
        stage.openai.models.retrieve("nobody")


def test_a_key_lists_only_what_it_may_use(stage: Stage):
    token, _ = stage.key(models=["helper", "cached"])

    names = [one.id for one in stage.openai_as(token).models.list()]

    assert {name.partition("@")[0] for name in names} == {"cached", "helper"}


def test_tokens_are_counted_by_the_vendor_where_it_can(stage: Stage):
    def counted(name: str) -> tuple[int, bool]:
        reply = stage.anthropic.messages.count_tokens(
            model=stage.vendors[name].model, messages=HI, system="Be kind."
        )
        assert reply.model_extra is not None
        return reply.input_tokens, reply.model_extra["mainstay"]["estimated"]

    assert counted("anthropic") == (42, False)
    assert counted("gemini") == (42, False)
    tokens, estimated = counted("openai-like")
    assert tokens > 2
    assert estimated
    response = stage.openai.responses.input_tokens.count(model=stage.vendors["anthropic"].model, input="Hi")
    assert response.input_tokens == 42


def numbers(embedding: Any) -> list[float]:
    """As the SDK gives them; packed ones, which it hands on when they were asked for, unpacked."""
    if isinstance(embedding, str):
        packed = base64.b64decode(embedding)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    return list(embedding)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_come_from_the_vendor(stage: Stage, encoding: Any):
    vendor = stage.vendors["openai-like"]
    data = [{"object": "embedding", "index": i, "embedding": [0.5, -1.0 * i]} for i in (1, 0)]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    vendor.server.plays(Reply(whole={"object": "list", "data": data, "model": "e", "usage": usage}))

    wish: Any = {} if encoding is None else {"encoding_format": encoding}
    made = stage.openai.embeddings.create(model=vendor.model, input=["a", "b"], **wish)

    assert [numbers(one.embedding) for one in made.data] == [[0.5, 0.0], [0.5, -1.0]]
    assert made.usage.prompt_tokens == 5
    with pytest.raises(openai.BadRequestError) as none:
        stage.openai.embeddings.create(model=stage.vendors["anthropic"].model, input="a")
    assert none.value.param == "model"


# --- kept responses and apps -------------------------------------------------------------------------------


def test_a_kept_response_is_continued_read_listed_and_deleted(stage: Stage):
    vendor, responses = stage.vendors["bedrock"], stage.openai.responses

    first = responses.create(model=vendor.model, input="Hi", instructions="Be kind.")
    second = responses.create(model=vendor.model, input="And now?", previous_response_id=first.id)

    assert vendor.heard().turns == (("user", "Hi"), ("assistant", "Hello world"), ("user", "And now?"))
    assert responses.retrieve(second.id).output_text == "Hello world"
    asked = [item.to_dict()["content"] for item in responses.input_items.list(second.id, order="asc")]
    assert asked[-1] == [{"type": "input_text", "text": "And now?"}]
    responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        responses.retrieve(second.id)
    token, _ = stage.key()
    with pytest.raises(openai.NotFoundError):
        stage.openai_as(token).responses.retrieve(first.id)


@pytest.mark.parametrize("surface", ["chat", "responses", "messages"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_app_answers_on_every_surface_alike(stage: Stage, surface: SurfaceName, streamed: bool):
    vendor = stage.vendors["openai-like"]
    vendor.plays(Said("It is so."))

    told = ask(stage, surface, "helper", Wish(), streamed=streamed)

    assert (told.text, told.model, told.finish) == ("It is so.", "helper", "stop")
    assert told.cost_nusd == vendor.counted.cost_nusd
    assert vendor.heard().turns == (("system", "Answer in one sentence."), ("user", "Hi"))
