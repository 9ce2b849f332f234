"""Token counts without the provider's tokenizer: a ceiling for holding money, an estimate for showing.

The ceiling rests on one fact: byte-level BPE and byte-fallback tokenizers never need more than one token
a byte, so a text's UTF-8 length bounds its tokens. It is about four times too high for English prose,
which only makes a hold larger for a moment; the settled cost comes from the provider's own count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from mainstay.models.types import ChatCall, ChatMessage, MediaPart, Part, TextPart, Usage

MESSAGE_OVERHEAD_TOKENS: Final = 16
"""Role, separators and what a chat template adds per message; measured 5 to 8 on common templates."""

TOOLS_OVERHEAD_TOKENS: Final = 1024
"""What providers tell a model of its tools, or of a schema to keep, before the first: documented up to 530."""

TOOL_OVERHEAD_TOKENS: Final = 64
"""What they write around each."""

IMAGE_TOKENS: Final = 49_152
"""The dearest documented rule is gpt-4o-mini's: 2,833 and 5,667 for each of at most 8 tiles, so 48,169."""

LOW_DETAIL_IMAGE_TOKENS: Final = 3_072
FILE_TOKENS: Final = 65_536
TOKENS_MAX: Final = 100_000_000
"""More than this no one call can use; the longest contexts of 2026 are a tenth of it."""
_COUNTED: Final = frozenset({"role", "content", "tool_calls", "tool_call_id"})
"""Members of a message that the normal form holds, whatever else stands beside them."""
_PIECE_CHARACTERS: Final = 1 << 16


def believable_count(value: object) -> int | None:
    """A count of tokens as a provider tells it; None when absent or impossible: below zero it would pay money
    back, and one slip of a server's must not empty a budget."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= TOKENS_MAX else None


def token_ceiling(text: str) -> int:
    """No tokenizer in use makes more tokens of `text` than this: the length of its UTF-8.

    ASCII text, told at no cost, is as many bytes as characters; other text is encoded in bounded pieces.
    """
    if text.isascii():
        return len(text)
    if len(text) <= _PIECE_CHARACTERS:
        return len(text.encode("utf-8", errors="replace"))
    pieces = (text[at : at + _PIECE_CHARACTERS] for at in range(0, len(text), _PIECE_CHARACTERS))
    return sum(len(piece.encode("utf-8", errors="replace")) for piece in pieces)


def token_estimate(text: str) -> int:
    """A likely count for showing, marked `estimated`: four ASCII characters or one other character a token."""
    others = 0 if text.isascii() else len(text) - len(text.encode("ascii", errors="ignore"))
    return -(-(len(text) - others) // 4) + others


def message_token_ceiling(messages: Iterable[ChatMessage]) -> int:
    """An upper bound for a whole prompt, with what the chat template adds; no tokenizer is asked."""
    tokens = MESSAGE_OVERHEAD_TOKENS
    for message in messages:
        tokens += MESSAGE_OVERHEAD_TOKENS + _message(message, token_ceiling)
    return tokens


def call_token_ceiling(call: ChatCall) -> int:
    """As message_token_ceiling, with the tools and the schema of the answer, which are part of the prompt too."""
    tokens = message_token_ceiling(call.messages)
    if call.tools or call.response_format is not None:
        schemas = [token_ceiling(schema) + TOOL_OVERHEAD_TOKENS for schema in _schemas(call)]
        tokens += TOOLS_OVERHEAD_TOKENS + sum(schemas)
    return tokens if call.source is None else tokens + _unread(call.source)


def estimate_usage(call: ChatCall, output: str) -> Usage:
    """What a call probably used, when the provider did not say or was cut off. Media count as their ceilings."""
    prompt = sum(_message(message, token_estimate) for message in call.messages)
    prompt += sum(map(token_estimate, _schemas(call)))
    return Usage(input_tokens=prompt, output_tokens=token_estimate(output), estimated=True)


def media_token_ceiling(part: MediaPart) -> int:
    """A bound for one image, file or sound that any vendor's rule stays under.

    An image costs by its tiles, not its bytes; the dearest documented rule ends below IMAGE_TOKENS. A file or
    sound is bounded by its base64, as no byte of it makes more than a token; a PDF is shown to models as page
    images too, so no file counts less than FILE_TOKENS. Unseen ones (by URL or id) count as FILE_TOKENS.
    """
    if part.kind == "image":
        return LOW_DETAIL_IMAGE_TOKENS if part.detail == "low" else IMAGE_TOKENS
    return max(FILE_TOKENS, len(part.data) if part.data is not None else 0)


def _message(message: ChatMessage, count: Callable[[str], int]) -> int:
    tokens = _parts(message.parts, count) if message.parts else count(message.content)
    if message.tool_calls:
        for call in message.tool_calls:
            tokens += count(call.name) + count(call.arguments) + MESSAGE_OVERHEAD_TOKENS
    if message.thinking:
        for thought in message.thinking:
            tokens += count(thought.text) + count(thought.encrypted or "")
    return tokens + (count(message.name) if message.name else 0)


def _parts(parts: Iterable[Part], count: Callable[[str], int]) -> int:
    tokens = 0
    for part in parts:
        tokens += count(part.text) if isinstance(part, TextPart) else media_token_ceiling(part)
    return tokens


def _unread(source: Mapping[str, Any]) -> int:
    """A bound for what else the messages of a client's own body hold: it is passed on, so it may be read."""
    tokens = 0
    for message in source.get("messages") or ():
        if len(message) > 2:
            tokens += sum(len(orjson.dumps(message[name])) for name in message.keys() - _COUNTED)
    return tokens


def _schemas(call: ChatCall) -> Iterator[str]:
    for tool in call.tools:
        yield f"{tool.name} {tool.description or ''} {_json(tool.parameters)}"
    if call.response_format is not None:
        yield f"{call.response_format.name} {_json(call.response_format.schema)}"


def _json(schema: object) -> str:
    return "" if schema is None else orjson.dumps(schema, default=dict).decode()
