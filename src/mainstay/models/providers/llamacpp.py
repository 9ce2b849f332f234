"""GGUF models in this process on llama.cpp, through xllamacpp's server object.

What was measured on two shared cores with SmolLM2-135M shapes this file:
- prompts gain from a second thread (1.9 times), decoding a model this small does not, and with spinning
  OpenMP threads on a busy machine it falls from 50 to 3-16 tokens/s: small models decode on one thread,
  and OMP_WAIT_POLICY=PASSIVE is set before the library loads;
- the callback is first called after the prompt was read, unless progress is asked for: with
  `return_progress` and small batches a cancelled call stops within one batch (about 0.2 s), for about 5 %.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson

from mainstay.core.secret import Secret, random_token
from mainstay.models.collect import collect
from mainstay.models.errors import EngineFailed, ProviderError, ProviderRateLimited, ProviderTimeout
from mainstay.models.providers.openai_wire import InBandError, MalformedEvent, decode_chunk, decode_error
from mainstay.models.types import (
    Capability,
    ChatCall,
    ChatMessage,
    Completion,
    Delta,
    EngineSettings,
    WireFormat,
)

if TYPE_CHECKING:
    from xllamacpp import Server

OUTPUT_TOKENS_DEFAULT: Final = 512
"""Where a call names no limit: a small model that does not stop must not hold a slot until its context is full."""

_PREFILL_BATCH_TOKENS: Final = 64
_PROMPT_CACHE_MIB: Final = 64
_SHARED_PREFIX_MIN: Final = 0.01
"""A call takes the free slot whose last prompt begins like its own by this share: an app's system prompt
is then read once, though it is short beside the passages."""
_SMALL_MODEL_BYTES: Final = 256 << 20
_CHUNKS_WAITING_MAX: Final = 256
_CALLS_WAITING_PER_SLOT: Final = 32
_COUNT_TIMEOUT_S: Final = 2.0
_SAFE_EXTRAS: Final = frozenset(
    {
        "frequency_penalty",
        "presence_penalty",
        "repeat_penalty",
        "repeat_last_n",
        "top_k",
        "min_p",
        "logit_bias",
        "response_format",
        "json_schema",
    }
)
"""The only fields of `extra` that reach the engine: it runs in our process."""


class LlamaCpp:
    """One GGUF file. Loads on first use (`warm_up` does it earlier); calls beyond the slots wait in turn.

    Closing the generator of `stream` stops the generation within a batch or a token. The engine also
    opens an HTTP port on loopback; it takes a random key that never leaves this object.
    """

    name = "local"
    supports: frozenset[Capability] = frozenset(
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
        }
    )
    wire_format: WireFormat | None = None

    def __init__(self, gguf: Path, settings: EngineSettings) -> None:
        self._gguf = gguf
        self._settings = settings
        self._key = Secret(random_token("engine-"))
        self._server: Server | None = None
        self._load_lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._calls = 0

    @property
    def context_tokens(self) -> int:
        return self._settings.context_tokens

    async def warm_up(self) -> None:
        """Load the model and answer one token, so that the first question is fast. Raises EngineFailed."""
        call = ChatCall(model="", messages=(ChatMessage("user", "Hello"),), max_tokens=1)
        async for _ in self.stream(call, deadline_s=120.0):
            pass

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as tokens are made; exact usage, with the tokens found in the prompt cache.

        Raises ContextTooLong, ProviderRateLimited (too many calls wait), ProviderTimeout, EngineFailed.
        """
        waiting_max = self._settings.slots * (1 + _CALLS_WAITING_PER_SLOT)
        if self._calls >= waiting_max:
            raise ProviderRateLimited(
                f"The local engine has {self._calls} calls in hand already.",
                provider=self.name,
                retry_after_s=1.0,
            )
        self._calls += 1
        pipe = _Pipe(asyncio.get_running_loop())
        try:
            job = self._pool().submit(self._run, _encode(call), pipe)
            job.add_done_callback(lambda done: self._tell_if_dropped(done, pipe))
            until = asyncio.get_running_loop().time() + deadline_s
            while True:
                item = await self._next(pipe, until, deadline_s)
                if item is None:
                    return
                yield item
        finally:
            self._calls -= 1
            pipe.cancel()

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s))

    async def _next(self, pipe: _Pipe, until: float, deadline_s: float) -> Delta | None:
        try:
            async with asyncio.timeout_at(until):
                item = await pipe.get()
        except TimeoutError as error:
            raise ProviderTimeout(
                f"The local engine took longer than {deadline_s:g} s.", provider=self.name
            ) from error
        if isinstance(item, ProviderError):
            raise item
        return item

    def _run(self, body: dict[str, Any], pipe: _Pipe) -> None:
        """In a thread of the pool: one generation, its chunks into the pipe, its end as None or an error."""
        try:
            if not pipe.cancelled:
                self._load().handle_chat_completions(body, lambda chunk: self._take(chunk, pipe))
            pipe.put(None)
        except ProviderError as error:
            pipe.put(error)
        except Exception as error:
            failed = EngineFailed(f"The local engine failed: {error}.", provider=self.name)
            failed.__cause__ = error
            pipe.put(failed)

    def _tell_if_dropped(self, job: Future[None], pipe: _Pipe) -> None:
        if job.cancelled():
            pipe.put(EngineFailed("The local engine is shutting down.", provider=self.name))

    def _take(self, chunk: object, pipe: _Pipe) -> bool:
        """The engine's callback for each chunk; True stops the generation."""
        try:
            delta = decode_chunk(chunk)
        except InBandError as error:
            pipe.put(decode_error(self.name, error.status or 500, error.body, {}))
            return True
        except MalformedEvent as error:
            pipe.put(EngineFailed(f"The local engine said something unknown: {error}.", provider=self.name))
            return True
        if delta is not None:
            pipe.put(delta)
        return pipe.cancelled

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._settings.slots, thread_name_prefix="llamacpp")
        return self._threads

    def _load(self) -> Server:
        with self._load_lock:
            if self._server is None:
                self._server = _start_server(self._gguf, self._settings, self._key)
            return self._server

    def count_tokens(self, text: str) -> int | None:
        """Exact, through the engine's tokenizer (about a millisecond); None while no model is loaded."""
        server = self._server
        if server is None:
            return None
        address = urlsplit(server.listening_address)
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=_COUNT_TIMEOUT_S
        )
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/tokenize", orjson.dumps({"content": text}), headers)
            tokens = orjson.loads(connection.getresponse().read())["tokens"]
        except (OSError, http.client.HTTPException, KeyError, orjson.JSONDecodeError):
            return None  # then the caller takes the ceiling, which is never too low
        finally:
            connection.close()
        return len(tokens)

    async def close(self) -> None:
        """Wait for running generations (cancelled ones stop by themselves) and free the model."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
        self._server = None


class _Pipe:
    """From the engine's thread to the event loop, bounded: the thread waits while the reader is behind."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[Delta | ProviderError | None] = asyncio.Queue()
        self._room = threading.Semaphore(_CHUNKS_WAITING_MAX)
        self.cancelled = False

    def put(self, item: Delta | ProviderError | None) -> None:
        """From the thread. After `cancel`, items are dropped."""
        self._room.acquire()  # `cancel` makes room, so this ends
        if self.cancelled:
            return
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self.cancelled = True

    async def get(self) -> Delta | ProviderError | None:
        item = await self._queue.get()
        self._room.release()
        return item

    def cancel(self) -> None:
        self.cancelled = True
        self._room.release(_CHUNKS_WAITING_MAX * 4)


def _encode(call: ChatCall) -> dict[str, Any]:
    """The engine's request. Its chat template comes from the GGUF file."""
    body: dict[str, Any] = {k: v for k, v in call.extra.items() if k in _SAFE_EXTRAS}
    body["messages"] = [{"role": _role(m.role), "content": m.content} for m in call.messages]
    optional: Mapping[str, Any] = {
        "max_tokens": call.max_tokens or OUTPUT_TOKENS_DEFAULT,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stop": list(call.stop) or None,
        "seed": call.seed,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    return {
        **body,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
        "return_progress": True,
    }


def _role(role: str) -> str:
    return "system" if role == "developer" else role  # chat templates of open models know no developer


def _start_server(gguf: Path, settings: EngineSettings, key: Secret) -> Server:
    """Load the model: about 0.5 s and 290 MB for SmolLM2 with two slots of 2048 tokens."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_tokens
    params.n_batch = params.n_ubatch = _PREFILL_BATCH_TOKENS
    params.cpuparams.n_threads = _decode_threads(gguf, settings)
    params.cpuparams_batch.n_threads = settings.threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.slot_prompt_similarity = _SHARED_PREFIX_MIN
    params.n_threads_http = 1
    params.api_keys = [key.reveal()]
    params.endpoint_slots = params.ui = False
    params.verbosity = 0
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise EngineFailed(
            f"The local engine could not load {gguf.name}.",
            provider=LlamaCpp.name,
            fix="Remove the model and add it again; check free memory (`mainstay doctor`).",
        ) from error


def _decode_threads(gguf: Path, settings: EngineSettings) -> int:
    try:
        small = gguf.stat().st_size < _SMALL_MODEL_BYTES
    except OSError:  # the engine says what is wrong with the file
        small = True
    return 1 if small else settings.threads
