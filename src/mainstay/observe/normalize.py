"""One vocabulary for spans of many dialects: a table from attribute names to ours (OpenTelemetry GenAI).

Sources: OpenTelemetry semantic conventions 1.26-1.41 and semantic-conventions-genai 0.1.0, OpenInference
0.1.42, and the attribute names that the Traceloop, Langfuse, MLflow and Vercel AI SDKs document. Raw
attributes are stored as they came; this mapping is applied when they are read, so a better table mends the past.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mainstay.core.money import NUSD_PER_USD
from mainstay.observe.messages import (
    event_messages,
    indexed_messages,
    messages_of,
    prefixed,
    spoken_by,
)
from mainstay.observe.types import Attr, AttributeValue, Span
from mainstay.observe.values import json_of, number, text, text_list, whole

MAPPING_VERSION = 1

Read = Callable[[Any], AttributeValue]


@dataclass(frozen=True, slots=True)
class Rule:
    """Our attribute, how its value is read, and the names it goes by, best first.

    `key#part` names a member of a JSON object under `key`; `@key` a resource attribute.
    """

    attribute: str
    read: Read
    names: tuple[str, ...]


def _usd(value: Any) -> int | None:
    dollars = number(value)
    return None if dollars is None else round(dollars * NUSD_PER_USD)


def _seconds_as_ms(value: Any) -> float | None:
    seconds = number(value)
    return None if seconds is None else seconds * 1_000


def _service(value: Any) -> str | None:
    name = text(value)
    return None if name is None or name.startswith("unknown_service") else name


_OPERATIONS: Mapping[str, str] = {
    "llm": "chat",
    "chat_model": "chat",
    "completion": "text_completion",
    "generation": "chat",
    "embedding": "embeddings",
    "retriever": "retrieval",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "workflow": "invoke_workflow",
}


def _operation(value: Any) -> str | None:
    name = text(value)
    return None if name is None else _OPERATIONS.get(name.lower(), name.lower())


RULES: tuple[Rule, ...] = (
    Rule(
        Attr.OPERATION,
        _operation,
        (
            "gen_ai.operation.name",
            "openinference.span.kind",
            "llm.request.type",
            "traceloop.span.kind",
            "langfuse.observation.type",
            "mlflow.spanType",
        ),
    ),
    Rule(
        Attr.PROVIDER,
        text,
        ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"),
    ),
    Rule(
        Attr.REQUEST_MODEL,
        text,
        (
            "gen_ai.request.model",
            "llm.request.model_name",
            "llm.model_name",
            "embedding.model_name",
            "langfuse.observation.model.name",
            "mlflow.llm.model",
            "ai.model.id",
        ),
    ),
    Rule(
        Attr.RESPONSE_MODEL,
        text,
        ("gen_ai.response.model", "llm.response.model_name", "ai.response.model"),
    ),
    Rule(
        Attr.INPUT_TOKENS,
        whole,
        (
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "llm.usage.prompt_tokens",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "mlflow.chat.tokenUsage#input_tokens",
            "langfuse.observation.usage_details#input",
        ),
    ),
    Rule(
        Attr.OUTPUT_TOKENS,
        whole,
        (
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "llm.usage.completion_tokens",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
            "mlflow.chat.tokenUsage#output_tokens",
            "langfuse.observation.usage_details#output",
        ),
    ),
    Rule(Attr.COST_NUSD, whole, (Attr.COST_NUSD,)),
    Rule(
        Attr.COST_NUSD,
        _usd,
        ("gen_ai.usage.cost", "llm.cost.total", "langfuse.observation.cost_details#total"),
    ),
    Rule(
        Attr.CONVERSATION,
        text,
        (
            "gen_ai.conversation.id",
            "session.id",
            "langfuse.session.id",
            "mlflow.trace.session",
            "traceloop.association.properties.session_id",
        ),
    ),
    Rule(
        Attr.USER,
        text,
        (
            "user.id",
            "enduser.id",
            "langfuse.user.id",
            "langfuse.trace.user_id",
            "mlflow.trace.user",
            "traceloop.association.properties.user_id",
        ),
    ),
    Rule(
        Attr.FINISH_REASONS,
        text_list,
        ("gen_ai.response.finish_reasons", "llm.finish_reason", "ai.response.finishReason"),
    ),
    Rule(Attr.ERROR_TYPE, text, ("error.type",)),
    Rule(Attr.APP, text, (Attr.APP, "@openinference.project.name")),
    Rule(Attr.APP, _service, ("@service.name",)),
    Rule(Attr.RELEASE, whole, (Attr.RELEASE,)),
    Rule(
        Attr.ENVIRONMENT,
        text,
        (Attr.ENVIRONMENT, "langfuse.environment", "@deployment.environment.name", "@deployment.environment"),
    ),
    Rule(Attr.TTFT_MS, number, (Attr.TTFT_MS, "ai.response.msToFirstChunk")),
    Rule(
        Attr.TTFT_MS,
        _seconds_as_ms,
        ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token"),
    ),
)

_PLAIN_INPUT = (
    "traceloop.entity.input",
    "langfuse.observation.input",
    "mlflow.spanInputs",
    "langfuse.trace.input",
    "ai.prompt.messages",
    "ai.prompt",
    "gen_ai.prompt",
    "input.value",
)
_PLAIN_OUTPUT = (
    "traceloop.entity.output",
    "langfuse.observation.output",
    "mlflow.spanOutputs",
    "langfuse.trace.output",
    "ai.response.text",
    "gen_ai.completion",
    "output.value",
)
_INDEXED_INPUT = ("gen_ai.prompt.", "llm.input_messages.", "llm.prompts.")
_INDEXED_OUTPUT = ("gen_ai.completion.", "llm.output_messages.")


def normal_attributes(span: Span) -> dict[str, AttributeValue]:
    """What the span says in our vocabulary: only attributes in `Attr`, only those it knows."""
    normal: dict[str, AttributeValue] = {}
    for rule in RULES:
        if rule.attribute not in normal:
            value = _first(rule, span)
            if value is not None:
                normal[rule.attribute] = value
    for attribute, messages in (
        (Attr.INPUT_MESSAGES, _input_messages(span)),
        (Attr.OUTPUT_MESSAGES, _output_messages(span)),
    ):
        if messages:
            normal[attribute] = messages
    if Attr.TTFT_MS not in normal:
        ttft_ms = _first_token_event(span)
        if ttft_ms is not None:
            normal[Attr.TTFT_MS] = ttft_ms
    return normal


def normalize_span(span: Span) -> Span:
    """The span with our attributes beside its own; where both have one, in our form."""
    return replace(span, attributes={**span.attributes, **normal_attributes(span)})


def _first(rule: Rule, span: Span) -> AttributeValue:
    for name in rule.names:
        raw: AttributeValue
        if name[0] == "@":
            raw = span.resource.get(name[1:])
        elif "#" in name:
            key, _, part = name.partition("#")
            found = json_of(span.attributes.get(key))
            raw = found.get(part) if isinstance(found, dict) else None
        else:
            raw = span.attributes.get(name)
        if raw is not None:
            value = rule.read(raw)
            if value is not None:
                return value
    return None


def _input_messages(span: Span) -> list[Any]:
    given = messages_of(span.attributes.get(Attr.INPUT_MESSAGES), "user")
    if given:
        return given
    keys = prefixed(span.attributes, _INDEXED_INPUT)
    if keys:
        return indexed_messages(span.attributes, keys, _INDEXED_INPUT, "user")
    from_events = [m for m in event_messages(span.events) if not spoken_by(m, "choice")]
    return from_events or _plain(span, _PLAIN_INPUT, "user")


def _output_messages(span: Span) -> list[Any]:
    given = messages_of(span.attributes.get(Attr.OUTPUT_MESSAGES), "assistant")
    if given:
        return given
    keys = prefixed(span.attributes, _INDEXED_OUTPUT)
    if keys:
        return indexed_messages(span.attributes, keys, _INDEXED_OUTPUT, "assistant")
    choices = [m for m in event_messages(span.events) if spoken_by(m, "choice")]
    from_events = [{**message, "role": "assistant"} for message in choices]
    return from_events or _plain(span, _PLAIN_OUTPUT, "assistant")


def _plain(span: Span, names: tuple[str, ...], role: str) -> list[Any]:
    for name in names:
        found = messages_of(span.attributes.get(name), role)
        if found:
            return found
    return []


def _first_token_event(span: Span) -> float | None:
    for event in span.events:
        if event.get("name") in ("First Token Stream Event", "gen_ai.content.first_token"):
            at = whole(event.get("time_ns"))
            return None if at is None else max(0, at - span.start_ns) / 1_000_000
    return None
