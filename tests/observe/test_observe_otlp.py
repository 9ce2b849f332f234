"""OTLP/HTTP against the official SDK and exporter, both ways, and every way a request can be wrong."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from observe_times import NOON_NS
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from mainstay.core.errors import ConfigError, InvalidInput, TooLarge
from mainstay.observe import Attr, OtlpExporter, Span, TraceBuilder, otlp

PROTOBUF, JSON = "application/x-protobuf", "application/json"


class Collector(ThreadingHTTPServer):
    """A back end in miniature: decodes what it is sent, answers as `statuses` say and then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers.append(dict(self.headers))
        status, answer = self.server.statuses.pop(0) if self.server.statuses else 200, b""
        if status == 200:
            assert self.path == "/v1/traces"
            decoded = otlp.decode(body, self.headers["Content-Type"], self.headers["Content-Encoding"])
            self.server.spans += decoded.spans
            answer = otlp.partial_success(decoded.rejected, self.headers["Content-Type"])
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Content-Type", self.headers["Content-Type"])
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_the_official_sdk_sends_to_us(collector: Collector, compression: Compression) -> None:
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces", compression=compression)
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("my.instrumentation", "1.2")

    with tracer.start_as_current_span("agent", kind=SpanKind.SERVER) as root:
        root.set_attribute("tags", ["a", "b"])
        with tracer.start_as_current_span("chat gpt-4o", kind=SpanKind.CLIENT) as call:
            call.set_attributes({"gen_ai.usage.input_tokens": 12, "ratio": 0.5, "stream": True})
            call.add_event("retry", {"attempt": 2})
            call.set_status(Status(StatusCode.ERROR, "too slow"))
    provider.shutdown()

    found, parent = collector.spans
    assert (found.trace_id, found.span_id) == (
        f"{call.context.trace_id:032x}",
        f"{call.context.span_id:016x}",
    )
    assert (found.parent_id, parent.parent_id) == (parent.span_id, None)
    assert (found.kind, found.status, found.status_message) == ("client", "error", "too slow")
    assert found.attributes == {"gen_ai.usage.input_tokens": 12, "ratio": 0.5, "stream": True}
    assert parent.attributes == {"tags": ["a", "b"]}
    assert found.events[0]["name"] == "retry"
    assert found.events[0]["attributes"] == {"attempt": 2}
    assert (found.start_ns, found.end_ns) == (call.start_time, call.end_time)
    assert found.resource["service.name"] == "shop"
    assert (found.resource["otel.scope.name"], found.resource["otel.scope.version"]) == (
        "my.instrumentation",
        "1.2",
    )


def a_trace() -> list[Span]:
    trace = TraceBuilder(
        "chat support-bot", resource={"service.name": "mainstay", "otel.scope.name": "mainstay"}
    )
    trace.set(Attr.INPUT_MESSAGES, [{"role": "user", "content": "Hello?"}])
    trace.set(Attr.FINISH_REASONS, ["stop"])
    with trace.step("retrieve") as step:
        step.set("score", 0.5)
        step.event("found", passages=3)
    return trace.finish()


def test_our_exporter_sends_what_any_back_end_reads(collector: Collector) -> None:
    exporter = OtlpExporter(collector.url, headers={"Authorization": "Bearer x"})
    root, step = a_trace()

    exporter.record([root, step])
    assert exporter.flush()
    exporter.close()

    sent_root, sent_step = collector.spans
    assert sent_step == step
    assert json.loads(sent_root.attributes[Attr.INPUT_MESSAGES]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Hello?"}]}
    ]
    assert sent_root.attributes[Attr.FINISH_REASONS] == ["stop"]
    assert collector.headers[0]["Authorization"] == "Bearer x"
    assert (exporter.sent, exporter.dropped) == (2, 0)


def test_our_exporter_tries_again_when_told_later(collector: Collector) -> None:
    collector.statuses = [429, 503, 500]
    exporter = OtlpExporter(collector.url, pause_s=0.01)

    exporter.record(a_trace())
    assert exporter.flush()
    exporter.close()

    assert len(collector.spans) == 2
    assert len(collector.headers) == 4


def test_what_our_exporter_cannot_send_is_counted(collector: Collector) -> None:
    told: list[int] = []
    collector.statuses = [400]
    exporter = OtlpExporter(collector.url, on_drop=told.append)

    exporter.record(a_trace())
    assert exporter.flush()
    exporter.close()
    exporter.record(a_trace())

    assert told == [2, 2]
    assert exporter.dropped == 4


def test_a_back_end_that_is_away_delays_nobody_and_closing_ends(make_span) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as unused:
        url = f"http://127.0.0.1:{unused.server_port}"
    exporter = OtlpExporter(url, pause_s=60)

    exporter.record([make_span()])
    exporter.close(timeout_s=30)

    assert (exporter.sent, exporter.dropped) == (0, 1)
    with pytest.raises(ConfigError, match="no OTLP/HTTP base URL"):
        OtlpExporter("localhost:4318")


def json_request(*spans: Any, **resource: Any) -> bytes:
    groups = [{"resource": resource, "scopeSpans": [{"scope": {"name": "s"}, "spans": list(spans)}]}]
    return json.dumps({"resourceSpans": groups}).encode()


def json_span(**given: Any) -> dict[str, Any]:
    return {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "",
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": str(NOON_NS),
        "endTimeUnixNano": NOON_NS + 5,
        "unknownMember": {"is": "ignored"},
    } | given


def test_json_is_read_as_the_specification_writes_it() -> None:
    attributes = [
        {"key": "text", "value": {"stringValue": "ü"}},
        {"key": "int", "value": {"intValue": "9007199254740993"}},
        {"key": "plain int", "value": {"intValue": 7}},
        {"key": "double", "value": {"doubleValue": 3}},
        {"key": "bool", "value": {"boolValue": False}},
        {"key": "bytes", "value": {"bytesValue": "AP8="}},
        {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": True}}]}}},
        {"key": "none", "value": None},
    ]
    event = {"name": "e", "timeUnixNano": "5", "attributes": attributes[:1]}
    link = {"traceId": "a" * 32, "spanId": "b" * 16}
    span = json_span(
        attributes=attributes, status={"code": 2, "message": "bad"}, events=[event], links=[link]
    )

    decoded = otlp.decode(json_request(span, attributes=attributes[:1]), "application/json; charset=utf-8")

    (found,) = decoded.spans
    assert decoded.rejected == ()
    assert found.trace_id == "5b8efff798038103d269b633813fc60c"
    assert (found.parent_id, found.kind, found.status, found.start_ns) == (None, "client", "error", NOON_NS)
    assert found.attributes == {
        "text": "ü",
        "int": 9007199254740993,
        "plain int": 7,
        "double": 3.0,
        "bool": False,
        "bytes": "AP8=",
        "list": ["a", 1],
        "map": {"k": True},
        "none": None,
    }
    assert found.events == ({"name": "e", "time_ns": 5, "attributes": {"text": "ü"}},)
    assert found.links == ({"trace_id": "a" * 32, "span_id": "b" * 16, "attributes": {}},)
    assert found.resource == {"text": "ü", "otel.scope.name": "s"}


BAD_SPANS = {
    "a short trace id": {"traceId": "abc"},
    "a zero trace id": {"traceId": "0" * 32},
    "an id that is no hex": {"spanId": "z" * 16},
    "an id that is a number": {"spanId": 5},
    "no start": {"startTimeUnixNano": None},
    "an end before the start": {"endTimeUnixNano": str(NOON_NS - 1)},
    "a time beyond 64 bits": {"endTimeUnixNano": str(2**63)},
    "an unknown kind": {"kind": 17},
    "a kind in words": {"kind": "SPAN_KIND_CLIENT"},
    "attributes that are an object": {"attributes": {"a": 1}},
    "an attribute without a key's type": {"attributes": [{"key": 1, "value": {}}]},
    "a broken integer": {"attributes": [{"key": "a", "value": {"intValue": "1.5"}}]},
    "a broken double": {"attributes": [{"key": "a", "value": {"doubleValue": "much"}}]},
    "a name that is a list": {"name": []},
}


@pytest.mark.parametrize("wrong", BAD_SPANS.values(), ids=BAD_SPANS.keys())
def test_a_bad_span_is_refused_alone_with_its_reason(wrong: dict[str, Any]) -> None:
    good = json_span(spanId="1" * 16)

    decoded = otlp.decode(json_request(json_span(**wrong), good, None), JSON)

    assert [span.span_id for span in decoded.spans] == ["1" * 16]
    assert len(decoded.rejected) == 2
    answer = json.loads(otlp.partial_success(decoded.rejected, JSON))
    assert answer["partialSuccess"]["rejectedSpans"] == "2"
    assert decoded.rejected[0] in answer["partialSuccess"]["errorMessage"]


def test_a_bad_protobuf_span_is_refused_alone() -> None:
    request = ExportTraceServiceRequest.FromString(otlp.encode(a_trace()))
    request.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"

    decoded = otlp.decode(request.SerializeToString(), PROTOBUF)

    assert len(decoded.spans) == 1
    answer = ExportTraceServiceResponse.FromString(otlp.partial_success(decoded.rejected, PROTOBUF))
    assert answer.partial_success.rejected_spans == 1
    assert "trace id" in answer.partial_success.error_message


def test_full_success_says_nothing() -> None:
    assert otlp.partial_success((), JSON) == b"{}"
    assert otlp.partial_success((), PROTOBUF) == b""
    assert otlp.decode(b"", PROTOBUF).spans == ()
    assert otlp.decode(b"{}", JSON).spans == ()


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status"),
    [
        (b"\xff\xff", PROTOBUF, None, 400),
        (b"{", JSON, None, 400),
        (b"[]", JSON, None, 400),
        (b'{"resourceSpans": 5}', JSON, None, 400),
        (b'{"resourceSpans": [{"scopeSpans": {}}]}', JSON, None, 400),
        (b"plain", PROTOBUF, "gzip", 400),
        (gzip.compress(b"x" * 100)[:-20], PROTOBUF, "gzip", 400),
        (b"plain", PROTOBUF, "zstd", 400),
        (b"", "text/plain", None, 415),
        (b"", None, None, 415),
        (b"", PROTOBUF, "br", 415),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_whole(body, content_type, encoding, status) -> None:
    with pytest.raises(InvalidInput) as refused:
        otlp.decode(body, content_type, encoding)
    assert refused.value.status == status


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, zstandard.ZstdCompressor().compress])
def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(pack) -> None:
    encoding = {gzip.compress: "gzip", zlib.compress: "deflate"}.get(pack, "zstd")

    with pytest.raises(TooLarge):
        otlp.decode(pack(b"\0" * 50_000_000), PROTOBUF, encoding, max_bytes=1_000_000)
    assert otlp.decode(pack(otlp.encode(a_trace())), PROTOBUF, encoding).rejected == ()


def test_deep_nesting_is_refused() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(100):
        value = {"arrayValue": {"values": [value]}}

    decoded = otlp.decode(json_request(json_span(attributes=[{"key": "a", "value": value}])), JSON)

    assert decoded.rejected == ("attribute values are nested too deep",)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "resourceSpans",
                    "scopeSpans",
                    "spans",
                    "attributes",
                    "key",
                    "value",
                    "arrayValue",
                    "traceId",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES)
def test_no_json_makes_the_reader_stumble(value: Any) -> None:
    with contextlib.suppress(InvalidInput):
        otlp.decode(json.dumps({"resourceSpans": value}).encode(), JSON)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_no_damaged_protobuf_makes_the_reader_stumble(at: int, damage: bytes) -> None:
    body = bytearray(otlp.encode(a_trace()))
    body[at : at + len(damage)] = damage
    with contextlib.suppress(InvalidInput):
        otlp.decode(bytes(body), PROTOBUF)
