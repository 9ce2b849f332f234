"""Token counts without the provider's tokenizer: a ceiling for holding money, an estimate for showing.

The ceiling rests on one fact: byte-level BPE and byte-fallback tokenizers never need more than one token
a byte, so a text's UTF-8 length bounds its tokens. It is about four times too high for English prose,
which only makes a hold larger for a moment; the settled cost comes from the provider's own count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, runtime_checkable

from mainstay.models.types import ChatCall, ChatMessage, Target, Usage

MESSAGE_OVERHEAD_TOKENS: Final = 16
"""Role, separators and what a chat template adds per message; measured 5 to 8 on common templates."""


@runtime_checkable
class TokenCounter(Protocol):
    """A provider that can count exactly. None while it cannot (an engine that is not loaded yet)."""

    def count_tokens(self, text: str) -> int | None: ...


def token_ceiling(text: str) -> int:
    """No tokenizer in use makes more tokens of `text` than this."""
    return len(text.encode("utf-8", errors="replace"))


def token_estimate(text: str) -> int:
    """A likely count for showing, marked `estimated`: four ASCII characters or one other character a token."""
    ascii_characters = sum(1 for character in text if character < "\x80")
    return -(-ascii_characters // 4) + len(text) - ascii_characters


def count_tokens(text: str, target: Target) -> int:
    """Exact when the target's engine is loaded on this machine, else the ceiling."""
    if isinstance(target.provider, TokenCounter):
        exact = target.provider.count_tokens(text)
        if exact is not None:
            return exact
    return token_ceiling(text)


def message_token_ceiling(messages: Iterable[ChatMessage]) -> int:
    """An upper bound for a whole prompt, with what the chat template adds; no tokenizer is asked."""
    counts = (token_ceiling(m.content) + MESSAGE_OVERHEAD_TOKENS for m in messages)
    return sum(counts) + MESSAGE_OVERHEAD_TOKENS


def estimate_usage(call: ChatCall, output: str) -> Usage:
    """What a call probably used, when the provider did not say or was cut off."""
    prompt = sum(token_estimate(message.content) for message in call.messages)
    return Usage(input_tokens=prompt, output_tokens=token_estimate(output), estimated=True)
