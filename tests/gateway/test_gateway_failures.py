"""Failures as official SDKs meet them: the right exception with the id of the request, retries only where they help,
and a client that goes away takes its call upstream with it."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import Any

import anthropic
import openai
import pytest
from gateway_failures import FAILURES, KEY, REFUSALS, Failure, answers
from gateway_said import Said
from gateway_stage import SICK, Stage
from gateway_wishes import HI, WEATHER

from mainstay.govern.types import Budget, Limits
from mainstay.serving.limits.types import BudgetState
from support.openai_server import Reply

PATIENT_S = 20.0
_sick = count()


@pytest.fixture
def sick(stage: Stage) -> str:
    """A route with one attempt, of a provider that no other test has made sick."""
    return f"route-of-{SICK[next(_sick) % len(SICK)]}"


def through_openai_chat(stage: Stage, model: str, key: str) -> None:
    stage.openai_as(key).chat.completions.create(model=model, messages=HI, max_tokens=50)


def through_openai_responses(stage: Stage, model: str, key: str) -> None:
    stage.openai_as(key).responses.create(model=model, input="Hi", max_output_tokens=50)


def through_anthropic(stage: Stage, model: str, key: str) -> None:
    stage.anthropic_as(key).messages.create(model=model, messages=HI, max_tokens=50)


WAYS = (through_openai_chat, through_openai_responses, through_anthropic)


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_vendors_failure_is_the_right_exception(stage: Stage, sick: str, way: Any, name: str):
    failure = FAILURES[name]
    assert failure.reply is not None
    stage.vendors["sick"].server.plays(failure.reply)

    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        way(stage, sick, stage.server.key)

    error = caught.value
    assert_is(error, failure)
    headers = error.response.headers
    assert headers["x-should-retry"] == ("true" if failure.retried else "false")
    assert failure.headers.items() <= dict(headers).items()
    assert KEY not in str(error) + error.response.text


def assert_is(error: Any, failure: Failure) -> None:
    """Of either SDK."""
    assert type(error).__name__ == failure.exception
    assert error.status_code == failure.status
    assert error.request_id == error.response.headers["x-request-id"]
    assert error.request_id.startswith("req_")
    if isinstance(error, openai.APIStatusError):
        assert error.code == failure.code
    else:
        body: Any = error.body
        assert body["mainstay"]["code"] == failure.code
        assert body["error"]["type"] == failure.kind
        assert body["request_id"] == error.request_id


def refused_key(stage: Stage) -> tuple[str, str]:
    return "ms-nobody", "once"


def other_models_key(stage: Stage) -> tuple[str, str]:
    return stage.key(models=["helper"])[0], "once"


def any_key(stage: Stage) -> tuple[str, str]:
    return stage.server.key, "nobody"


def spent_rate(stage: Stage) -> tuple[str, str]:
    token, _ = stage.key(Limits(requests_per_minute=1))
    through_openai_chat(stage, "once", token)
    return token, "once"


def spent_budget(stage: Stage) -> tuple[str, str]:
    """What two answers leave of its budget pays no third one, however short."""
    cost = stage.vendors["openai-like"].counted.cost_nusd
    token, _ = stage.key(Limits(budgets=(Budget(3 * cost, "day"),)))
    for _ in range(2):
        stage.openai_as(token).chat.completions.create(model="once", messages=HI, max_tokens=5)
    return token, "once"


def small_budget(stage: Stage) -> tuple[str, str]:
    return stage.key(Limits(budgets=(Budget(1000, "day"),)))[0], "once"


PREPARED = {
    "no such key": refused_key,
    "not for this key": other_models_key,
    "no such name": any_key,
    "too many a minute": spent_rate,
    "budget spent": spent_budget,
    "dearer than its budget": small_budget,
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_refusal_of_the_gateway_is_the_right_exception(stage: Stage, way: Any, name: str):
    refusal = REFUSALS[name]
    token, model = PREPARED[name](stage)
    asked = len(stage.vendors["openai-like"].server.requests)

    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        way(stage, model, token)

    assert_is(caught.value, refusal)
    assert caught.value.response.headers["x-should-retry"] == ("true" if refusal.retried else "false")
    assert len(stage.vendors["openai-like"].server.requests) == asked


# --- retries -----------------------------------------------------------------------------------------------


def test_sdks_retry_what_may_succeed_and_nothing_else(stage: Stage, sick: str):
    server = stage.vendors["sick"].server
    tries: list[str] = []

    def client(kind: Any, http: Any, **where: Any) -> Any:
        noted = http(event_hooks={"request": [lambda request: tries.append(str(request.url))]})
        return kind(api_key=stage.server.key, max_retries=2, http_client=noted, **where)

    one = client(openai.OpenAI, openai.DefaultHttpxClient, base_url=f"{stage.base_url}/v1")
    other = client(anthropic.Anthropic, anthropic.DefaultHttpxClient, base_url=stage.base_url)
    server.requests.clear()

    with one, other:
        server.plays(answers(400, {"message": "no"}))
        with pytest.raises(openai.BadRequestError):
            one.chat.completions.create(model=sick, messages=HI)
        with pytest.raises(anthropic.BadRequestError):
            other.messages.create(model=sick, messages=HI, max_tokens=9)
        assert len(tries) == len(server.requests) == 2

        server.plays(answers(429, {"message": "later"}, Retry_After="0.01"), Reply())
        assert one.chat.completions.create(model=sick, messages=HI).choices[0].message.content
        server.plays(answers(429, {"message": "later"}, Retry_After="0.01"), Reply())
        assert other.messages.create(model=sick, messages=HI, max_tokens=9).content
    assert len(tries) == 2 + 4


def test_what_one_target_cannot_say_is_asked_of_the_next(stage: Stage):
    """Ollama cannot be made to call a tool, so the route's second target is."""
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    forced: Any = {"type": "function", "function": {"name": "weather"}}

    def answered_by(**wish: Any) -> str:
        raw = stage.openai.chat.completions.with_raw_response
        reply = raw.create(model="chain", messages=HI, tools=[tool], **wish)
        return reply.headers["x-mainstay-provider"]

    assert answered_by() == "ollama"
    assert answered_by(tool_choice=forced) == "openai-like"
    assert stage.vendors["openai-like"].heard().forced == "weather"


# --- a stream that breaks ----------------------------------------------------------------------------------


def test_a_stream_that_breaks_raises_in_every_sdk(stage: Stage, sick: str):
    stage.vendors["sick"].server.plays(Reply(cut_after=1))
    seen: list[Any] = []

    def read(stream: Any) -> None:
        for event in stream:
            seen.append(event)

    with pytest.raises(openai.APIError, match="middle of its answer") as chat:
        read(stage.openai.chat.completions.create(model=sick, messages=HI, stream=True))
    with pytest.raises(openai.APIError, match="middle of its answer"):
        read(stage.openai.responses.create(model=sick, input="Hi", stream=True))
    with pytest.raises(anthropic.APIError, match="middle of its answer"):
        read(stage.anthropic.messages.create(model=sick, messages=HI, max_tokens=9, stream=True))

    assert chat.value.code == "upstream_failed"
    assert len(seen) > 3


# --- a client that leaves ----------------------------------------------------------------------------------


def leaves_a_chat_stream(stage: Stage, key: str) -> None:
    stream = stage.openai_as(key).chat.completions.create(
        model="once", messages=HI, max_tokens=50, stream=True
    )
    next(iter(stream))
    stream.close()


def leaves_a_responses_stream(stage: Stage, key: str) -> None:
    stream = stage.openai_as(key).responses.create(
        model="once", input="Hi", max_output_tokens=50, stream=True
    )
    next(iter(stream))
    stream.close()


def leaves_a_messages_stream(stage: Stage, key: str) -> None:
    client = stage.anthropic_as(key)
    with client.messages.stream(model="once", messages=HI, max_tokens=50) as stream:
        next(iter(stream.text_stream))


def times_out_before_a_word(stage: Stage, key: str) -> None:
    with pytest.raises(openai.APITimeoutError):
        stage.openai_as(key, timeout=0.15).chat.completions.create(model="once", messages=HI, max_tokens=50)


def times_out_of_a_message(stage: Stage, key: str) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        stage.anthropic_as(key, timeout=0.15).messages.create(model="once", messages=HI, max_tokens=50)


@pytest.mark.parametrize(
    ("leaves", "reply"),
    [
        (leaves_a_chat_stream, Reply(silent_after=1)),
        (leaves_a_responses_stream, Reply(silent_after=1)),
        (leaves_a_messages_stream, Reply(silent_after=1)),
        (times_out_before_a_word, Reply(silent_before=True)),
        (times_out_of_a_message, Reply(silent_before=True)),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_client_that_leaves_hangs_up_upstream_and_pays_for_what_it_had(
    stage: Stage, leaves: Any, reply: Reply
):
    server = stage.vendors["openai-like"].server
    server.plays(reply)
    server.hung_up.clear()
    token, key_id = stage.key(Limits(budgets=(Budget(10**9, "day"),)))

    leaves(stage, token)

    stage.loop.run(asyncio.wait_for(server.hung_up.wait(), PATIENT_S))
    budget = settled(stage, key_id)
    assert budget.held_nusd == 0
    assert 0 < budget.spent_nusd < 50 * 2000 + 20_000


def settled(stage: Stage, key_id: str) -> BudgetState:
    """Where the key's budget stands once nothing is held of it, or after a while."""
    services = stage.server.services
    key = next(key for key in services.keys.active() if key.id == key_id)
    scopes = services.snapshots.current.scopes_of(key, None)
    until = time.monotonic() + PATIENT_S
    while True:
        (state,) = stage.server.run(services.deps.limiter.states(scopes))
        if (state.held_nusd == 0 and state.spent_nusd) or time.monotonic() > until:
            return state
        time.sleep(0.005)


def test_streamed_and_whole_answers_are_charged_alike(stage: Stage):
    vendor = stage.vendors["anthropic"]
    vendor.plays(Said())
    token, key_id = stage.key(Limits(budgets=(Budget(10**9, "day"),)))
    client = stage.openai_as(token).chat.completions

    client.create(model=vendor.model, messages=HI, max_tokens=50)
    list(client.create(model=vendor.model, messages=HI, max_tokens=50, stream=True))

    assert settled(stage, key_id).spent_nusd == 2 * vendor.counted.cost_nusd
