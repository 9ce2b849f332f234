"""The adapters under one contract: each beside the server of its vendor, and how that server plays the same parts.

Every server greets with "Hello world", and takes scripts in the words of its `Reply` (`silent_after` and the like).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from mainstay.core.secret import Secret
from mainstay.models import ChatCall, ChatMessage, ChatProvider, Delta, ProviderError, Usage
from mainstay.models.providers import HttpProviderSettings, OpenAiCompatible
from mainstay.models.providers.anthropic import Anthropic
from mainstay.models.providers.bedrock import Bedrock
from mainstay.models.providers.gemini import Gemini
from mainstay.models.providers.ollama import Ollama
from support import anthropic_server, bedrock_server, gemini_server, ollama_server, openai_server
from support.anthropic_server import AnthropicServer, Reply, ScriptedServer
from support.bedrock_server import CREDENTIALS, REGION, BedrockServer
from support.gemini_server import GeminiServer
from support.ollama_server import OllamaServer
from support.openai_server import OpenAiServer

Script = Any
"""The Reply of the vendor's server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One kind of provider. `settings` lack the address alone.

    Of the frames of a greeting `first` bring the first text, the one at `end` ends the answer, and `frames` are all.
    `texts` are its pieces; those that a stream cut before its end has brought are `texts_before_end`.
    """

    id: str
    kind: str
    provider: Callable[[HttpProviderSettings], ChatProvider]
    settings: HttpProviderSettings
    server: Callable[[], ScriptedServer | OpenAiServer]
    greets: Callable[..., Script]
    first: int
    end: int
    frames: int
    unended: Script
    """A greeting that stops, properly, before its end."""
    ended_by: str | None = None
    """What the adapter says was missing then."""
    uncounted: tuple[Script, ...]
    """Greetings without their usage."""
    slow_down: Mapping[str, Any]
    """The `error` of a 429."""
    model: str
    answering_model: str | None
    usage: Usage
    texts: tuple[str, ...] = ("Hell", "o wo", "rld")
    texts_before_end: tuple[str, ...] = ("Hell", "o wo", "rld")
    options_beside_key: Mapping[str, str] = field(default_factory=dict)

    def make(self, base_url: str, **changes: Any) -> Any:
        """The provider, `changes` made to its settings."""
        return self.provider(replace(self.settings, base_url=base_url, **changes))

    def call(self, **more: Any) -> ChatCall:
        return ChatCall(**{"model": self.model, "messages": (ChatMessage("user", "Hi"),), **more})

    @property
    def secrets(self) -> list[str]:
        given = (self.settings.api_key, *self.settings.options.values())
        return [secret.reveal() for secret in given if isinstance(secret, Secret)]


async def deltas(provider: ChatProvider, chat: ChatCall, deadline_s: float = 5.0) -> list[Delta]:
    return [delta async for delta in provider.stream(chat, deadline_s)]


async def failures(provider: ChatProvider, chat: ChatCall, deadline_s: float = 5.0) -> list[ProviderError]:
    """How the call fails, streamed and whole."""
    with pytest.raises(ProviderError) as streamed:
        await deltas(provider, chat, deadline_s)
    with pytest.raises(ProviderError) as whole:
        await provider.complete(chat, deadline_s)
    return [streamed.value, whole.value]


async def broken_off(
    provider: ChatProvider, chat: ChatCall, deadline_s: float = 5.0
) -> tuple[str, ProviderError]:
    """What a stream says until it fails, and how it fails."""
    said = ""
    try:
        async for delta in provider.stream(chat, deadline_s):
            said += delta.text
    except ProviderError as error:
        return said, error
    pytest.fail(f"a whole answer came: {said!r}")


def settings(name: str, key: str | None = None, **options: str | Secret) -> HttpProviderSettings:
    return HttpProviderSettings(
        name, "", Secret(key) if key else None, connect_timeout_s=2.0, idle_timeout_s=0.3, options=options
    )


# --- Anthropic --------------------------------------------------------------------------------------------------


def anthropic_greets(**script: Any) -> Reply:
    return Reply(anthropic_server.message(anthropic_server.text("Hello world")), **script)


_FRAMES = len(anthropic_server.stream(anthropic_greets().answer))

ANTHROPIC: Final = Adapter(
    id="anthropic",
    kind="anthropic",
    provider=Anthropic,
    settings=settings("claude", "sk-ant-secret"),
    server=AnthropicServer,
    greets=anthropic_greets,
    first=4,
    end=_FRAMES - 1,
    frames=_FRAMES,
    unended=anthropic_greets(end_after=_FRAMES - 1),
    ended_by="message_stop",
    uncounted=(Reply({**anthropic_greets().answer, "usage": {}}),),
    slow_down={"type": "rate_limit_error", "message": "slow down"},
    model="claude-test-1",
    answering_model="claude-test-1",
    usage=Usage(
        input_tokens=37,
        output_tokens=9,
        cached_input_tokens=20,
        reasoning_tokens=5,
        cache_write_tokens=7,
        cache_write_1h_tokens=3,
    ),
)


# --- Bedrock ----------------------------------------------------------------------------------------------------

BEDROCK_HELLO: Final = bedrock_server.answer({"text": "Hello world"})


def bedrock_greets(**script: Any) -> Reply:
    return Reply(BEDROCK_HELLO, **script)


BEDROCK: Final = Adapter(
    id="bedrock",
    kind="bedrock",
    provider=Bedrock,
    settings=settings(
        "aws",
        region=REGION,
        access_key_id=CREDENTIALS.access_key_id,
        secret_access_key=CREDENTIALS.secret_access_key,
        session_token=CREDENTIALS.session_token or "",
    ),
    server=BedrockServer,
    greets=bedrock_greets,
    first=2,
    end=5,
    frames=7,  # the last one tells the usage
    unended=bedrock_greets(end_after=5),
    uncounted=(Reply({name: value for name, value in BEDROCK_HELLO.items() if name != "usage"}),),
    slow_down={"name": "ThrottlingException"},
    options_beside_key={"region": REGION},
    model="m.one-v1:0",
    answering_model=None,
    usage=Usage(
        input_tokens=37,
        output_tokens=9,
        cached_input_tokens=20,
        cache_write_tokens=7,
        cache_write_1h_tokens=3,
    ),
)


# --- Gemini -----------------------------------------------------------------------------------------------------

GEMINI_HELLO: Final = gemini_server.answer(gemini_server.text("Hello world"))


def gemini_greets(**script: Any) -> Reply:
    return Reply(GEMINI_HELLO, **script)


def gemini_of_arrays() -> GeminiServer:
    """Behind a gateway that drops `alt=sse`: a stream is one JSON array."""
    server = GeminiServer()
    server.drops_sse = True
    return server


GEMINI: Final = Adapter(
    id="gemini",
    kind="gemini",
    provider=Gemini,
    settings=settings("gemini", "AIza-secret"),
    server=GeminiServer,
    greets=gemini_greets,
    first=1,
    end=2,
    frames=3,
    unended=gemini_greets(end_after=2),
    ended_by="finishReason",
    uncounted=(Reply({**GEMINI_HELLO, "usageMetadata": {}}),),
    slow_down=gemini_server.status_error(429, "RESOURCE_EXHAUSTED"),
    model="gemini-test",
    answering_model="gemini-test-001",
    usage=Usage(30, 9, cached_input_tokens=20, reasoning_tokens=5),
    texts_before_end=("Hell", "o wo"),  # the last piece comes with the end
)

GEMINI_ARRAYS: Final = replace(GEMINI, id="gemini-arrays", server=gemini_of_arrays)


# --- Ollama -----------------------------------------------------------------------------------------------------

OLLAMA_HELLO: Final = ollama_server.answer("Hello world")


def ollama_greets(**script: Any) -> Reply:
    return Reply(OLLAMA_HELLO, **script)


def _without(name: str) -> Reply:
    return Reply({key: value for key, value in OLLAMA_HELLO.items() if key != name})


OLLAMA: Final = Adapter(
    id="ollama",
    kind="ollama",
    provider=Ollama,
    settings=settings("ollama", "ollama-secret"),
    server=OllamaServer,
    greets=ollama_greets,
    first=1,
    end=3,
    frames=4,
    unended=ollama_greets(end_after=3),
    ended_by="before it was done",
    uncounted=(_without("prompt_eval_count"), _without("eval_count")),
    slow_down={"error": "slow down"},
    model="qwen3:4b",
    answering_model="qwen3:4b",
    usage=Usage(26, 9),
)


# --- OpenAI and compatible --------------------------------------------------------------------------------------

OPENAI: Final = Adapter(
    id="openai",
    kind="openai",
    provider=OpenAiCompatible,
    settings=settings("vendor", "sk-test-key"),
    server=OpenAiServer,
    greets=openai_server.Reply,
    first=1,
    end=2,
    frames=5,
    unended=openai_server.Reply(finish_reason=None),
    uncounted=(openai_server.Reply(usage=None),),
    slow_down={"code": "rate_limit_exceeded"},
    model="m",
    answering_model="m",
    usage=Usage(11, 3),
    texts=("Hello", " world"),
    texts_before_end=("Hello", " world"),
)

ADAPTERS: Final = (ANTHROPIC, BEDROCK, GEMINI, GEMINI_ARRAYS, OLLAMA, OPENAI)
