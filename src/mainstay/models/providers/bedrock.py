"""Amazon Bedrock by its Converse and ConverseStream operations."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from mainstay.core.errors import ConfigError
from mainstay.core.secret import Secret
from mainstay.models.errors import ProviderError
from mainstay.models.http import HttpClient
from mainstay.models.providers.answers import Malformed
from mainstay.models.providers.aws_eventstream import EventStreamCorrupt, EventStreamReader
from mainstay.models.providers.aws_sigv4 import AwsCredentials, sign
from mainstay.models.providers.bedrock_answers import ConverseStream, decode_answer, decode_error
from mainstay.models.providers.bedrock_wire import encode
from mainstay.models.providers.registry import PROVIDER_KINDS, HttpProviderSettings
from mainstay.models.providers.upstream import Deadline, Progress, Upstream
from mainstay.models.tokens import estimate_usage
from mainstay.models.types import Capability, ChatCall, Completion, Delta, WireFormat

_SERVICE: Final = "bedrock"


@PROVIDER_KINDS.register("bedrock")
class Bedrock:
    """One AWS account in one region.

    `base_url` may be empty: then it is the region's public endpoint. Options: `region` (else `AWS_REGION`,
    `AWS_DEFAULT_REGION`, or what the URL says); `access_key_id`, `secret_access_key`, `session_token`;
    `family` of models whose id does not name it; `beta` features of Claude, separated by commas;
    `guardrail_id` and `guardrail_version`. A Bedrock API key is the settings' `api_key`. Without any of
    these, the environment is asked: `AWS_BEARER_TOKEN_BEDROCK`, then `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, once, when the provider is made.
    """

    supports: frozenset[Capability] = frozenset(
        {
            "tools",
            "json_schema",
            "images",
            "files",
            "audio",
            "reasoning",
            "stop",
            "temperature",
            "top_p",
            "top_k",
        }
    )
    wire_format: WireFormat | None = None

    def __init__(
        self,
        settings: HttpProviderSettings,
        client: HttpClient | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.name = settings.name
        self._region = _region(settings, environment)
        self._auth = _credentials(settings, environment)
        suffix = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        base_url = settings.base_url or f"https://bedrock-runtime.{self._region}.{suffix}"
        self._upstream = Upstream(settings, base_url, client)
        self._family = settings.option("family")
        self._beta = tuple(filter(None, (settings.option("beta") or "").split(",")))
        self._guardrail = _guardrail(settings)

    async def stream(self, call: ChatCall, deadline_s: float) -> AsyncGenerator[Delta]:
        """Deltas as they come; usage (estimated when there is none) comes after the finish.

        Raises ProviderError before or between deltas; a stream without `messageStop` raises ProviderStreamBroken.
        """
        body = self._encode(call)
        reader = ConverseStream(self.name)
        text: list[str] = []
        async with aclosing(
            self._events(self._url(call, "converse-stream"), body, reader, deadline_s)
        ) as events:
            async for delta in events:
                text += (delta.text, delta.reasoning)
                yield delta
        if not reader.finished:
            raise self._upstream.broken("ended its stream without messageStop")
        if reader.usage is None:
            yield Delta(usage=estimate_usage(call, "".join(text)))

    async def complete(self, call: ChatCall, deadline_s: float) -> Completion:
        url, body = self._url(call, "converse"), self._encode(call)
        headers = self._headers(url, body, "application/json")
        answer = await self._upstream.ask(url, headers, body, Deadline(deadline_s), decode_error)
        try:
            return decode_answer(answer)
        except Malformed as error:
            raise self._upstream.broken(f"sent an answer we cannot use ({error})") from error

    async def close(self) -> None:
        await self._upstream.close()

    async def _events(
        self, url: str, body: bytes, reader: ConverseStream, deadline_s: float
    ) -> AsyncGenerator[Delta]:
        deadline, progress, messages = Deadline(deadline_s), Progress(), EventStreamReader()
        headers = self._headers(url, body, "application/vnd.amazon.eventstream")
        response = await self._upstream.open(url, headers, body, deadline, decode_error)
        try:
            async with aclosing(self._upstream.chunks(response, progress, deadline)) as chunks:
                async for chunk in chunks:
                    for message in messages.feed(chunk):
                        delta = reader.take(message)
                        progress.finished = reader.finished
                        if delta is not None:
                            yield delta
            if messages.pending_bytes and not reader.finished:
                raise self._upstream.broken("ended its stream within an event")
        except ProviderError as error:
            self._upstream.hide_in(error)
            raise
        except (Malformed, EventStreamCorrupt) as error:
            raise self._upstream.broken(f"sent an event we cannot use ({error})") from error
        finally:
            response.close()

    def _url(self, call: ChatCall, operation: str) -> str:
        return f"{self._upstream.base_url}/model/{quote(call.model, safe='')}/{operation}"

    def _encode(self, call: ChatCall) -> bytes:
        return encode(call, self.name, family=self._family, beta=self._beta, guardrail=self._guardrail)

    def _headers(self, url: str, body: bytes, accept: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": accept}
        if isinstance(self._auth, Secret):
            return headers | {"Authorization": f"Bearer {self._auth.reveal()}"}
        return sign(
            self._auth,
            method="POST",
            url=url,
            headers=headers,
            body=body,
            region=self._region,
            service=_SERVICE,
            at=datetime.now(tz=UTC),
        )


def _region(settings: HttpProviderSettings, environment: Mapping[str, str]) -> str:
    in_url = re.search(r"//bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.", settings.base_url)
    region = (
        settings.option("region")
        or (in_url.group(1) if in_url else None)
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
    )
    if region is None:
        raise ConfigError(
            f"Provider {settings.name!r} does not say in which AWS region it is.",
            fix="Set its option `region`, e.g. us-east-1, or AWS_REGION.",
        )
    return region


def _credentials(settings: HttpProviderSettings, environment: Mapping[str, str]) -> AwsCredentials | Secret:
    """What is configured for this provider comes before the environment; a Secret is a bearer token."""
    key_id, secret = settings.option("access_key_id"), settings.option("secret_access_key")
    if key_id and secret:
        token = settings.option("session_token")
        return AwsCredentials(key_id, Secret(secret), Secret(token) if token else None)
    if settings.api_key is not None:
        return settings.api_key
    if environment.get("AWS_BEARER_TOKEN_BEDROCK"):
        return Secret(environment["AWS_BEARER_TOKEN_BEDROCK"])
    key_id, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        token = environment.get("AWS_SESSION_TOKEN")
        return AwsCredentials(key_id, Secret(secret), Secret(token) if token else None)
    raise ConfigError(
        f"Provider {settings.name!r} has no AWS credentials.",
        fix="Set its options `access_key_id` and `secret_access_key`, its API key, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK.",
    )


def _guardrail(settings: HttpProviderSettings) -> dict[str, str] | None:
    guardrail = settings.option("guardrail_id")
    if guardrail is None:
        return None
    version = settings.option("guardrail_version") or "DRAFT"
    return {"guardrailIdentifier": guardrail, "guardrailVersion": version}
