"""Spans from OTLP/JSON: hex ids, camelCase names, enums as numbers, 64-bit integers as strings or numbers.

OTLP specification, "JSON Protobuf Encoding". Unknown members are ignored, null counts as absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar

from mainstay.observe.otlp.checked import (
    DEPTH_MAX,
    INT64_MAX,
    KINDS,
    STATUSES,
    Malformed,
    checked,
    parent_or_none,
)
from mainstay.observe.types import AttributeValue, Span

T = TypeVar("T")

_HEX = frozenset("0123456789abcdef")
_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def spans_in(request: Any) -> Iterator[partial[Span]]:
    """One reader for each span; calling it raises Malformed for a bad one, as this does for a bad request."""
    groups = [
        (_object(of_resource, "resourceSpans"), _object(of_scope, "scopeSpans"))
        for of_resource in _list(_object(request, "request"), "resourceSpans")
        for of_scope in _list(_object(of_resource, "resourceSpans"), "scopeSpans")
    ]
    return iter(
        [
            partial(_span, raw, of_resource, of_scope)
            for of_resource, of_scope in groups
            for raw in _list(of_scope, "spans")
        ]
    )


def _span(raw: Any, of_resource: dict[str, Any], of_scope: dict[str, Any]) -> Span:
    span = _object(raw, "span")
    status = _object(span.get("status") or {}, "status")
    return checked(
        Span(
            trace_id=_id(span, "traceId"),
            span_id=_id(span, "spanId"),
            parent_id=parent_or_none(_id(span, "parentSpanId")),
            name=_text(span, "name"),
            start_ns=_int(span.get("startTimeUnixNano") or 0, "startTimeUnixNano"),
            end_ns=_int(span.get("endTimeUnixNano") or 0, "endTimeUnixNano"),
            kind=_enum(span.get("kind") or 0, KINDS, "kind"),
            status=_enum(status.get("code") or 0, STATUSES, "status"),
            status_message=_text(status, "message"),
            attributes=_attributes(span),
            events=tuple(_event(_object(event, "event")) for event in _list(span, "events")),
            resource=_resource(of_resource, of_scope),
            links=tuple(_link(_object(link, "link")) for link in _list(span, "links")),
        )
    )


def _resource(of_resource: dict[str, Any], of_scope: dict[str, Any]) -> dict[str, AttributeValue]:
    resource = _attributes(_object(of_resource.get("resource") or {}, "resource"))
    scope = _object(of_scope.get("scope") or {}, "scope")
    for member in ("name", "version"):
        if scope.get(member):
            resource[f"otel.scope.{member}"] = _text(scope, member)
    return resource


def _event(event: dict[str, Any]) -> dict[str, Any]:
    time_ns = _int(event.get("timeUnixNano") or 0, "event's timeUnixNano")
    return {"name": _text(event, "name"), "time_ns": time_ns, "attributes": _attributes(event)}


def _link(link: dict[str, Any]) -> dict[str, Any]:
    return {
        "trace_id": _id(link, "traceId"),
        "span_id": _id(link, "spanId"),
        "attributes": _attributes(link),
    }


def _attributes(owner: dict[str, Any], depth: int = 0) -> dict[str, AttributeValue]:
    member = "values" if depth else "attributes"
    pairs = [_object(pair, "attribute") for pair in _list(owner, member)]
    return {_text(pair, "key"): _value(pair.get("value"), depth) for pair in pairs}


def _value(raw: Any, depth: int) -> AttributeValue:
    if raw is None or raw == {}:
        return None
    if depth > DEPTH_MAX:
        raise Malformed("attribute values are nested too deep")
    for kind, value in _object(raw, "attribute value").items():
        if kind == "arrayValue":
            return [_value(item, depth + 1) for item in _list(_object(value, kind), "values")]
        if kind == "kvlistValue":
            return _attributes(_object(value, kind), depth + 1)
        if kind in ("stringValue", "bytesValue", "boolValue", "intValue", "doubleValue"):
            return _scalar(kind, value)
    return None


def _scalar(kind: str, value: Any) -> AttributeValue:
    if kind == "intValue":
        return _int(value, kind)
    if kind == "doubleValue" and not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            return _DOUBLES[value] if isinstance(value, str) and value in _DOUBLES else float(value)
        except ValueError:
            raise Malformed(f"doubleValue {value!r:.40} is no number") from None
    if isinstance(value, bool if kind == "boolValue" else str):
        return bool(value) if kind == "boolValue" else str(value)
    raise Malformed(f"{kind} is {value!r:.40}")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is {type(value).__name__}, not an object")
    return value


def _list(owner: dict[str, Any], member: str) -> list[Any]:
    value = owner.get(member)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{member} is {type(value).__name__}, not an array")
    return value


def _text(owner: dict[str, Any], member: str) -> str:
    value = owner.get(member)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{member} is {type(value).__name__}, not a string")
    return value


def _id(owner: dict[str, Any], member: str) -> str:
    value = _text(owner, member).lower()
    if not _HEX.issuperset(value):
        raise Malformed(f"{member} {value[:40]!r} is not hex")
    return value


def _int(value: Any, what: str) -> int:
    try:
        found = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    except ValueError:
        found = None
    if found is None or abs(found) > INT64_MAX:
        raise Malformed(f"{what} {value!r:.40} is no 64-bit integer")
    return found


def _enum(value: Any, names: tuple[T, ...], what: str) -> T:
    number = _int(value, what)
    if not 0 <= number < len(names):
        raise Malformed(f"{what} {number} is unknown")
    return names[number]
