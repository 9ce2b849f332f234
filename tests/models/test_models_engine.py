"""The engine's process and the manager of engines, with the real SmolLM2."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import jsonschema
import psutil
import pytest
import pytest_asyncio
import uvloop

from mainstay.models import ChatCall, ChatMessage, Delta, EngineFailed, EngineSettings, ProviderBadRequest
from mainstay.models.engine import Engines, LocalModel, running_engines
from mainstay.models.engine.frames import WINDOW
from mainstay.models.install import installed
from mainstay.models.providers import LlamaCpp
from mainstay.models.types import MediaPart, ResponseFormat, Tool, ToolCall, ToolCallDelta, ToolChoice

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


@pytest.fixture(scope="module")
def gguf(models_dir: Path) -> Path:
    found = [model.weights for model in installed(models_dir) if model.name == "smollm2"]
    if not found or found[0] is None:
        pytest.skip("needs the model: mainstay models add smollm2")
    return found[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(gguf: Path) -> AsyncIterator[LlamaCpp]:
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=2, context_tokens=1024))
    yield engine
    await engine.close()


def call(text: str = "Name three colours.", **more: object) -> ChatCall:
    settings: dict[str, object] = {"temperature": 0.0, "max_tokens": 12, **more}
    return ChatCall(model="smollm2", messages=(ChatMessage("user", text),), **settings)  # type: ignore[arg-type]


def endless(**more: object) -> ChatCall:
    """Runs until it is stopped: the token that ends an answer cannot come."""
    return call("Count to a million.", **{"max_tokens": 900, "logit_bias": {"2": -100.0}, **more})


async def ask(engine: LlamaCpp, chat: ChatCall, deadline_s: float = 60.0) -> list[Delta]:
    return [delta async for delta in engine.stream(chat, deadline_s)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def pid(engine: LlamaCpp) -> int:
    assert engine.state.pid is not None
    return engine.state.pid


# --- a process that dies ---------------------------------------------------------------------------------------


async def test_a_killed_engine_fails_its_calls_and_the_next_call_works(engine: LlamaCpp) -> None:
    waiting = asyncio.create_task(ask(engine, endless()))
    async with aclosing(engine.stream(endless(), 60.0)) as stream:
        await anext(stream)
        dead = pid(engine)
        os.kill(dead, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="killed") as caught:
            async for _ in stream:
                pass
    with pytest.raises(EngineFailed):
        await waiting

    again = await ask(engine, call())

    assert caught.value.retryable
    assert text(again)
    assert pid(engine) != dead
    assert not psutil.pid_exists(dead)  # nor a zombie


async def test_after_repeated_deaths_calls_are_refused_for_a_while(gguf: Path) -> None:
    now = [1000.0]
    engines = Engines(EngineSettings(threads=1, slots=1, context_tokens=512), clock=lambda: now[0])
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=1, context_tokens=512), engines)
    model = LocalModel("smollm2", gguf)
    for _ in range(3):
        lease = await engines.acquire(model)
        assert lease.process.pid is not None
        os.kill(lease.process.pid, signal.SIGSEGV)
        with pytest.raises(EngineFailed, match="SIGSEGV"):
            await lease.process.ping()
        engines.release(lease, answered=False)

    with pytest.raises(EngineFailed, match=r"3\. time in a row") as refused:
        await ask(engine, call())
    sick = await engine.health(5.0)
    now[0] += 2.0
    answer = await ask(engine, call(max_tokens=2))
    well = await engine.health(5.0)
    await engines.close()

    assert refused.value.retry_after_s == 1.0
    assert not sick.ok
    assert text(answer)
    assert (well.ok, well.running, well.waiting) == (True, 0, 0)
    assert engine.state.deaths == 0


async def ends(process: psutil.Process, within_s: float) -> bool:
    """Whether it ends in time; one that nobody buries stays as a zombie."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(0.01)
    return False


PARENT = """
import asyncio, sys
from pathlib import Path
from mainstay.models import EngineSettings
from mainstay.models.engine import Engines, LocalModel

async def main():
    engines = Engines(EngineSettings(context_tokens=512))
    lease = await engines.acquire(LocalModel("smollm2", Path(sys.argv[1])))
    print(lease.process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_an_engine_ends_with_its_gateway(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-the-engine")
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(gguf), stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    engine = psutil.Process(int(await gateway.stdout.readline()))
    environment = engine.environ()

    gateway.kill()

    assert await ends(engine, within_s=1.0)
    assert "PATH" in environment
    assert "OPENAI_API_KEY" not in environment
    await gateway.wait()


async def test_an_engine_that_holds_too_much_memory_is_ended(gguf: Path) -> None:
    from mainstay.models.engine.frames import Load
    from mainstay.models.engine.process import EngineProcess

    load = Load("smollm2", str(gguf), (), 1, 1, 512, memory_bytes_max=64 << 20)
    gone = asyncio.Event()
    process = await EngineProcess.start(load, lambda _: gone.set())

    await asyncio.wait_for(gone.wait(), 10.0)

    assert process.death is not None
    assert "64 MB it may" in process.death.message


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"PK\x03\x04", "no whole GGUF"), (b"GGUF\x03\0\0\0", "no whole GGUF")],
    ids=["missing", "something else", "cut short"],
)
async def test_a_file_that_cannot_be_loaded_says_why(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)
    engine = LlamaCpp(path, EngineSettings())

    with pytest.raises(EngineFailed, match=why) as caught:
        await ask(engine, call())
    await engine.close()

    assert caught.value.fix
    assert running_engines() == () or path not in {running.gguf for running in running_engines()}


async def test_the_engine_runs_on_the_loop_of_a_server_too(gguf: Path) -> None:
    """The server's loop is uvloop's, in a thread of its own."""
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=1, context_tokens=512))

    async def use() -> str:
        first = text(await ask(engine, call()))
        os.kill(pid(engine), signal.SIGKILL)
        with pytest.raises(EngineFailed):
            await ask(engine, call())
        assert text(await ask(engine, call())) == first
        await engine.close()
        return first

    def serve() -> str:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(use())

    assert await asyncio.to_thread(serve)


# --- several models --------------------------------------------------------------------------------------------


@pytest.fixture
def another(gguf: Path, tmp_path: Path) -> Path:
    path = tmp_path / "another.gguf"
    path.symlink_to(gguf)
    return path


async def test_an_idle_model_makes_room_for_another(gguf: Path, another: Path) -> None:
    settings = EngineSettings(threads=1, slots=1, context_tokens=512, memory_mb=450)
    engines = Engines(settings)
    one, two = LlamaCpp(gguf, settings, engines), LlamaCpp(another, settings, engines)

    await one.warm_up()
    first = psutil.Process(pid(one))
    await two.warm_up()
    loaded_after_two = (one.state.loaded, two.state.loaded, first.is_running())
    async with aclosing(two.stream(endless(), 60.0)) as busy:  # not idle: it is not taken away
        await anext(busy)
        waiting = asyncio.create_task(ask(one, call(max_tokens=2)))
        await anext(busy)
        assert not waiting.done()
    answer = await waiting
    loaded_after_one = (one.state.loaded, two.state.loaded)
    held = one.state.memory_bytes
    await engines.close()

    assert loaded_after_two == (False, True, False)
    assert text(answer)
    assert loaded_after_one == (True, False)
    assert held is not None
    assert held < 450 << 20


async def test_a_model_that_can_never_fit_is_refused(gguf: Path) -> None:
    engine = LlamaCpp(gguf, EngineSettings(memory_mb=256))

    with pytest.raises(EngineFailed, match=r"needs about \d+ MB of memory") as caught:
        await ask(engine, call())
    await engine.close()

    assert "engine_memory_mb" in str(caught.value.fix)


async def test_calls_for_a_model_that_is_not_loaded_load_it_once(another: Path) -> None:
    engines = Engines(EngineSettings(threads=1, slots=2, context_tokens=512))
    model = LocalModel("another", another)

    leaver = asyncio.create_task(engines.acquire(model))
    leases = asyncio.gather(*(engines.acquire(model) for _ in range(3)))
    await asyncio.sleep(0)
    leaver.cancel()
    pids = {lease.process.pid for lease in await leases}
    children = [child.pid for child in psutil.Process().children() if str(another) in child.cmdline()]
    for lease in await leases:
        engines.release(lease, answered=True)
    await engines.close()

    assert leaver.cancelled()
    assert pids == set(children)
    assert len(pids) == 1


async def test_a_model_that_is_idle_long_enough_gives_its_memory_back(gguf: Path) -> None:
    now = [0.0]
    settings = EngineSettings(threads=1, slots=1, context_tokens=512, idle_unload_s=900)
    engines = Engines(settings, clock=lambda: now[0])
    engine = LlamaCpp(gguf, settings, engines)
    await engine.warm_up()
    process = psutil.Process(pid(engine))

    now[0] = 899.0
    await engines.unload_idle()
    kept = engine.state.loaded
    now[0] = 900.0
    await engines.unload_idle()

    assert kept
    assert not engine.state.loaded
    assert not process.is_running()
    await engines.close()


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
