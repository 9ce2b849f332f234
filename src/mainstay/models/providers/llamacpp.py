"""GGUF models on this machine: llama.cpp in a process of its own (`mainstay.models.engine`).

The chat template comes from the GGUF file. Tools need a template that writes them; then the engine's own parsers
find the calls in what the model says. It does not enforce `tool_choice`, so a forced call is made by a grammar here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from mainstay.core.errors import InvalidInput
from mainstay.models.collect import collect
from mainstay.models.engine import (
    Engines,
    EngineState,
    Kind,
    Lease,
    LocalModel,
    Port,
    read_facts,
)
from mainstay.models.engine.frames import Counted
from mainstay.models.errors import (
    EngineFailed,
    ProviderRateLimited,
    ProviderTimeout,
)
from mainstay.models.providers.llamacpp_tools import ForcedCall
from mainstay.models.providers.openai_encode import Dialect, Encoder
from mainstay.models.providers.openai_errors import decode_error
from mainstay.models.providers.openai_wire import InBandError, MalformedEvent, decode_events
from mainstay.models.providers.translation import own_extra, refused
from mainstay.models.types import (
    Capability,
    ChatCall,
    ChatMessage,
    Completion,
    Delta,
    EngineSettings,
    Health,
    MediaPart,
    WireFormat,
)

OUTPUT_TOKENS_DEFAULT: Final = 512
"""Where a call names no limit: a small model that does not stop must not hold a slot until its context is full."""

_CALLS_WAITING_PER_SLOT: Final = 32
_SEEDS: Final = (1 << 32) - 1
"""The engine's seeds have 32 bits; the last of them means "any"."""

_NUMBERS: Final = frozenset({"min_p", "typical_p", "repeat_penalty", "repeat_last_n"})
"""The only fields of `extra` that reach the engine, and they are numbers."""

_HARMLESS: Final = frozenset({"metadata", "service_tier", "store", "stream_options"})
"""Left out: no answer is another for them."""

_ALWAYS: Final[frozenset[Capability]] = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "penalties",
        "logit_bias",
        "json_object",
        "json_schema",
        "logprobs",
    }
)
_TOOLS: Final[frozenset[Capability]] = frozenset({"tools", "parallel_tool_calls"})


class LlamaCpp:
    """One GGUF file, or with `adapter` that file changed by one of its adapters.

    Loads on first use (`warm_up` does it earlier); calls beyond the slots wait in turn. Closing the generator of
    `stream` stops the generation within a batch or a token. When the engine's process dies its calls fail with
    EngineFailed, and the next call starts it again.

    `engines` is shared by all models of a catalogue, which closes it; without it the model has one of its own.
    """

    name = "local"
    wire_format: WireFormat | None = "openai.chat"
    """So that fields of the engine's own, such as `min_p`, come here; bodies are written anew all the same."""

    def __init__(
        self,
        gguf: Path,
        settings: EngineSettings,
        engines: Engines | None = None,
        *,
        model: str | None = None,
        adapters: Mapping[str, Path] | None = None,
        adapter: str | None = None,
    ) -> None:
        self._model = LocalModel(model or gguf.stem, gguf, tuple((adapters or {}).items()))
        self._adapter = adapter
        self._adapters = len(self._model.adapters)
        self._settings = settings
        self._owned = Engines(settings) if engines is None else None
        self._engines = engines if engines is not None else self._owned or Engines(settings)
        self._context_tokens = self._engines.context_tokens(gguf)
        self._encoder = Encoder(self.name, "max_tokens", Dialect())
        self._calls = 0
        self.supports: frozenset[Capability] = _ALWAYS | (_TOOLS if _takes_tools(gguf) else frozenset())

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    @property
    def state(self) -> EngineState:
        """Whether it is loaded, what it holds, and how often it died of late."""
        return self._engines.state(self._model)

    async def warm_up(self) -> None:
        """Load the model and answer one token, so that the first question is fast. Raises EngineFailed."""
        call = ChatCall(model="", messages=(ChatMessage("user", "Hello"),), max_tokens=1)
        async for _ in self.stream(call, deadline_s=120.0):
            pass

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as tokens are made; exact usage, with the tokens found in the prompt cache.

        Raises ContextTooLong, ProviderBadRequest naming a field, ProviderRateLimited (too many calls wait),
        ProviderTimeout, EngineFailed.
        """
        forced = ForcedCall.of(call)
        self._require_expressible(call)
        until = asyncio.get_running_loop().time() + deadline_s
        self._calls += 1
        try:
            lease = await self._lease(until, deadline_s)
            answered = False
            try:
                port = lease.process.open(Kind.CHAT, self._encode(call, forced, lease))
                async with aclosing(self._deltas(port, call, until, deadline_s)) as deltas:
                    async for delta in deltas if forced is None else forced.deltas(deltas):
                        answered = True
                        yield delta
            finally:
                self._engines.release(lease, answered=answered)
        finally:
            self._calls -= 1

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s), self.name)

    async def health(self, timeout_s: float) -> Health:
        """Well unless it is refusing after repeated deaths, or is loaded and does not answer."""
        running = min(self._calls, self._settings.slots)
        waiting = self._calls - running
        process = self._engines.loaded(self._model)
        ok = self.state.retry_after_s is None
        if ok and process is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await process.ping()
            except (TimeoutError, EngineFailed):
                ok = False
        return Health(ok, running, waiting)

    async def count_call_tokens(self, call: ChatCall, deadline_s: float = 30.0) -> int:
        """Input tokens of a call as it would be sent. Raises as `stream` does."""
        self._require_expressible(call)
        until = asyncio.get_running_loop().time() + deadline_s
        lease = await self._lease(until, deadline_s)
        try:
            port = lease.process.open(Kind.COUNT, self._encode(call, ForcedCall.of(call), lease))
            try:
                counted = await self._next(port, until, deadline_s)
            finally:
                port.close()
            return msgspec.json.decode(counted[2], type=Counted).tokens
        finally:
            self._engines.release(lease, answered=False)

    async def close(self) -> None:
        """Wait for running generations and free the model, unless its engines are shared: they outlive it."""
        if self._owned is not None:
            await self._owned.close()

    # --- one call ------------------------------------------------------------------------------------------

    async def _lease(self, until: float, deadline_s: float) -> Lease:
        waiting_max = self._settings.slots * (1 + _CALLS_WAITING_PER_SLOT)
        if self._calls > waiting_max:
            raise ProviderRateLimited(
                f"The local engine has {self._calls - 1} calls in hand already.",
                provider=self.name,
                retry_after_s=1.0,
            )
        try:
            async with asyncio.timeout_at(until):
                return await self._engines.acquire(self._model, self._adapter)
        except TimeoutError as error:
            raise self._late(deadline_s) from error

    async def _deltas(
        self, port: Port, call: ChatCall, until: float, deadline_s: float
    ) -> AsyncGenerator[Delta]:
        try:
            while True:
                kind, _, payload = await self._next(port, until, deadline_s)
                if kind == Kind.DONE:
                    return
                for delta in self._decode(payload):
                    yield _without_raw(delta, call)
        finally:
            port.close()

    async def _next(self, port: Port, until: float, deadline_s: float) -> tuple[int, int, bytes]:
        try:
            async with asyncio.timeout_at(until):
                return await port.get()
        except TimeoutError as error:
            raise self._late(deadline_s) from error

    def _late(self, deadline_s: float) -> ProviderTimeout:
        return ProviderTimeout(f"The local engine took longer than {deadline_s:g} s.", provider=self.name)

    def _decode(self, payload: bytes) -> tuple[Delta, ...]:
        try:
            return decode_events(payload)
        except InBandError as error:
            raise decode_error(self.name, error.status or 500, error.body, {}) from error
        except MalformedEvent as error:
            raise EngineFailed(
                f"The local engine said something unknown: {error}.", provider=self.name
            ) from error

    def _encode(self, call: ChatCall, forced: ForcedCall | None, lease: Lease) -> bytes:
        """The engine's request body."""
        extra = self._extra(call)
        extra.update(cache_prompt=True, return_progress=True)
        if lease.process.load.adapters:
            extra["lora"] = [
                {"id": at, "scale": 1.0 if at == lease.adapter else 0.0}
                for at in range(len(lease.process.load.adapters))
            ]
        return self._encoder.encode(
            replace(
                call if forced is None else forced.constrained(call),
                source=None,
                extra=extra,
                max_tokens=call.max_tokens or OUTPUT_TOKENS_DEFAULT,
                seed=None if call.seed is None else call.seed % _SEEDS,
                top_logprobs=(call.top_logprobs or 1) if call.logprobs else None,
                reasoning=None,
                user=None,
            ),
            stream=True,
        )

    def _extra(self, call: ChatCall) -> dict[str, Any]:
        """Raises ProviderBadRequest for a field that is not the engine's, or not a number."""
        asked = {name: value for name, value in call.extra.items() if name not in _HARMLESS}
        own = own_extra(replace(call, extra=asked), self.name, None, _NUMBERS)
        for name, value in own.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise refused(self.name, name, "needs a number")
        return own

    def _require_expressible(self, call: ChatCall) -> None:
        """Raises ProviderBadRequest naming the field that this model or the engine cannot do."""
        self._extra(call)
        if call.n > 1:
            raise refused(self.name, "n", "makes one choice a call")
        tooled = call.tools or any(m.tool_calls or m.role == "tool" for m in call.messages)
        if tooled and "tools" not in self.supports:
            raise refused(self.name, "tools", "has a model whose chat template takes no tools")
        if call.tools and call.response_format is not None:
            raise refused(
                self.name, "response_format", "cannot hold an answer to a format that may call tools, too"
            )
        for at, message in enumerate(call.messages):
            if any(isinstance(part, MediaPart) for part in message.parts):
                raise refused(self.name, f"messages.{at}.content", "takes text alone")


def _takes_tools(gguf: Path) -> bool:
    try:
        return read_facts(gguf).takes_tools
    except InvalidInput:  # loading it says what is wrong with the file
        return False


def _without_raw(delta: Delta, call: ChatCall) -> Delta:
    """Of no use to a client, as no client sent this body; and the one alternative that was not asked for goes."""
    if delta.logprobs and not call.top_logprobs:
        return replace(delta, raw=None, logprobs=tuple({**i, "top_logprobs": []} for i in delta.logprobs))
    return replace(delta, raw=None)
