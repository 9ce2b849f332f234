"""Any provider that speaks OpenAI chat completions and embeddings."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import numpy as np
import orjson

from mainstay.core.errors import ConfigError
from mainstay.models.capabilities import ALL, FIELD_OF, needs
from mainstay.models.errors import (
    ProviderBadRequest,
    ProviderError,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
)
from mainstay.models.http.pooled import PooledHttpClient
from mainstay.models.http.types import HttpBroken, HttpClient, HttpError, HttpResponse, HttpTimeout
from mainstay.models.providers.openai_encode import Dialect, Encoder
from mainstay.models.providers.openai_errors import decode_error
from mainstay.models.providers.openai_wire import (
    InBandError,
    MalformedEvent,
    decode_completion,
    decode_embeddings,
    decode_events,
    decode_usage,
)
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.providers.skipping import Skips
from mainstay.models.sse import SseReader, SseTooLarge
from mainstay.models.tokens import estimate_usage, token_estimate
from mainstay.models.types import Capability, ChatCall, Completion, Delta, Embeddings, WireFormat

_log = logging.getLogger(__name__)

_ERROR_BYTES_MAX: Final = 64 << 10
_BODY_BYTES_MAX: Final = 64 << 20
_TAIL_S: Final = 2.0
"""How long we wait for usage and the end of the body once the answer is finished."""


@dataclass(slots=True)
class _Deadline:
    """When a call must be over, by the event loop's clock."""

    limit_s: float
    at_s: float

    @classmethod
    def after(cls, limit_s: float) -> _Deadline:
        return cls(limit_s, asyncio.get_running_loop().time() + limit_s)

    def left_s(self) -> float:
        return max(0.0, self.at_s - asyncio.get_running_loop().time())


@dataclass(slots=True)
class _Progress:
    """How far a stream is. `idle_s` None: the first event may take the whole deadline, as models load."""

    choices_asked: int
    idle_s: float | None = None
    seen: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    counted: bool = False
    written: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return bool(self.seen) and not self.open

    @property
    def over(self) -> bool:
        """Nothing but usage or `[DONE]` can come, so nothing else can be lost."""
        return self.finished and len(self.seen) >= self.choices_asked

    def take(self, delta: Delta) -> None:
        if delta.usage is not None:
            self.counted = True
        if delta.finish_reason is not None:
            self.seen.add(delta.index)
            self.open.discard(delta.index)
        elif delta.usage is None and delta.index not in self.seen:
            self.seen.add(delta.index)
            self.open.add(delta.index)
        if not self.counted:
            self.written.append(delta.text or delta.reasoning or delta.refusal)
            self.written.extend(piece.arguments for piece in delta.tool_calls)


@PROVIDER_KINDS.register("openai")
class OpenAiCompatible:
    """One account at one provider. The connection pool opens on first use, in the running event loop.

    Closing the generator of `stream` closes the socket at once: a half-read stream never goes back to
    the pool. Redirects are not followed and proxies of the environment not used, so that the key goes
    nowhere but to `base_url`.
    """

    supports: frozenset[Capability] = ALL
    wire_format: WireFormat | None = "openai.chat"
    dialect: ClassVar[Dialect] = Dialect()

    def __init__(self, settings: HttpProviderSettings) -> None:
        if not settings.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"The base URL of provider {settings.name!r} is {settings.base_url!r}.",
                fix="It must start with http:// or https://, e.g. https://api.openai.com/v1.",
            )
        self.name = settings.name
        self._settings = settings
        self._base_url = settings.base_url.rstrip("/")
        self._encoder = Encoder(settings.name, self._max_tokens_field(), self._dialect())
        self._client: HttpClient | None = None

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when the provider gives none) is on the last one.

        Raises ProviderError before or between deltas; a stream whose choices have no finish_reason raises
        ProviderStreamBroken. `deadline_s` bounds the whole call.
        """
        self._check(call)
        deadline = _Deadline.after(deadline_s)
        progress = _Progress(call.n)
        body = self._encoder.encode(call, stream=True)
        response = await self._post(
            self._url("chat/completions", call.model), body, deadline, "text/event-stream"
        )
        reader, skips, done = SseReader(), Skips(self.name), False
        keep_raw = (
            call.relay and call.source_format == self.wire_format
        )  # nobody relays it into another format
        try:
            while chunk := await self._next_chunk(response, progress, deadline):
                for event in reader.feed(chunk):
                    progress.idle_s = self._settings.idle_timeout_s
                    done = done or event.data == b"[DONE]"
                    if done:  # read on to the body's end: the socket is used again
                        continue
                    try:
                        deltas = decode_events(event.data, keep_raw)
                    except MalformedEvent as error:
                        skips.unreadable(error)
                        continue
                    skips.readable()
                    for delta in deltas:
                        progress.take(delta)
                        yield delta
        except InBandError as error:
            raise self._refused(error.status or 500, error.body) from error
        except (MalformedEvent, SseTooLarge) as error:
            raise self._broken(f"sent an event we cannot read ({error})") from error
        finally:
            response.close()
        if not progress.finished:
            raise self._broken("ended its stream without saying why")
        if not progress.counted:
            yield Delta(usage=estimate_usage(call, "".join(progress.written)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        """The whole answer by a call that is not streamed; usage is estimated when the provider gives none."""
        self._check(call)
        deadline = _Deadline.after(deadline_s)
        body = self._encoder.encode(call, stream=False)
        answer = await self._post_and_read(self._url("chat/completions", call.model), body, deadline)
        try:
            completion = decode_completion(answer)
        except InBandError as error:
            raise self._refused(error.status or 500, error.body) from error
        except MalformedEvent as error:
            raise self._broken(f"sent an answer we cannot read ({error})") from error
        if completion.usage is None:
            return replace(completion, usage=estimate_usage(call, _written(completion)))
        return completion

    async def embed(
        self, model: str, texts: tuple[str, ...], dimensions: int | None, deadline_s: float
    ) -> Embeddings:
        """Vectors in the order of the texts. Raises ProviderError."""
        request: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
        if dimensions is not None:
            request["dimensions"] = dimensions
        url, deadline = self._url("embeddings", model), _Deadline.after(deadline_s)
        answer = await self._post_and_read(url, orjson.dumps(request), deadline)
        try:
            items, body = decode_embeddings(answer)
            vectors = tuple(_vector(item) for item in items)
        except InBandError as error:
            raise self._refused(error.status or 500, error.body) from error
        except ValueError as error:
            raise self._broken(f"sent embeddings we cannot read ({error})") from error
        if len(vectors) != len(texts):
            raise self._broken(f"sent {len(vectors)} embeddings of {len(texts)} texts")
        usage = decode_usage({"completion_tokens": 0, **(body.get("usage") or {})})
        tokens = sum(map(token_estimate, texts)) if usage is None else usage.input_tokens
        answered = body.get("model")
        return Embeddings(vectors, tokens, answered if isinstance(answered, str) else None)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    # --- what kinds of provider do differently -------------------------------------------------------------

    def _dialect(self) -> Dialect:
        return Dialect.of(self.name, self._settings.options, self.dialect)

    def _max_tokens_field(self) -> str:
        return self._settings.max_tokens_field

    def _url(self, path: str, model: str) -> str:
        return f"{self._base_url}/{path}"

    def _auth(self) -> dict[str, str]:
        key = self._settings.api_key
        return {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}

    # --- requests and their failures -----------------------------------------------------------------------

    def _check(self, call: ChatCall) -> None:
        """What this provider cannot express is refused, never left out."""
        for missing in sorted(needs(call) - self.supports):
            name = FIELD_OF.get(missing, missing)
            raise ProviderBadRequest(f"{name}: {self.name} does not support {missing}.", provider=self.name)

    def _open(self) -> HttpClient:
        if self._client is None:
            self._client = PooledHttpClient()
        return self._client

    async def _post(self, url: str, body: bytes, deadline: _Deadline, accept: str) -> HttpResponse:
        headers = {"Content-Type": "application/json", "Accept": accept, **self._auth()}
        try:
            response = await self._open().request(
                "POST",
                url,
                headers=headers,
                body=body,
                connect_timeout_s=min(self._settings.connect_timeout_s, deadline.left_s()),
                head_timeout_s=deadline.left_s(),
            )
        except HttpError as error:
            raise self._failed(error, deadline, begun=False) from error
        if response.status != 200:
            raise await self._refusal(response, deadline)
        return response

    async def _post_and_read(self, url: str, body: bytes, deadline: _Deadline) -> bytes:
        response = await self._post(url, body, deadline, "application/json")
        try:
            return await response.read(_BODY_BYTES_MAX, deadline.left_s())
        except HttpError as error:
            raise self._failed(error, deadline, begun=True) from error
        finally:
            response.close()

    async def _next_chunk(self, response: HttpResponse, progress: _Progress, deadline: _Deadline) -> bytes:
        """The next bytes; `b""` at the end, and when only the end of a finished answer is missing."""
        idle_s = _TAIL_S if progress.over else progress.idle_s
        left_s = deadline.left_s()
        try:
            return await response.next_chunk(left_s if idle_s is None else min(idle_s, left_s))
        except (HttpTimeout, HttpBroken) as error:
            if progress.over:
                return b""
            raise self._failed(error, deadline, begun=True) from error

    async def _refusal(self, response: HttpResponse, deadline: _Deadline) -> ProviderError:
        try:
            body = await response.read(_ERROR_BYTES_MAX, min(_TAIL_S, deadline.left_s()))
        except HttpError:
            body = b""  # the status alone says enough
        finally:
            response.close()
        return decode_error(self.name, response.status, body, response.headers, self._hidden())

    def _refused(self, status: int, body: bytes) -> ProviderError:
        return decode_error(self.name, status, body, {}, self._hidden())

    def _hidden(self) -> Sequence[str]:
        """What no caller may read: our key and where the provider is."""
        found = [*self._secrets(), self._base_url, urlsplit(self._base_url).netloc]
        return [word for word in found if word]

    def _secrets(self) -> list[str]:
        key = self._settings.api_key
        return [] if key is None else [key.reveal()]

    def _broken(self, what: str) -> ProviderStreamBroken:
        return ProviderStreamBroken(f"{self.name} {what}.", provider=self.name)

    def _failed(self, error: HttpError, deadline: _Deadline, *, begun: bool) -> ProviderError:
        _log.warning("%s at %s failed: %s", self.name, self._base_url, error)
        if isinstance(error, HttpTimeout):
            late = f"fell silent or took longer than {deadline.limit_s:g} s"
            return ProviderTimeout(
                f"{self.name} {late if begun else 'did not answer in time'}.", provider=self.name
            )
        if begun or (isinstance(error, HttpBroken) and error.begun):
            return self._broken("broke off its answer")
        what = "hung up before it answered" if isinstance(error, HttpBroken) else "cannot be reached"
        return ProviderUnreachable(f"{self.name} {what}.", provider=self.name)


def _written(completion: Completion) -> str:
    return "".join(
        choice.text
        + choice.reasoning
        + choice.refusal
        + "".join(call.arguments for call in choice.tool_calls)
        for choice in completion.choices
    )


def _vector(value: object) -> tuple[float, ...]:
    """From base64 of little-endian 32-bit floats, or a list of numbers. Raises ValueError."""
    if isinstance(value, str):
        return tuple(np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").tolist())
    if isinstance(value, list) and all(isinstance(x, int | float) for x in value):
        return tuple(float(x) for x in value)
    raise ValueError("an embedding is neither base64 nor a list of numbers")
