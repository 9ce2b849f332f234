"""Ollama by its native API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from mainstay.core.errors import ConfigError
from mainstay.models.capabilities import ALL
from mainstay.models.errors import ProviderError
from mainstay.models.http import HttpClient
from mainstay.models.providers.answers import Malformed
from mainstay.models.providers.ollama_answers import (
    LineReader,
    OllamaStream,
    decode_answer,
    decode_embeddings,
    decode_error,
)
from mainstay.models.providers.ollama_wire import encode, encode_embeddings
from mainstay.models.providers.probing import get
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.providers.upstream import Deadline, Progress, Upstream
from mainstay.models.tokens import estimate_usage, token_estimate
from mainstay.models.types import Capability, ChatCall, Completion, Delta, Embeddings, Health, WireFormat

BASE_URL: Final = "http://127.0.0.1:11434"
_PROBE_BYTES_MAX: Final = 1 << 20


@PROVIDER_KINDS.register("ollama")
class Ollama:
    """One Ollama server. `base_url` is with or without `/api` or `/v1`, and this machine's when it is empty.

    Options: `num_ctx`, the context of every model in tokens, and `num_ctx.MODEL`, of one; without them it is the
    server's own default, whatever the model could hold. `keep_alive`: how long a model stays loaded after a call.
    """

    supports: frozenset[Capability] = ALL - {"parallel_tool_calls", "files", "audio", "n", "logit_bias"}
    wire_format: WireFormat | None = None

    def __init__(self, settings: HttpProviderSettings, client: HttpClient | None = None) -> None:
        self.name = settings.name
        self._upstream = Upstream(settings, settings.base_url or BASE_URL, client)
        self._root = self._upstream.base_url.removesuffix("/v1").removesuffix("/api")
        self._context_tokens = _context_tokens(settings)
        self._keep_alive = settings.option("keep_alive")
        self._headers = {"Content-Type": "application/json"}
        if settings.api_key is not None:
            self._headers["Authorization"] = f"Bearer {settings.api_key.reveal()}"

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when there is none) comes last.

        Raises ProviderError before or between deltas; a stream without `done` raises ProviderStreamBroken.
        """
        body = self._encode(call, stream=True)
        reader = OllamaStream(self.name, call.model)
        text: list[str] = []
        async with aclosing(self._lines(call.model, body, reader, deadline_s)) as deltas:
            async for delta in deltas:
                text += (delta.text, delta.reasoning)
                yield delta
        if not reader.finished:
            raise self._upstream.broken("ended its stream before it was done")
        yield Delta(usage=reader.usage or estimate_usage(call, "".join(text)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        """The whole answer at once; usage is estimated when there is none. Raises ProviderError."""
        body = self._encode(call, stream=False)
        answer = await self._ask("/api/chat", call.model, body, deadline_s)
        try:
            completion = decode_answer(self.name, call.model, answer)
        except Malformed as error:
            raise self._upstream.broken(f"sent an answer we cannot read ({error})") from error
        if completion.usage is None:
            written = "".join(choice.text + choice.reasoning for choice in completion.choices)
            return replace(completion, usage=estimate_usage(call, written))
        return completion

    async def embed(
        self, model: str, texts: tuple[str, ...], dimensions: int | None, deadline_s: float
    ) -> Embeddings:
        """Vectors in the order of the texts. Raises ProviderError; a text that is too long is refused, not cut."""
        body = encode_embeddings(model, texts, dimensions, self._keep_alive)
        answer = await self._ask("/api/embed", model, body, deadline_s)
        try:
            vectors, counted, answered = decode_embeddings(answer)
        except Malformed as error:
            raise self._upstream.broken(f"sent embeddings we cannot read ({error})") from error
        if len(vectors) != len(texts):
            raise self._upstream.broken(f"sent {len(vectors)} embeddings of {len(texts)} texts")
        return Embeddings(vectors, sum(map(token_estimate, texts)) if counted is None else counted, answered)

    async def health(self, timeout_s: float) -> Health:
        """Whether it answers at `/api/version`. Ollama does not say how many requests run or wait."""
        answer = await get(
            self._upstream.client, f"{self._root}/api/version", self._headers, timeout_s, _PROBE_BYTES_MAX
        )
        return Health(ok=answer is not None and answer[0] == 200)

    async def close(self) -> None:
        await self._upstream.close()

    def _encode(self, call: ChatCall, *, stream: bool) -> bytes:
        context = self._context_tokens.get(call.model, self._context_tokens.get(""))
        return encode(call, self.name, stream=stream, context_tokens=context, keep_alive=self._keep_alive)

    async def _ask(self, path: str, model: str, body: bytes, deadline_s: float) -> bytes:
        url, refusal = f"{self._root}{path}", partial(decode_error, model=model)
        return await self._upstream.ask(url, self._headers, body, Deadline(deadline_s), refusal)

    async def _lines(
        self, model: str, body: bytes, reader: OllamaStream, deadline_s: float
    ) -> AsyncGenerator[Delta]:
        deadline, progress, lines = Deadline(deadline_s), Progress(), LineReader()
        headers = self._headers | {"Accept": "application/x-ndjson"}
        url, refusal = f"{self._root}/api/chat", partial(decode_error, model=model)
        response = await self._upstream.open(url, headers, body, deadline, refusal)
        try:
            async with aclosing(self._upstream.chunks(response, progress, deadline)) as chunks:
                async for chunk in chunks:
                    for line in lines.feed(chunk):
                        for delta in reader.take(line):
                            yield delta
                    progress.finished = reader.finished
        except ProviderError as error:
            self._upstream.hide_in(error)
            raise
        except Malformed as error:
            raise self._upstream.broken(f"sent a line we cannot read ({error})") from error
        finally:
            response.close()


def _context_tokens(settings: HttpProviderSettings) -> dict[str, int]:
    """By model; "" is every other."""
    found: dict[str, int] = {}
    for name in settings.options:
        option, _, model = name.partition(".")
        if option != "num_ctx":
            continue
        value = settings.option(name) or ""
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(
                f"Option {name} of provider {settings.name!r} is {value!r}.",
                fix="It must be a number of tokens, e.g. 8192.",
            )
        found[model] = int(value)
    return found
