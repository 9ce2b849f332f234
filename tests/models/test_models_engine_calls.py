"""Calls to the local engine, with the real SmolLM2: together, held to schemas, with tools, refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import jsonschema
import psutil
import pytest
import pytest_asyncio

from mainstay.models import ChatCall, ChatMessage, EngineSettings, ProviderBadRequest
from mainstay.models.engine.frames import WINDOW
from mainstay.models.providers import LlamaCpp
from mainstay.models.types import MediaPart, ResponseFormat, Tool, ToolCall, ToolCallDelta, ToolChoice
from support.local_engine import ask, call, endless, pid, text

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

COLOURS = {
    "type": "object",
    "properties": {
        "colours": {
            "type": "array",
            "items": {"enum": ["red", "green", "blue"]},
            "minItems": 2,
            "maxItems": 3,
        },
        "best": {"type": "string", "maxLength": 8},
    },
    "required": ["colours", "best"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(gguf: Path) -> AsyncIterator[LlamaCpp]:
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=2, context_tokens=1024))
    yield engine
    await engine.close()


# --- calls -----------------------------------------------------------------------------------------------------


async def test_two_calls_are_answered_at_once(engine: LlamaCpp) -> None:
    await engine.warm_up()
    async with (
        aclosing(engine.stream(endless(), 60.0)) as one,
        aclosing(engine.stream(endless(), 60.0)) as two,
    ):
        for _ in range(5):  # each goes on while the other does
            await anext(one)
            await anext(two)
        health = await engine.health(5.0)

    assert (health.running, health.waiting) == (2, 0)


async def test_a_slow_reader_holds_up_its_own_call_alone(engine: LlamaCpp) -> None:
    async with aclosing(engine.stream(endless(max_tokens=WINDOW + 20), 60.0)) as slow:
        await anext(slow)
        quick = await ask(engine, endless(max_tokens=WINDOW + 20), 60.0)
        rest = [delta async for delta in slow]

    assert quick[-1].usage == rest[-1].usage
    assert rest[-1].usage is not None
    assert rest[-1].usage.output_tokens == WINDOW + 20


async def test_a_hung_up_call_stops_generating_within_a_batch(gguf: Path) -> None:
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=1, context_tokens=2048))
    long = "Some words to read before the answer begins. " * 60
    await engine.warm_up()
    busy_s = psutil.Process(pid(engine)).cpu_times().user
    reading = asyncio.create_task(ask(engine, call(long)))
    while psutil.Process(pid(engine)).cpu_times().user < busy_s + 0.1:
        await asyncio.sleep(0.01)

    reading.cancel()
    await asyncio.wait({reading})
    after = await ask(engine, call("Hello", max_tokens=2))
    used_s = psutil.Process(pid(engine)).cpu_times().user - busy_s
    whole = await ask(engine, call(long, max_tokens=1))
    whole_s = psutil.Process(pid(engine)).cpu_times().user - busy_s - used_s
    await engine.close()

    assert text(after)
    assert whole[-1].usage is not None
    assert whole[-1].usage.input_tokens > 450
    assert used_s < whole_s / 2


async def test_an_answer_is_held_to_its_schema(engine: LlamaCpp) -> None:
    asked = call("Which colours do you like?", max_tokens=120, response_format=ResponseFormat(schema=COLOURS))

    completion = await engine.complete(asked, 60.0)

    jsonschema.validate(json.loads(completion.choices[0].text), COLOURS)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "SmolLM2-135M-Instruct.Q8_0"


async def test_a_schema_that_is_none_is_a_bad_request(engine: LlamaCpp) -> None:
    with pytest.raises(ProviderBadRequest):
        await ask(engine, call(response_format=ResponseFormat(schema={"type": "zebra"})))


async def test_logprobs_come_with_as_many_alternatives_as_were_asked_for(engine: LlamaCpp) -> None:
    bare = await ask(engine, call(max_tokens=2, logprobs=True))
    with_two = await ask(engine, call(max_tokens=2, logprobs=True, top_logprobs=2))

    assert [len(item["top_logprobs"]) for delta in bare for item in delta.logprobs] == [0, 0]
    assert [len(item["top_logprobs"]) for delta in with_two for item in delta.logprobs] == [2, 2]


async def test_a_seed_makes_an_answer_repeatable(engine: LlamaCpp) -> None:
    warm = {"temperature": 1.5, "max_tokens": 16, "top_k": 50, "presence_penalty": 0.5}

    answers = [text(await ask(engine, call(seed=seed, **warm))) for seed in (7, 7, 8, -1, -1)]

    assert answers[0] == answers[1] != answers[2]
    assert answers[3] == answers[4]


async def test_the_input_is_counted_as_it_is_billed(engine: LlamaCpp) -> None:
    counted = await engine.count_call_tokens(call())
    answered = await ask(engine, call(max_tokens=1))

    assert answered[-1].usage is not None
    assert counted == answered[-1].usage.input_tokens


async def test_stop_sequences_end_an_answer(engine: LlamaCpp) -> None:
    whole = text(await ask(engine, call(max_tokens=20)))
    word = whole.split()[3]

    stopped = text(await ask(engine, call(max_tokens=20, stop=(word,))))

    assert stopped == whole[: whole.index(word)]


WEATHER = Tool("get_weather", "The weather of a city", {"type": "object", "properties": {}})


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        (call(n=2), "n"),
        (call(tools=(WEATHER,)), "tools"),
        (
            ChatCall(
                "", (ChatMessage("user", parts=(MediaPart("image", url="https://example.com/a.png"),)),)
            ),
            r"messages\.0\.content",
        ),
    ],
    ids=["n", "tools", "image"],
)
async def test_what_the_model_cannot_do_is_refused_by_field(gguf: Path, chat: ChatCall, field: str) -> None:
    engine = LlamaCpp(gguf, EngineSettings())

    with pytest.raises(ProviderBadRequest, match=f"^{field}: "):
        await ask(engine, chat)

    assert not {"n", "tools", "images"} & engine.supports


# --- tools -----------------------------------------------------------------------------------------------------

TEMPLATE = """{%- if tools %}{{- '<|im_start|>system\\nCall functions by <tool_call>\\n{"name": ..., "arguments": ...}\\n\
</tool_call>. Functions:' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}\
{{- '<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}\
{%- if message.role == 'assistant' and message.tool_calls %}{{- '<|im_start|>assistant' }}\
{%- for tool_call in message.tool_calls %}{{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.function.name }}\
{{- '", "arguments": ' }}{{- tool_call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}\
{{- '<|im_end|>\\n' }}{%- elif message.role == 'tool' %}\
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}\
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}\
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


@pytest.fixture(scope="module")
def tool_gguf(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with a chat template that takes tools, put in place of its own."""
    data = gguf.read_bytes()
    key = b"tokenizer.chat_template"
    at = data.index(key) + len(key) + 4
    old = int.from_bytes(data[at : at + 8], "little")
    template = TEMPLATE.encode()
    template += b"{#" + b" " * ((old - len(template) - 4) % 32) + b"#}"  # the tensors stay aligned
    path = tmp_path_factory.mktemp("tools") / "tools.gguf"
    path.write_bytes(data[:at] + len(template).to_bytes(8, "little") + template + data[at + 8 + old :])
    return path


CITY = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = (Tool("get_weather", "The weather of a city", CITY), Tool("get_time", "The time", {"type": "object"}))


async def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(tool_gguf: Path) -> None:
    engine = LlamaCpp(tool_gguf, EngineSettings(threads=1, slots=1, context_tokens=1024))
    asked = call("What is the weather in Paris?", max_tokens=80, tools=TOOLS)

    def with_choice(choice: ToolChoice, **more: object) -> ChatCall:
        return call(
            "What is the weather in Paris?", **{"max_tokens": 80, "tools": TOOLS, **more}, tool_choice=choice
        )

    named = (await engine.complete(with_choice(ToolChoice("tool", "get_weather")), 60.0)).choices[0]
    any_one = (await engine.complete(with_choice(ToolChoice("required")), 60.0)).choices[0]
    cut = await ask(engine, with_choice(ToolChoice("tool", "get_weather"), max_tokens=12))
    free = await engine.complete(asked, 60.0)
    none = (await engine.complete(with_choice(ToolChoice("none"), max_tokens=8), 60.0)).choices[0]
    await engine.close()

    assert {"tools", "parallel_tool_calls"} <= engine.supports
    assert named.finish_reason == "tool_calls"
    assert named.text == ""
    assert [made.name for made in named.tool_calls] == ["get_weather"]
    jsonschema.validate(json.loads(named.tool_calls[0].arguments), CITY)
    assert any_one.tool_calls[0].name in ("get_weather", "get_time")
    assert [delta.finish_reason for delta in cut if delta.finish_reason] == ["length"]
    assert all(isinstance(piece, ToolCallDelta) for delta in cut for piece in delta.tool_calls)
    assert free.usage is not None
    assert free.usage.input_tokens > 100  # the tools are part of the prompt
    assert none.tool_calls == ()


async def test_a_tool_that_the_model_chooses_to_call_streams(tool_gguf: Path) -> None:
    engine = LlamaCpp(tool_gguf, EngineSettings(threads=1, slots=1, context_tokens=1024))
    messages: list[ChatMessage] = []
    for city, days in (("Rome", 1), ("Paris", 2), ("Rome", 3)):  # a model this small does as it sees done
        made = ToolCall("c1", "get_weather", json.dumps({"city": city, "days": days}))
        messages += [
            ChatMessage("user", f"Weather in {city} for {days} days?"),
            ChatMessage("assistant", tool_calls=(made,)),
            ChatMessage("tool", "Sunny", tool_call_id="c1"),
            ChatMessage("assistant", "Sunny."),
        ]
    messages.append(ChatMessage("user", "Weather in Paris for 4 days?"))

    deltas = await ask(engine, ChatCall("", tuple(messages), max_tokens=60, temperature=0.0, tools=TOOLS[:1]))
    await engine.close()

    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert [piece.name for piece in pieces if piece.name] == ["get_weather"]
    assert len(pieces) > 3
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"city": "Paris", "days": 4}
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["tool_calls"]
    assert text(deltas) == ""


async def test_a_choice_of_an_unknown_tool_or_of_tools_and_a_format_is_refused(tool_gguf: Path) -> None:
    engine = LlamaCpp(tool_gguf, EngineSettings())

    with pytest.raises(ProviderBadRequest, match=r"^tool_choice: "):
        await ask(engine, call(tools=TOOLS, tool_choice=ToolChoice("tool", "nothing")))
    with pytest.raises(ProviderBadRequest, match=r"^response_format: "):
        await ask(engine, call(tools=TOOLS, response_format=ResponseFormat()))
