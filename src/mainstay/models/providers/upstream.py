"""How an adapter calls its vendor: pooled, within one deadline, transport failures as ProviderErrors.

Shared by adapters that only translate. The adapter owns what goes out and what comes in; this owns time,
connections and what their failures are called.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models.errors import (
    ProviderAuthFailed,
    ProviderError,
    ProviderStreamBroken,
    ProviderTimeout,
    ProviderUnreachable,
)
from mainstay.models.http import HttpBroken, HttpClient, HttpError, HttpResponse, HttpTimeout
from mainstay.models.http.pooled import PooledHttpClient
from mainstay.models.providers.registry import HttpProviderSettings

_log = logging.getLogger(__name__)

_ERROR_BYTES_MAX: Final = 64 << 10
_ANSWER_BYTES_MAX: Final = 64 << 20
_TAIL_S: Final = 2.0
"""How long we wait for the end of the body once the answer is finished, so that the connection is used again."""

Refusal = Callable[[str, int, bytes, Mapping[str, str]], ProviderError]
"""How a vendor's error answer is read: provider, status, body and headers → what to raise."""


class Reach(Protocol):
    """How far an answer is: whether any of it has come, and whether only its end is missing."""

    @property
    def begun(self) -> bool: ...

    @property
    def finished(self) -> bool: ...


@dataclass(slots=True)
class Progress:
    """How far an answer is. Nothing is lost by a failure once it is `finished`."""

    begun: bool = False
    finished: bool = False


class Deadline:
    """A moment on the running loop's clock."""

    __slots__ = ("_at_s", "_clock", "total_s")

    def __init__(self, seconds: float) -> None:
        self.total_s = seconds
        self._clock = asyncio.get_running_loop().time
        self._at_s = self._clock() + seconds

    @property
    def left_s(self) -> float:
        left_s = self._at_s - self._clock()
        return left_s if left_s > 0.0 else 0.0


class Upstream:
    """One provider account. The connection pool opens on first use."""

    def __init__(
        self, settings: HttpProviderSettings, base_url: str, client: HttpClient | None = None
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"The base URL of provider {settings.name!r} is {base_url!r}.",
                fix="It must start with http:// or https://.",
            )
        self.name = settings.name
        self.base_url = base_url.rstrip("/")
        self._settings = settings
        self._client = client

    @property
    def client(self) -> HttpClient:
        if self._client is None:
            self._client = PooledHttpClient()
        return self._client

    async def open(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: Deadline, refusal: Refusal
    ) -> HttpResponse:
        """The answer once its head is here and its status is 200; else what `refusal` makes of it is raised.

        Raises ProviderUnreachable, ProviderTimeout, and ProviderAuthFailed for a key that no header can hold.
        """
        left_s, patience_s = deadline.left_s, self._settings.connect_timeout_s
        try:
            response = await self.client.request(
                "POST",
                url,
                headers=headers,
                body=body,
                connect_timeout_s=patience_s if patience_s < left_s else left_s,
                head_timeout_s=left_s,
            )
        except HttpError as error:
            raise self._failed(error, deadline, begun=False) from error
        except ValueError:  # its cause may hold the key
            raise self._unsayable() from None
        if response.status == 200:
            return response
        told = await self._refusal_body(response, deadline)
        raise refusal(self.name, response.status, told, response.headers)

    async def ask(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: Deadline, refusal: Refusal
    ) -> bytes:
        """The whole body of an answer that is not streamed. Raises as `open`, and ProviderStreamBroken."""
        response = await self.open(url, headers, body, deadline, refusal)
        return await self._body(response, deadline, deadline.left_s, _ANSWER_BYTES_MAX)

    async def chunks(
        self, response: HttpResponse, progress: Progress, deadline: Deadline
    ) -> AsyncGenerator[bytes]:
        """The body as it comes. The first bytes may take the whole deadline, as models load; then silence is bounded."""
        while chunk := await self.next_chunk(response, progress, deadline):
            progress.begun = True
            yield chunk

    async def next_chunk(self, response: HttpResponse, reach: Reach, deadline: Deadline) -> bytes:
        """The next bytes; `b""` at the end, and when only the end of a finished answer is missing."""
        wait_s = deadline.left_s
        if reach.begun and wait_s > self._settings.idle_timeout_s:
            wait_s = self._settings.idle_timeout_s
        if reach.finished and wait_s > _TAIL_S:
            wait_s = _TAIL_S
        try:
            if wait_s <= 0:  # bytes that never pause would never be waited for
                raise HttpTimeout("the deadline is over")
            return await response.next_chunk(wait_s)
        except HttpError as error:
            if reach.finished:
                return b""
            raise self._failed(error, deadline, begun=True) from error

    def hide(self, body: bytes) -> bytes:
        """Servers repeat what they were sent: our key and the server's address are taken out of what callers read."""
        for word in self._hidden():
            body = body.replace(word.encode(), b"***")
        return body

    def hide_in(self, error: ProviderError) -> None:
        """As `hide`, for an error that was read out of an answer."""
        for word in self._hidden():
            error.message = error.message.replace(word, "***")
            error.upstream_code = error.upstream_code and error.upstream_code.replace(word, "***")

    def broken(self, what: str) -> ProviderStreamBroken:
        return ProviderStreamBroken(f"{self.name} {what}.", provider=self.name)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _hidden(self) -> list[str]:
        key, options = self._settings.api_key, self._settings.options.values()
        secrets = [value.reveal() for value in (key, *options) if isinstance(value, Secret)]
        return [word for word in (*secrets, self.base_url, urlsplit(self.base_url).netloc) if word]

    def _unsayable(self) -> ProviderAuthFailed:
        return ProviderAuthFailed(
            f"{self.name} cannot be called: its key or an option does not fit into an HTTP header.",
            provider=self.name,
            fix="Look for line ends and characters beyond Latin-1 in them.",
        )

    async def _body(
        self, response: HttpResponse, deadline: Deadline, wait_s: float, limit_bytes: int
    ) -> bytes:
        try:
            return await response.read(limit_bytes, wait_s)
        except HttpError as error:
            raise self._failed(error, deadline, begun=True) from error
        finally:
            response.close()

    async def _refusal_body(self, response: HttpResponse, deadline: Deadline) -> bytes:
        """The body of an error answer, as far as it can be had soon: its status alone already says what to raise."""
        try:
            wait_s = min(_TAIL_S, deadline.left_s)
            return self.hide(await self._body(response, deadline, wait_s, _ERROR_BYTES_MAX))
        except ProviderError:
            return b""

    def _failed(self, error: HttpError, deadline: Deadline, begun: bool) -> ProviderError:
        # Callers need not know where our providers are: the address is for the log.
        _log.warning("%s at %s failed: %s", self.name, self.base_url, error)
        if isinstance(error, HttpTimeout):
            late = f"fell silent or took longer than {deadline.total_s:g} s"
            return ProviderTimeout(
                f"{self.name} {late if begun else 'did not answer in time'}.", provider=self.name
            )
        if begun or (isinstance(error, HttpBroken) and error.begun):
            return self.broken(f"broke off its answer ({error})")
        return ProviderUnreachable(f"{self.name} cannot be reached ({error}).", provider=self.name)
