"""The local engine as a provider, with the real SmolLM2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from mainstay.models import (
    ContextTooLong,
    EngineFailed,
    EngineSettings,
    ProviderBadRequest,
    ProviderTimeout,
)
from mainstay.models.providers import LlamaCpp
from support.local_engine import ask, call

pytestmark = pytest.mark.model


@pytest_asyncio.fixture
async def engine(gguf: Path) -> AsyncIterator[LlamaCpp]:
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=2, context_tokens=512))
    yield engine
    await engine.close()


async def test_an_answer_streams_and_its_prompt_is_cached_for_the_next(engine):
    first = await ask(engine, call("Name three colours of the rainbow."))
    again = await ask(engine, call("Name three colours of the rainbow."))

    assert "".join(d.text for d in first) == "".join(d.text for d in again) != ""
    assert first[-1].usage is not None
    assert again[-1].usage is not None
    assert first[-1].usage.output_tokens <= 12
    assert not first[-1].usage.estimated
    assert again[-1].usage.cached_input_tokens > first[-1].usage.cached_input_tokens
    assert [d.finish_reason for d in first if d.finish_reason] == ["length"]


async def test_a_prompt_beyond_the_context_is_refused(engine):
    with pytest.raises(ContextTooLong) as caught:
        await ask(engine, call("word " * 900))

    assert caught.value.status == 400


async def test_closing_the_generator_frees_its_slot(gguf):
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=1, context_tokens=2048))
    endless = call("Count to a million.", max_tokens=2000, logit_bias={"2": -100})

    async with aclosing(engine.stream(endless, 120.0)) as stream:
        await anext(stream)
    # The only slot would be taken for some 25 s more, had the generation gone on.
    after = await ask(engine, call("Hello", max_tokens=2), deadline_s=10.0)

    assert after[-1].usage is not None
    await engine.close()


async def test_a_call_past_its_deadline_times_out_and_is_cancelled(engine):
    with pytest.raises(ProviderTimeout):
        await ask(engine, call("Count to a million.", max_tokens=500), deadline_s=0.001)


async def test_more_calls_than_slots_all_get_their_answer(engine):
    answers = await asyncio.gather(*(ask(engine, call(f"Say {n}.", max_tokens=4)) for n in range(5)))

    assert all(deltas[-1].usage is not None for deltas in answers)


async def test_closing_the_engine_tells_calls_that_still_wait(gguf):
    engine = LlamaCpp(gguf, EngineSettings(threads=1, slots=1, context_tokens=512))
    calls = [asyncio.create_task(ask(engine, call("Count.", max_tokens=60))) for _ in range(3)]
    await asyncio.sleep(0)

    await engine.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert any(isinstance(outcome, EngineFailed) for outcome in outcomes)
    assert all(isinstance(outcome, list | EngineFailed) for outcome in outcomes)


async def test_a_file_that_is_no_model_is_an_engine_failure(tmp_path):
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"GGUF but not really")
    engine = LlamaCpp(fake, EngineSettings())

    with pytest.raises(EngineFailed, match=r"fake\.gguf"):
        await ask(engine, call("Hello"))
    await engine.close()


@pytest.mark.parametrize("extra", [{"grammar": "(("}, {"id_slot": 99}, {"min_p": "much"}], ids=str)
async def test_fields_that_could_harm_the_engine_do_not_reach_it(engine, extra):
    with pytest.raises(ProviderBadRequest, match=next(iter(extra))):
        await ask(engine, call("Hello", max_tokens=2, extra=extra))

    deltas = await ask(engine, call("Hello", max_tokens=2, extra={"min_p": 0.1, "store": True}))
    assert deltas[-1].usage is not None
