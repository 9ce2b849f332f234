"""How an adapter calls its vendor: pooled, within one deadline, transport failures as ProviderErrors.

Shared by adapters that only translate. The adapter owns what goes out and what comes in; this owns time,
connections and what their failures are called.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final
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

log = logging.getLogger(__name__)

ERROR_BYTES_MAX: Final = 64 << 10
ANSWER_BYTES_MAX: Final = 64 << 20
_TAIL_S: Final = 2.0
"""How long we wait for the end of the body once the answer is finished, so that the connection is used again."""


@dataclass(slots=True)
class Progress:
    """How far an answer is. Nothing is lost by a failure once it is `finished`."""

    begun: bool = False
    finished: bool = False


class Deadline:
    """A moment on the running loop's clock."""

    def __init__(self, seconds: float) -> None:
        self.total_s = seconds
        self._at = asyncio.get_running_loop().time() + seconds

    @property
    def left_s(self) -> float:
        """At least a millisecond, so that a wait for what has already come still succeeds."""
        return max(0.001, self._at - asyncio.get_running_loop().time())


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

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> HttpResponse:
        """The answer once its head is here, whatever its status.

        Raises ProviderUnreachable, ProviderTimeout, and ProviderAuthFailed for a key that no header can hold.
        """
        try:
            return await self._open().request(
                "POST",
                url,
                headers=headers,
                body=body,
                connect_timeout_s=min(self._settings.connect_timeout_s, deadline.left_s),
                head_timeout_s=deadline.left_s,
            )
        except HttpError as error:
            raise self._failed(error, deadline, begun=False) from error
        except ValueError:  # its cause may hold the key
            raise ProviderAuthFailed(
                f"{self.name} cannot be called: its key or an option does not fit into an HTTP header.",
                provider=self.name,
                fix="Look for line ends and characters beyond Latin-1 in them.",
            ) from None

    async def chunks(
        self, response: HttpResponse, progress: Progress, deadline: Deadline
    ) -> AsyncGenerator[bytes]:
        """The body as it comes. The first bytes may take the whole deadline, as models load; then silence is bounded."""
        idle_s = self._settings.idle_timeout_s
        while True:
            wait_s = _TAIL_S if progress.finished else deadline.left_s
            if progress.begun:
                wait_s = min(wait_s, idle_s)
            try:
                chunk = await response.next_chunk(min(wait_s, deadline.left_s))
            except HttpError as error:
                if progress.finished:  # only the end of the body is lost
                    return
                raise self._failed(error, deadline, begun=True) from error
            if not chunk:
                return
            progress.begun = True
            yield chunk

    async def body(self, response: HttpResponse, deadline: Deadline, limit: int = ANSWER_BYTES_MAX) -> bytes:
        """The whole body. Raises ProviderTimeout, ProviderStreamBroken."""
        try:
            return await response.read(limit, deadline.left_s)
        except HttpError as error:
            raise self._failed(error, deadline, begun=True) from error
        finally:
            response.close()

    async def refusal_body(self, response: HttpResponse, deadline: Deadline) -> bytes:
        """The body of an error answer, as far as it can be had: its status alone already says what to raise.

        Servers repeat what they were sent: our key and the server's address are taken out, as callers read the rest.
        """
        try:
            body = await self.body(response, deadline, ERROR_BYTES_MAX)
        except ProviderError:
            return b""
        for word in self._hidden():
            body = body.replace(word.encode(), b"***")
        return body

    def hide_in(self, error: ProviderError) -> None:
        """As in `refusal_body`, for an error that was told inside of an answer."""
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

    def _open(self) -> HttpClient:
        if self._client is None:
            self._client = PooledHttpClient()
        return self._client

    def _failed(self, error: HttpError, deadline: Deadline, begun: bool) -> ProviderError:
        if isinstance(error, HttpTimeout):
            what = (
                f"fell silent or took longer than {deadline.total_s:g} s"
                if begun
                else "did not answer in time"
            )
            return ProviderTimeout(f"{self.name} {what}.", provider=self.name)
        if begun or (isinstance(error, HttpBroken) and error.begun):
            return self.broken(f"broke off its answer ({error})")
        # Callers need not know where our providers are: the address is for the log.
        log.warning("%s cannot be reached at %s: %s", self.name, self.base_url, error)
        return ProviderUnreachable(f"{self.name} cannot be reached ({error}).", provider=self.name)
