"""Any provider that speaks OpenAI chat completions and embeddings."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import orjson

from mainstay.models.capabilities import ALL, FIELD_OF, needs
from mainstay.models.errors import (
    ProviderBadRequest,
    ProviderError,
)
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
from mainstay.models.providers.upstream import Deadline, Upstream
from mainstay.models.sse import SseReader, SseTooLarge
from mainstay.models.tokens import estimate_usage, token_estimate
from mainstay.models.types import Capability, ChatCall, Completion, Delta, Embeddings, WireFormat


@dataclass(slots=True)
class _Progress:
    """How far a stream is. `begun` with its first event, which may take the whole deadline, as models load."""

    choices_asked: int
    begun: bool = False
    seen: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    counted: bool = False
    written: list[str] = field(default_factory=list)
    finished: bool = False
    """Nothing but usage or `[DONE]` can come, so nothing else can be lost."""

    @property
    def whole(self) -> bool:
        """No choice that has begun lacks its end."""
        return bool(self.seen) and not self.open

    def take(self, delta: Delta) -> None:
        if delta.usage is not None or delta.finish_reason is not None or delta.index not in self.seen:
            self._turn(delta)
        if not self.counted:
            self.written.append(delta.text or delta.reasoning or delta.refusal)
            if delta.tool_calls:
                self.written.extend([piece.arguments for piece in delta.tool_calls])

    def _turn(self, delta: Delta) -> None:
        """A choice begins or ends, or usage is told."""
        if delta.usage is not None:
            self.counted = True
        if delta.finish_reason is not None:
            self.seen.add(delta.index)
            self.open.discard(delta.index)
        elif delta.usage is None and delta.index not in self.seen:
            self.seen.add(delta.index)
            self.open.add(delta.index)
        self.finished = self.whole and len(self.seen) >= self.choices_asked


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
        self.name = settings.name
        self._settings = settings
        self._upstream = Upstream(settings, settings.base_url)
        self._base_url = self._upstream.base_url
        self._encoder = Encoder(settings.name, self._max_tokens_field(), self._dialect())

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when the provider gives none) is on the last one.

        Raises ProviderError before or between deltas; a stream whose choices have no finish_reason raises
        ProviderStreamBroken. `deadline_s` bounds the whole call.
        """
        self._check(call)
        deadline, progress = Deadline(deadline_s), _Progress(call.n)
        body = self._encoder.encode(call, stream=True)
        url, headers = self._url("chat/completions", call.model), self._headers("text/event-stream")
        response = await self._upstream.open(url, headers, body, deadline, decode_error)
        reader, skips, done = SseReader(), Skips(self.name), False
        keep_raw = (
            call.relay and call.source_format == self.wire_format
        )  # nobody relays it into another format
        try:
            while chunk := await self._upstream.next_chunk(response, progress, deadline):
                for event in reader.feed(chunk):
                    progress.begun = True
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
            raise self._upstream.broken(f"sent an event we cannot read ({error})") from error
        finally:
            response.close()
        if not progress.whole:
            raise self._upstream.broken("ended its stream without saying why")
        if not progress.counted:
            yield Delta(usage=estimate_usage(call, "".join(progress.written)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        """The whole answer by a call that is not streamed; usage is estimated when the provider gives none."""
        self._check(call)
        url, body = self._url("chat/completions", call.model), self._encoder.encode(call, stream=False)
        answer = await self._ask(url, body, deadline_s)
        try:
            completion = decode_completion(answer)
        except InBandError as error:
            raise self._refused(error.status or 500, error.body) from error
        except MalformedEvent as error:
            raise self._upstream.broken(f"sent an answer we cannot read ({error})") from error
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
        answer = await self._ask(self._url("embeddings", model), orjson.dumps(request), deadline_s)
        try:
            items, body = decode_embeddings(answer)
            vectors = tuple(_vector(item) for item in items)
        except InBandError as error:
            raise self._refused(error.status or 500, error.body) from error
        except ValueError as error:
            raise self._upstream.broken(f"sent embeddings we cannot read ({error})") from error
        if len(vectors) != len(texts):
            raise self._upstream.broken(f"sent {len(vectors)} embeddings of {len(texts)} texts")
        usage = decode_usage({"completion_tokens": 0, **(body.get("usage") or {})})
        tokens = sum(map(token_estimate, texts)) if usage is None else usage.input_tokens
        answered = body.get("model")
        return Embeddings(vectors, tokens, answered if isinstance(answered, str) else None)

    async def close(self) -> None:
        await self._upstream.close()

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
        if self.supports is ALL:  # whatever a call can need
            return
        for missing in sorted(needs(call) - self.supports):
            name = FIELD_OF.get(missing, missing)
            raise ProviderBadRequest(f"{name}: {self.name} does not support {missing}.", provider=self.name)

    def _headers(self, accept: str) -> dict[str, str]:
        return {"Content-Type": "application/json", "Accept": accept, **self._auth()}

    def _ask(self, url: str, body: bytes, deadline_s: float) -> Coroutine[Any, Any, bytes]:
        headers = self._headers("application/json")
        return self._upstream.ask(url, headers, body, Deadline(deadline_s), decode_error)

    def _refused(self, status: int, body: bytes) -> ProviderError:
        return decode_error(self.name, status, self._upstream.hide(body), {})


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
