"""Nothing that the output rail keeps back shows anywhere in an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from serving_asking import asked
from serving_door import HI, PATHS, asked_by, decoded, door
from serving_plane import CHEAP, RULES, Plane, Scripted
from serving_rails import ATTACK, BLOCKS, KEY, MAIL, MASKS
from surface_kit import events

from mainstay.models.types import ChatCall, Choice, Completion, Delta, Target, Thinking, ToolCallDelta, Usage
from mainstay.serving.errors import ContentBlocked

END = Delta(finish_reason="stop", usage=Usage(10, 5))


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return orjson.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def tokens(*words: str) -> tuple[dict[str, Any], ...]:
    return tuple({"token": word, "logprob": -0.1, "bytes": None, "top_logprobs": []} for word in words)


SAID: dict[str, list[Delta]] = {
    "text": [Delta(text=f"It is {MAIL}, yes.")],
    "split text": [Delta(text=piece) for piece in ("It is jane.", "roe@exam", "ple.com, yes.")],
    "refusal": [Delta(refusal="I will not write to jane."), Delta(refusal="roe@example.com.")],
    "reasoning": [Delta(reasoning="To jane."), Delta(reasoning="roe@example.com ."), Delta(text="Yes.")],
    "thinking alone": [Delta(thinking=Thinking(f"It is {MAIL}", "sig")), Delta(text="Yes.")],
    "thinking after reasoning": [Delta(reasoning=f"It is {MAIL} ."), Delta(thinking=Thinking(f"It is {MAIL} .", "sig"))],
    "tool name": [Delta(tool_calls=(ToolCallDelta(0, "c", MAIL, "{}"),))],
    "arguments": [Delta(tool_calls=(ToolCallDelta(0, "c", "f", '{"to":"jane.roe'),)), Delta(tool_calls=(ToolCallDelta(0, arguments='@example.com"}'),))],
    "escaped arguments": [Delta(tool_calls=(ToolCallDelta(0, "c", "f", '{"to":"jane.roe\\u0040example.com"}'),))],
    "log-probabilities beside": [Delta(text="It is jane.", logprobs=tokens("It is ", "jane.")), Delta(text="roe@example.com, yes.", logprobs=tokens("roe@", "example.com", ", yes."))],
    "log-probabilities apart": [Delta(text=f"It is {MAIL}."), Delta(logprobs=tokens(MAIL))],
    "log-probabilities of reasoning": [Delta(reasoning=f"It is {MAIL}.", logprobs=tokens(MAIL))],
    "another choice": [Delta(text="Yes."), Delta(text=f"It is {MAIL}.", index=1), Delta(finish_reason="stop", index=1)],
    "raw members": [Delta(text="Yes.", raw=chunk({"content": "Yes.", "annotations": [{"url_citation": {"title": MAIL}}]}))],
    "raw reasoning details": [Delta(reasoning="Hm.", raw=chunk({"reasoning": "Hm.", "reasoning_details": [{"text": MAIL}]}))],
    "raw function call": [Delta(text="Yes.", raw=chunk({"content": "Yes.", "function_call": {"name": "f", "arguments": MAIL}}))],
}  # fmt: skip


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_output_rail_masks_shows_nowhere(
    serve: Any, plane: Plane, what: str, path: str, stream: bool
) -> None:
    plane.guards_models_with(MASKS)
    plane.model.plays(*SAID[what], END)
    async with door(serve, plane) as post:
        status, body = await post(f"/{path}", asked_by(path, stream))
    assert status == 200, body
    shown = decoded(body)
    assert MAIL not in shown
    assert "roe@" not in shown
    assert "\njane.\n" not in shown  # a token of its own
    assert "roe@example" not in str(plane.sink.traces[-1])


async def test_log_probabilities_wait_with_the_words_they_spell(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(MASKS)
    words = ("Naïve", " 12 34 5", "6 ", "yes \u2713", ".")
    plane.model.plays(*(Delta(text=word, logprobs=tokens(word)) for word in words), END)
    async with door(serve, plane) as post:
        _, body = await post("/chat/completions", asked_by("chat/completions", True))
    choices = [choice for event in events(body.encode())[:-1] for choice in event["choices"]]
    told = [item["token"] for c in choices for item in (c.get("logprobs") or {}).get("content") or ()]
    assert tuple(told) == words


async def test_masked_arguments_stay_json(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(MASKS)
    plane.model.plays(
        Delta(tool_calls=(ToolCallDelta(0, "c", "pay", '{"card":4111111111111111,"to":"x"}'),)), END
    )
    async with door(serve, plane) as post:
        _, body = await post("/chat/completions", asked_by("chat/completions", False))
    (call,) = json.loads(body)["choices"][0]["message"]["tool_calls"]
    assert "4111111111111111" not in call["function"]["arguments"]
    assert json.loads(call["function"]["arguments"])["to"] == "x"


class Whole(Scripted):
    """Answers whole, in a body of its own."""

    completion = Completion((Choice(text="Yes."),), Usage(10, 5), "m")

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return self.completion


@pytest.mark.parametrize(
    ("message", "relayed"),
    [({"annotations": [{"title": MAIL}]}, False), ({"annotations": [{"title": "Handbook"}]}, True)],
)
async def test_a_providers_body_is_relayed_only_when_all_of_it_passes(
    serve: Any, plane: Plane, message: dict[str, Any], relayed: bool
) -> None:
    plane.guards_models_with(MASKS)
    provider = Whole("whole")
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Yes.", **message},
        "finish_reason": "stop",
    }
    raw = orjson.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]})
    provider.completion = replace(Whole.completion, raw=raw)
    plane.adds("acme/whole", Target("acme/whole", provider, "whole", CHEAP, 4096, 1000))
    async with door(serve, plane) as post:
        _, body = await post("/chat/completions", {"model": "acme/whole", "messages": [HI]})
    assert MAIL not in body
    assert ("annotations" in body) is relayed
    assert json.loads(body)["choices"][0]["message"]["content"] == "Yes."


@pytest.mark.parametrize("path", PATHS)
async def test_a_block_in_mid_stream_shows_nothing_held_and_ends_once(
    serve: Any, plane: Plane, path: str
) -> None:
    plane.guards_models_with(BLOCKS)
    key = plane.key(budget_nusd=10**9)
    plane.model.plays(
        Delta(text="The key "),
        Delta(text="is AKIAIOSF"),
        Delta(text="ODNN7EXAMPLQ ok "),
        Delta(text="more"),
        END,
    )
    async with door(serve, plane) as post:
        status, body = await post(f"/{path}", asked_by(path, True))
    assert status == 200
    assert "AKIAIOSF" not in body
    assert "more" not in body.split("refused")[0]
    ends = {
        "chat/completions": ('"finish_reason":"content_filter"', "data: [DONE]"),
        "completions": ('"finish_reason":"content_filter"', "data: [DONE]"),
        "responses": ("event: response.incomplete", "data: [DONE]"),
        "messages": ('"stop_reason":"refusal"', "event: message_stop"),
    }[path]
    for end in ends:
        assert body.count(end) == 1, body
    state = await plane.budget(key)
    assert state.held_nusd == 0
    assert state.spent_nusd > 0
    assert len(plane.model.calls) == 1
    assert "AKIAIOSF" not in str(plane.sink.traces[-1])


async def test_a_block_ends_every_choice_that_is_open_as_filtered(serve: Any, plane: Plane) -> None:
    plane.guards_models_with(BLOCKS)
    plane.model.plays(
        Delta(text="Done.", index=0),
        Delta(finish_reason="stop", index=0),
        Delta(text="Half a", index=1),
        Delta(text=f"Key {KEY} ok. ", index=2),
        END,
    )
    async with door(serve, plane) as post:
        _, body = await post("/chat/completions", {**asked_by("chat/completions", True), "n": 3})
    choices = [choice for event in events(body.encode())[:-1] for choice in event["choices"]]
    ended = sorted((c["index"], c["finish_reason"]) for c in choices if c["finish_reason"])
    assert ended == [(0, "stop"), (1, "content_filter"), (2, "content_filter")]
    assert KEY not in body


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_guarded_words_of_a_plain_model_stay_as_they_are(plane: Plane, size: int) -> None:
    plane.guards_models_with(RULES)
    code = "Try this:\n\n```c\nint a = b[0];  // [1]\nreturn a;\n}\n```\n"
    plane.model.says(*[code[at : at + size] for at in range(0, len(code), size)])
    assert (await asked(plane, "Hello", "acme/small")).text == code


async def test_a_default_policy_guards_plain_models(plane: Plane) -> None:
    plane.guards_models_with(RULES)
    plane.model.says("Mail ada@exam", "ple.com now.")
    final = await asked(plane, "Hello", "acme/small")
    assert final.text == "Mail [EMAIL] now."
    with pytest.raises(ContentBlocked):
        await asked(plane, ATTACK, "acme/small")
