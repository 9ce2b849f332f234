"""The steps of a request on the way to its answer: settings, deadlines, traces, replays."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from serving_asking import CALLER, asked, made
from serving_plane import CHECK_IN, HANDBOOK, NEAR_MISS, QUESTION, Plane, runnable

from mainstay.delivery.types import GenerationSettings
from mainstay.models import ProviderError
from mainstay.models.types import ChatMessage, Delta
from mainstay.observe import Metrics
from mainstay.observe.types import Attr
from mainstay.serving import app_caller, ask, replay
from mainstay.serving.errors import DeadlineExceeded, ModelNotFound, UpstreamFailed


async def test_earlier_messages_reach_a_prompt_as_history(plane: Plane) -> None:
    plane.model.says(CHECK_IN)
    turns = (ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello"), ChatMessage("user", QUESTION))
    await asked(plane, messages=turns)
    assert [m.content for m in plane.model.calls[0].messages[1:]] == ["Hi", "Hello", QUESTION]


async def test_an_answer_cut_short_is_an_error(plane: Plane) -> None:
    plane.model.says("Hello", finish=None)
    with pytest.raises(UpstreamFailed):
        await asked(plane, model="acme/small")


async def test_a_deadline_ends_a_silent_call(plane: Plane) -> None:
    plane.runs(("bot", runnable(generation=GenerationSettings(deadline_s=0.02))))
    plane.model.plays(asyncio.Event())
    with pytest.raises(DeadlineExceeded):
        await asked(plane)
    assert plane.model.cancelled.is_set()


async def test_settings_of_release_and_request_meet_in_the_call(plane: Plane) -> None:
    plane.model.says(CHECK_IN)
    await asked(plane, max_tokens=500, top_p=0.5)
    await asked(plane, max_tokens=20, temperature=0.9)
    first, second = plane.model.calls
    assert (first.max_tokens, first.temperature, first.top_p, first.seed) == (64, 0.0, 0.5, 0)
    assert (second.max_tokens, second.temperature) == (20, 0.9)
    assert first.question == QUESTION
    assert first.passages[0].text == HANDBOOK


async def test_the_trace_tells_the_whole_story(plane: Plane) -> None:
    plane.model.says(CHECK_IN)
    final = await asked(plane, metadata={"conversation_id": "c1"}, user="ada")
    root = plane.sink.traces[0][0].attributes
    assert root[Attr.APP] == "bot"
    assert (root[Attr.RELEASE], root[Attr.ENVIRONMENT]) == (1, "production")
    assert (root[Attr.CONVERSATION], root[Attr.USER]) == ("c1", "ada")
    assert root[Attr.GROUNDED_SHARE] == 1.0
    assert root[Attr.INPUT_MESSAGES] == [{"role": "user", "content": QUESTION}]
    assert root[Attr.OUTPUT_MESSAGES] == [{"role": "assistant", "content": final.text}]
    assert [p["version_id"] for p in plane.sink.span("retrieve").attributes[Attr.PASSAGES]] == ["version_1"]
    chat = plane.sink.span("chat small")
    assert (chat.kind, chat.attributes[Attr.INPUT_TOKENS], chat.attributes[Attr.OUTPUT_TOKENS]) == (
        "client",
        10,
        5,
    )


async def test_requests_are_counted_with_their_outcome(plane: Plane) -> None:
    metrics = Metrics()
    plane.model.says(f"{CHECK_IN} Whales sing.")
    deps = replace(plane.deps, metrics=metrics)
    call = made(model="bot", identity=CALLER, source_format=None)
    await ask(call, deps)
    plane.model.scripts = [[ProviderError("broke", provider="acme")]]
    with pytest.raises(UpstreamFailed):
        await ask(call, deps)
    text = metrics.render().decode()
    assert 'mainstay_requests_total{app="bot",model="acme/small",release="1",status="ok"} 1.0' in text
    assert 'status="upstream_failed"} 1.0' in text
    assert 'mainstay_grounding_sentences_total{app="bot",supported="false"} 1.0' in text


async def test_evaluation_sees_answers_and_failures_alike(plane: Plane) -> None:
    plane.model.says(CHECK_IN)
    caller = app_caller(plane.deps, CALLER)
    answer = await caller("bot", QUESTION)
    failure = await caller("nobody", QUESTION)
    assert answer.citations[0]["quote"] == CHECK_IN
    assert (answer.grounded_share, answer.cost_nusd, answer.error) == (1.0, 3000, None)
    assert answer.trace_id == plane.sink.traces[0][0].trace_id
    assert failure.error is not None
    assert failure.error.startswith("model_not_found")


async def test_a_trace_is_replayed_on_another_release_and_linked(plane: Plane) -> None:
    plane.runs(("bot", runnable()), ("bot@r1", runnable(environment=None)), ("bot@r2", runnable(number=2)))
    plane.model.says(CHECK_IN)
    plane.model.says(NEAR_MISS)
    first = await asked(plane)
    replayed = await replay(plane.sink.traces[0], plane.deps, CALLER, on="bot@r2")
    assert (replayed.question, replayed.original_model, replayed.model) == (QUESTION, "bot@r1", "bot@r2")
    assert replayed.original.text == first.text
    assert replayed.original.cost_nusd == 3000
    assert replayed.again.text == f"{NEAR_MISS} [1]"
    assert plane.sink.traces[1][0].attributes[Attr.REPLAY_OF] == first.trace_id


async def test_a_cancelled_caller_closes_everything(plane: Plane) -> None:
    plane.model.plays(Delta(text="Hel"), asyncio.Event())
    task = asyncio.create_task(asked(plane, model="acme/small"))
    await plane.model.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plane.model.cancelled.is_set()
    assert plane.sink.traces[0][0].attributes[Attr.ERROR_TYPE] == "cancelled"


async def test_a_request_that_never_reached_a_model_is_known_to_cost_nothing(plane: Plane) -> None:
    with pytest.raises(ModelNotFound):
        await asked(plane, model="nobody")
    assert [s.attributes.get(Attr.COST_NUSD) for s in plane.sink.traces[-1] if s.parent_id is None] == [0]
