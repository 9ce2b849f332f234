"""Any provider that speaks OpenAI chat completions, over one pooled aiohttp client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import aiohttp

from mainstay.core.errors import ConfigError
from mainstay.models.capabilities import ALL
from mainstay.models.collect import collect
from mainstay.models.errors import ProviderError, ProviderStreamBroken, ProviderTimeout, ProviderUnreachable
from mainstay.models.providers.openai_wire import (
    InBandError,
    MalformedEvent,
    decode_error,
    decode_event,
    encode,
)
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.sse import SseReader, SseTooLarge
from mainstay.models.tokens import estimate_usage
from mainstay.models.types import Capability, ChatCall, Completion, Delta, WireFormat

_ERROR_BYTES_MAX: Final = 64 << 10
_CONNECTIONS_MAX: Final = 512
_TAIL_S: Final = 2.0
"""How long we wait for usage and the end of the body once the answer is finished."""


@dataclass(slots=True)
class _Progress:
    """How far a stream is. `idle_s` None: the first event may take the whole deadline, as models load."""

    idle_s: float | None = None
    finished: bool = False


@PROVIDER_KINDS.register("openai")
class OpenAiCompatible:
    """One provider account. The connection pool opens on first use, in the running event loop.

    Closing the generator of `stream` closes the socket at once: a half-read stream never goes back to
    the pool. Redirects are not followed and proxies of the environment not used, so that the key goes
    nowhere but to `base_url`.
    """

    supports: frozenset[Capability] = ALL
    wire_format: WireFormat | None = "openai.chat"

    def __init__(self, settings: HttpProviderSettings) -> None:
        if not settings.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"The base URL of provider {settings.name!r} is {settings.base_url!r}.",
                fix="It must start with http:// or https://, e.g. https://api.openai.com/v1.",
            )
        self.name = settings.name
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when the provider gives none) is on the last one.

        Raises ProviderError before or between deltas; a stream without a finish_reason raises
        ProviderStreamBroken. `deadline_s` bounds the whole call.
        """
        text: list[str] = []
        finished = counted = False
        async with aclosing(self._events(call, deadline_s)) as events:
            async for delta in events:
                text.append(delta.text)
                finished = finished or delta.finish_reason is not None
                counted = counted or delta.usage is not None
                yield delta
        if not finished:
            raise ProviderStreamBroken(
                f"{self.name} ended its stream without saying why.", provider=self.name
            )
        if not counted:
            yield Delta(usage=estimate_usage(call, "".join(text)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        return await collect(self.stream(call, deadline_s))

    async def _events(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas until `[DONE]` or the end of the body; transport failures as ProviderError."""
        response: aiohttp.ClientResponse | None = None
        progress = _Progress()
        try:
            response = await self._post(call, deadline_s)
            if response.status != 200:
                raise await self._refusal(response)
            async with aclosing(self._data(response, progress)) as events:
                async for data in events:
                    delta = decode_event(data)
                    if delta is not None:
                        progress.finished = progress.finished or delta.finish_reason is not None
                        yield delta
        except InBandError as error:
            raise decode_error(self.name, error.status or 500, error.body, {}) from error
        except (MalformedEvent, SseTooLarge) as error:
            raise self._broken(f"sent an event we cannot read ({error})") from error
        except (TimeoutError, aiohttp.ClientError) as error:
            if not progress.finished:  # afterwards only usage or [DONE] can be lost
                raise self._failed(error, deadline_s, begun=response is not None) from error
        finally:
            if response is not None:
                _release(response)

    async def _post(self, call: ChatCall, deadline_s: float) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._settings.api_key is not None:
            headers["Authorization"] = f"Bearer {self._settings.api_key.reveal()}"
        timeout = aiohttp.ClientTimeout(total=deadline_s, sock_connect=self._settings.connect_timeout_s)
        return await self._open().post(
            self._url,
            data=encode(call, self._settings.max_tokens_field),
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
        )

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX), trust_env=False
            )
        return self._session

    async def _data(self, response: aiohttp.ClientResponse, progress: _Progress) -> AsyncGenerator[str]:
        """The data of each event up to `[DONE]`. Raises TimeoutError after a silence too long."""
        reader = SseReader()
        done = False
        while True:
            async with asyncio.timeout(_TAIL_S if progress.finished else progress.idle_s):
                chunk = await response.content.readany()
            if not chunk:
                return
            for event in reader.feed(chunk):
                progress.idle_s = self._settings.idle_timeout_s
                done = done or event.data == b"[DONE]"  # read on to the body's end: the socket is used again
                if not done:
                    yield event.data.decode("utf-8", "replace")

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        body = await response.content.read(_ERROR_BYTES_MAX)
        return decode_error(self.name, response.status, body, response.headers)

    def _broken(self, what: str) -> ProviderStreamBroken:
        return ProviderStreamBroken(f"{self.name} {what}.", provider=self.name)

    def _failed(self, error: Exception, deadline_s: float, begun: bool) -> ProviderError:
        if isinstance(error, TimeoutError):  # also aiohttp's own, which derive from it
            what = f"fell silent or took longer than {deadline_s:g} s" if begun else "did not answer in time"
            return ProviderTimeout(f"{self.name} {what}.", provider=self.name)
        if begun:
            return self._broken(f"broke off its answer ({type(error).__name__})")
        return ProviderUnreachable(
            f"{self.name} cannot be reached at {self._settings.base_url} ({type(error).__name__}).",
            provider=self.name,
            fix="Check the base URL and that the server is up.",
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _release(response: aiohttp.ClientResponse) -> None:
    """Back to the pool when the body was read to its end, else close the socket now."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()
