"""Spans from parsed protobuf messages."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from mainstay.observe.otlp.checked import DEPTH_MAX, KINDS, STATUSES, Malformed, checked, parent_or_none
from mainstay.observe.types import AttributeValue, Span

Attributes = dict[str, AttributeValue]


def spans_in(request: ExportTraceServiceRequest) -> Iterator[partial[Span]]:
    """One reader for each span; calling it raises Malformed for a bad one."""
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            resource = _attributes(of_resource.resource.attributes) | _scope(of_scope.scope)
            for message in of_scope.spans:
                yield partial(_span, message, resource)


def _scope(scope: InstrumentationScope) -> Attributes:
    named: Attributes = {"otel.scope.name": scope.name, "otel.scope.version": scope.version}
    return {key: value for key, value in named.items() if value}


def _span(message: SpanMessage, resource: Attributes) -> Span:
    if message.kind >= len(KINDS) or message.status.code >= len(STATUSES):
        raise Malformed(f"span kind {message.kind} or status {message.status.code} is unknown")
    return checked(
        Span(
            trace_id=message.trace_id.hex(),
            span_id=message.span_id.hex(),
            parent_id=parent_or_none(message.parent_span_id.hex()),
            name=message.name,
            start_ns=message.start_time_unix_nano,
            end_ns=message.end_time_unix_nano,
            kind=KINDS[message.kind],
            status=STATUSES[message.status.code],
            status_message=message.status.message,
            attributes=_attributes(message.attributes),
            events=tuple(_event(event) for event in message.events),
            resource=resource,
            links=tuple(_link(link) for link in message.links),
        )
    )


def _event(event: SpanMessage.Event) -> dict[str, Any]:
    return {"name": event.name, "time_ns": event.time_unix_nano, "attributes": _attributes(event.attributes)}


def _link(link: SpanMessage.Link) -> dict[str, Any]:
    return {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "attributes": _attributes(link.attributes),
    }


def _attributes(pairs: Iterable[KeyValue], depth: int = 0) -> Attributes:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: AnyValue, depth: int) -> AttributeValue:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if depth > DEPTH_MAX:
        raise Malformed("attribute values are nested too deep")
    if kind == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values, depth + 1)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    found: AttributeValue = getattr(value, kind)
    return found
