"""Google's Gemini API, and the same API of Vertex AI, spoken natively."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from mainstay.core.errors import ConfigError
from mainstay.models.capabilities import ALL
from mainstay.models.errors import ProviderBadRequest, ProviderError
from mainstay.models.http import HttpClient
from mainstay.models.providers.answers import Malformed
from mainstay.models.providers.gemini_answers import (
    GeminiStream,
    decode_answer,
    decode_count,
    decode_embeddings,
)
from mainstay.models.providers.gemini_chunks import ChunkReader
from mainstay.models.providers.gemini_errors import decode_error
from mainstay.models.providers.gemini_wire import (
    EMBEDDINGS_MAX,
    encode,
    encode_count,
    encode_embeddings,
    resource,
)
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.providers.upstream import Deadline, Progress, Upstream
from mainstay.models.sse import SseTooLarge
from mainstay.models.tokens import estimate_usage, token_estimate
from mainstay.models.types import Capability, ChatCall, Completion, Delta, Embeddings, WireFormat

BASE_URL: Final = "https://generativelanguage.googleapis.com"


@PROVIDER_KINDS.register("gemini")
class Gemini:
    """One account at the Gemini API, or one project at Vertex AI.

    Gemini API: `api_key` goes into `x-goog-api-key`, never into a URL. Vertex AI: with `options["project"]`, in
    `options["location"]` (`global` when absent); `options["access_token"]` or else `api_key` is the bearer token.
    It is read once, so whoever renews it restarts the server. `base_url` may be empty, and is with or without
    `/v1beta`. Vertex AI's embeddings have another form and are not offered.
    """

    supports: frozenset[Capability] = ALL - {"parallel_tool_calls", "logit_bias"}
    wire_format: WireFormat | None = None

    def __init__(self, settings: HttpProviderSettings, client: HttpClient | None = None) -> None:
        self.name = settings.name
        self._project = settings.option("project")
        location = settings.option("location") or "global"
        if self._project is None and settings.options.get("location") is not None:
            raise ConfigError(
                f"Provider {settings.name!r} has a location but no project.",
                fix="Set its option `project` for Vertex AI, or leave `location` out for the Gemini API.",
            )
        default = BASE_URL if self._project is None else _vertex_url(location)
        self._upstream = Upstream(settings, settings.base_url or default, client)
        root = self._upstream.base_url.removesuffix("/openai").removesuffix("/v1beta").removesuffix("/v1")
        self._root = f"{root}/v1beta"
        if self._project is not None:
            self._root = (
                f"{root}/v1/projects/{quote(self._project, safe='')}/locations/{quote(location, safe='')}"
            )
        self._headers = {"Content-Type": "application/json", **self._auth(settings)}

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when there is none) comes last.

        Raises ProviderError before or between deltas; a stream in which a candidate does not finish raises
        ProviderStreamBroken.
        """
        body = encode(call, self.name, vertex=self._vertex)
        reader = GeminiStream(self.name, call.n)
        text: list[str] = []
        async with aclosing(self._chunks(call.model, body, reader, deadline_s)) as deltas:
            async for delta in deltas:
                text += (delta.text, delta.reasoning)
                yield delta
        if not reader.finished:
            raise self._upstream.broken("ended its stream without finishReason")
        yield Delta(usage=reader.usage or estimate_usage(call, "".join(text)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        """The whole answer at once; usage is estimated when there is none. Raises ProviderError."""
        body = encode(call, self.name, vertex=self._vertex)
        answer = await self._ask(self._url(call.model, "generateContent"), body, Deadline(deadline_s))
        try:
            completion = decode_answer(self.name, answer)
        except Malformed as error:
            raise self._upstream.broken(f"sent an answer we cannot read ({error})") from error
        if completion.usage is None:
            written = "".join(choice.text + choice.reasoning for choice in completion.choices)
            return replace(completion, usage=estimate_usage(call, written))
        return completion

    async def count_call_tokens(self, call: ChatCall, deadline_s: float = 30.0) -> int:
        """Input tokens of the call by Google's own count, which costs nothing. Raises ProviderError."""
        body = encode_count(call, self.name, vertex=self._vertex)
        answer = await self._ask(self._url(call.model, "countTokens"), body, Deadline(deadline_s))
        try:
            return decode_count(answer)
        except Malformed as error:
            raise self._upstream.broken(f"sent a count we cannot read ({error})") from error

    async def embed(
        self, model: str, texts: tuple[str, ...], dimensions: int | None, deadline_s: float
    ) -> Embeddings:
        """Vectors in the order of the texts, EMBEDDINGS_MAX texts a request. Raises ProviderError."""
        if self._vertex:
            raise ProviderBadRequest(
                f"model: {self.name} embeds by another API of Vertex AI, which is not supported.",
                provider=self.name,
                fix="Embed with the Gemini API: a provider of kind gemini without `project`.",
            )
        url, deadline = self._url(model, "batchEmbedContents"), Deadline(deadline_s)
        vectors: tuple[tuple[float, ...], ...] = ()
        tokens = 0
        for start in range(0, len(texts), EMBEDDINGS_MAX):
            batch = texts[start : start + EMBEDDINGS_MAX]
            answer = await self._ask(url, encode_embeddings(model, batch, dimensions), deadline)
            try:
                found, counted = decode_embeddings(answer)
            except Malformed as error:
                raise self._upstream.broken(f"sent embeddings we cannot read ({error})") from error
            if len(found) != len(batch):
                raise self._upstream.broken(f"sent {len(found)} embeddings of {len(batch)} texts")
            vectors += found
            tokens += sum(map(token_estimate, batch)) if counted is None else counted
        return Embeddings(vectors, tokens, model)

    async def close(self) -> None:
        await self._upstream.close()

    @property
    def _vertex(self) -> bool:
        return self._project is not None

    def _auth(self, settings: HttpProviderSettings) -> dict[str, str]:
        key = settings.api_key
        token = settings.option("access_token") or (key.reveal() if key is not None else None)
        if token is None:
            return {}
        return {"Authorization": f"Bearer {token}"} if self._vertex else {"x-goog-api-key": token}

    def _url(self, model: str, method: str) -> str:
        kind, _, name = resource(model).partition("/")
        publisher = "publishers/google/" if self._vertex else ""
        return f"{self._root}/{publisher}{kind}/{quote(name, safe='')}:{method}"

    async def _ask(self, url: str, body: bytes, deadline: Deadline) -> bytes:
        return await self._upstream.ask(url, self._headers, body, deadline, decode_error)

    async def _chunks(
        self, model: str, body: bytes, reader: GeminiStream, deadline_s: float
    ) -> AsyncGenerator[Delta]:
        deadline, progress = Deadline(deadline_s), Progress()
        url = f"{self._url(model, 'streamGenerateContent')}?alt=sse"
        headers = self._headers | {"Accept": "text/event-stream"}
        response = await self._upstream.open(url, headers, body, deadline, decode_error)
        try:
            lines = ChunkReader(response.headers.get("content-type", "text/event-stream"))
            async with aclosing(self._upstream.chunks(response, progress, deadline)) as chunks:
                async for chunk in chunks:
                    for data in lines.feed(chunk):
                        for delta in reader.take(data):
                            yield delta
                    progress.finished = reader.over
        except ProviderError as error:
            self._upstream.hide_in(error)
            raise
        except (Malformed, SseTooLarge) as error:
            raise self._upstream.broken(f"sent a chunk we cannot read ({error})") from error
        finally:
            response.close()


def _vertex_url(location: str) -> str:
    """Vertex AI, "Locations": the global endpoint has no place in its name."""
    host = "" if location == "global" else f"{location}-"
    return f"https://{host}aiplatform.googleapis.com"
