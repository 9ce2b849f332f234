"""The engine's process and the manager of engines, with the real SmolLM2."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import uvloop

from mainstay.models import EngineFailed, EngineSettings
from mainstay.models.engine import Engines, LocalModel, running_engines
from mainstay.models.providers import LlamaCpp
from support.local_engine import ask, call, endless, pid, text

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(gguf: Path) -> AsyncIterator[LlamaCpp]:
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=2, context_tokens=1024))
    yield engine
    await engine.close()


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
