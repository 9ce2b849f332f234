"""Spans into a protobuf ExportTraceServiceRequest, so that any OpenTelemetry back end reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from mainstay.observe.otlp.checked import STATUSES
from mainstay.observe.types import Attr, Span

_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_SCOPE = {"otel.scope.name": "name", "otel.scope.version": "version"}
_MESSAGES = (Attr.INPUT_MESSAGES, Attr.OUTPUT_MESSAGES)


def encode(spans: Sequence[Span]) -> bytes:
    """The request's bytes; spans of one resource and scope stand together.

    Structured attributes become JSON strings, as back ends take only scalars and their arrays on spans;
    messages get the `parts` of the OpenTelemetry GenAI conventions.
    """
    request = ExportTraceServiceRequest()
    groups: dict[bytes, ScopeSpans] = {}
    for span in spans:
        key = orjson.dumps(dict(span.resource), option=orjson.OPT_SORT_KEYS, default=str)
        if key not in groups:
            groups[key] = _new_group(request, span.resource)
        groups[key].spans.append(_span(span))
    return bytes(request.SerializeToString())


def _new_group(request: ExportTraceServiceRequest, resource: Mapping[str, Any]) -> ScopeSpans:
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.extend(_pairs({k: v for k, v in resource.items() if k not in _SCOPE}))
    of_scope: ScopeSpans = of_resource.scope_spans.add()
    for attribute, member in _SCOPE.items():
        setattr(of_scope.scope, member, str(resource.get(attribute) or ""))
    return of_scope


def _span(span: Span) -> SpanMessage:
    message = SpanMessage(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
        name=_sound(span.name),
        kind=_KINDS[span.kind],  # type: ignore[arg-type]
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_pairs({**span.attributes, **_with_parts(span.attributes)}),
    )
    message.status.code = STATUSES.index(span.status)  # type: ignore[assignment]
    message.status.message = _sound(span.status_message)
    for event in span.events:
        message.events.add(
            name=_sound(str(event.get("name", ""))),
            time_unix_nano=int(event.get("time_ns") or 0),
            attributes=_pairs(event.get("attributes") or {}),
        )
    for link in span.links:
        message.links.add(
            trace_id=bytes.fromhex(link["trace_id"]),
            span_id=bytes.fromhex(link["span_id"]),
            attributes=_pairs(link.get("attributes") or {}),
        )
    return message


def _with_parts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_message(message) for message in attributes[name]]
        for name in _MESSAGES
        if isinstance(attributes.get(name), list)
    }


def _message(message: Any) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        return message
    rest = {key: value for key, value in message.items() if key != "content"}
    return {**rest, "parts": [{"type": "text", "content": message["content"]}]}


def _pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=_sound(str(key)), value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    scalar = _scalar(value)
    if scalar is not None:
        return scalar
    message = AnyValue()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        message.array_value.values.extend(AnyValue(string_value=_sound(item)) for item in value)
    elif isinstance(value, list | dict):
        message.string_value = _sound(orjson.dumps(value, default=str).decode())
    elif value is not None:
        message.string_value = _sound(str(value))
    return message


def _scalar(value: Any) -> AnyValue | None:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=_sound(value)) if isinstance(value, str) else None


def _sound(text: str) -> str:
    """Without lone surrogates, which protobuf refuses."""
    return text.encode("utf-8", "replace").decode()
