"""Leaving content out of telemetry: texts go, while ids, roles, counts, scores and times stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mainstay.observe.types import AttributeValue, Span

TEXT_CHARS_MAX = 200
"""Other texts longer than this are dropped too: content may hide under names we do not know."""

_CONTENT = re.compile(
    r"""gen_ai\.(prompt|completion)(\.\d+\.(content|tool_calls.*))?$
    |gen_ai\.system_instructions$
    |gen_ai\.tool\.call\.(arguments|result)$
    |gen_ai\.retrieval\.query\.text$
    |gen_ai\.event\.content$
    |(input|output)\.value$
    |llm\.(input_messages|output_messages)\.\d+\.message\.(content.*|contents\..*|tool_calls\..*arguments)$
    |llm\.prompt_template\..*
    |llm\.prompts\..*
    |retrieval\.documents\.\d+\.document\.(content|metadata)$
    |reranker\.(query|(input|output)_documents\.\d+\.document\.content)$
    |embedding\.embeddings\.\d+\.embedding\.(text|vector)$
    |tool\.parameters$
    |traceloop\.entity\.(input|output)$
    |langfuse\.(observation|trace)\.(input|output)$
    |mlflow\.span(Inputs|Outputs)$
    |ai\.(prompt.*|response\.(text|object|toolCalls)|toolCall\.(args|result))$
    """,
    re.VERBOSE,
)
_TEXT_KEYS = frozenset(
    (
        "content",
        "text",
        "quote",
        "excerpt",
        "arguments",
        "response",
        "result",
        "reasoning",
        "title",
        "message",
        "body",
        "data",
        "metadata",
        "query",
        "question",
        "answer",
        "snippet",
        "heading_path",
    )
)


def redact_content(span: Span) -> Span:
    """The span without prompts, answers and passages. What remains says that they were, not what they said.

    Error texts (`status_message`, exception events) stay: without them a failure cannot be understood.
    """
    return replace(
        span,
        attributes=_attributes(span.attributes),
        events=tuple(_event(event) for event in span.events),
    )


def _attributes(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    kept = {key: _value(value) for key, value in attributes.items() if not _CONTENT.match(key)}
    return {key: value for key, value in kept.items() if value is not None}


def _event(event: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = event.get("attributes") or {}
    if event.get("name") == "exception":
        return event
    return {**event, "attributes": _value({k: v for k, v in attributes.items() if not _CONTENT.match(k)})}


def _value(value: AttributeValue) -> AttributeValue:
    """Structures keep their shape without their texts; a long text, which may be content, goes whole."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX and not value.startswith(("{", "[")) else None
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items() if key not in _TEXT_KEYS}
    return value
