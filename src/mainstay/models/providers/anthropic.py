"""Anthropic's Messages API, spoken natively."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from mainstay.models.errors import ProviderError
from mainstay.models.http import HttpClient
from mainstay.models.providers.answers import Malformed, NotJson
from mainstay.models.providers.anthropic_answers import (
    AnthropicStream,
    decode_count,
    decode_error,
    decode_message,
)
from mainstay.models.providers.anthropic_wire import FORMAT, encode, encode_count
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.providers.skipping import Skips
from mainstay.models.providers.upstream import Deadline, Progress, Upstream
from mainstay.models.sse import SseReader, SseTooLarge
from mainstay.models.tokens import estimate_usage
from mainstay.models.types import Capability, ChatCall, Completion, Delta, WireFormat

BASE_URL: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"


@PROVIDER_KINDS.register("anthropic")
class Anthropic:
    """One account at Anthropic, or at a server that speaks its format.

    `base_url` is with or without `/v1`, and Anthropic's own when it is empty. `options["beta"]` are names of beta
    features, separated by commas, sent as `anthropic-beta`. Newer models refuse `temperature`, `top_p` and
    `top_k`, older ones `output_config`: a Target's `supports` says what a model lacks.
    """

    supports: frozenset[Capability] = frozenset(
        {
            "tools",
            "parallel_tool_calls",
            "json_schema",
            "images",
            "files",
            "reasoning",
            "stop",
            "temperature",
            "top_p",
            "top_k",
        }
    )
    wire_format: WireFormat | None = FORMAT

    def __init__(self, settings: HttpProviderSettings, client: HttpClient | None = None) -> None:
        self.name = settings.name
        self._upstream = Upstream(settings, settings.base_url or BASE_URL, client)
        self._url = f"{self._upstream.base_url.removesuffix('/v1')}/v1/messages"
        self._headers = {"Content-Type": "application/json", "anthropic-version": VERSION}
        if settings.api_key is not None:
            self._headers["x-api-key"] = settings.api_key.reveal()
        beta = settings.option("beta")
        if beta is not None:
            self._headers["anthropic-beta"] = beta

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when there is none) comes with or after the finish.

        Raises ProviderError before or between deltas; a stream without `message_stop` raises
        ProviderStreamBroken. Events are relayed as `raw` when the client speaks this format.
        """
        body = encode(call, self.name, stream=True)
        reader = AnthropicStream(self.name, raw=call.relay and call.source_format == FORMAT)
        text: list[str] = []
        async with aclosing(self._events(body, reader, deadline_s)) as events:
            async for delta in events:
                text += (delta.text, delta.reasoning)
                yield delta
        if not reader.finished:
            raise self._upstream.broken("ended its stream without message_stop")
        if reader.usage is None:
            yield Delta(usage=estimate_usage(call, "".join(text)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        body = await self._ask(self._url, encode(call, self.name, stream=False), deadline_s)
        try:
            return decode_message(body, raw=call.source_format == FORMAT)
        except Malformed as error:
            raise self._upstream.broken(f"sent a message we cannot read ({error})") from error

    async def count_call_tokens(self, call: ChatCall, deadline_s: float = 30.0) -> int:
        """Input tokens of the call by Anthropic's own count, which costs nothing. Raises ProviderError."""
        body = await self._ask(f"{self._url}/count_tokens", encode_count(call, self.name), deadline_s)
        try:
            return decode_count(body)
        except Malformed as error:
            raise self._upstream.broken(f"sent a count we cannot read ({error})") from error

    async def close(self) -> None:
        await self._upstream.close()

    async def _ask(self, url: str, body: bytes, deadline_s: float) -> bytes:
        return await self._upstream.ask(url, self._headers, body, Deadline(deadline_s), decode_error)

    async def _events(self, body: bytes, reader: AnthropicStream, deadline_s: float) -> AsyncGenerator[Delta]:
        deadline, progress, lines = Deadline(deadline_s), Progress(), SseReader()
        skips = Skips(self.name)
        headers = self._headers | {"Accept": "text/event-stream"}
        response = await self._upstream.open(self._url, headers, body, deadline, decode_error)
        try:
            async with aclosing(self._upstream.chunks(response, progress, deadline)) as chunks:
                async for chunk in chunks:
                    for event in lines.feed(chunk):
                        try:
                            delta = reader.take(event.data)
                        except NotJson as error:
                            skips.unreadable(error)
                            continue
                        skips.readable()
                        progress.finished = reader.finished
                        if delta is not None:
                            yield delta
        except ProviderError as error:
            self._upstream.hide_in(error)
            raise
        except (Malformed, SseTooLarge) as error:
            raise self._upstream.broken(f"sent an event we cannot read ({error})") from error
        finally:
            response.close()
