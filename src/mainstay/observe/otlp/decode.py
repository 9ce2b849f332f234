"""OTLP trace requests into spans: protobuf or JSON, plain or compressed, bad spans refused one by one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson
import zstandard
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from mainstay.core.errors import InvalidInput, TooLarge
from mainstay.observe.otlp import json_form, protobuf_form
from mainstay.observe.otlp.checked import Malformed
from mainstay.observe.types import Span

BODY_BYTES_MAX = 32 * 1024 * 1024
"""Of the body after decompression."""

PROTOBUF, JSON = "application/x-protobuf", "application/json"


class UnsupportedMedia(InvalidInput):
    status, code = 415, "unsupported_media_type"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a request held: good spans, and one reason for each refused span."""

    spans: tuple[Span, ...]
    rejected: tuple[str, ...] = ()


def decode(
    body: bytes,
    content_type: str | None,
    content_encoding: str | None = None,
    max_bytes: int = BODY_BYTES_MAX,
) -> Decoded:
    """Read an ExportTraceServiceRequest.

    Raises UnsupportedMedia (415) for other media types or encodings, TooLarge (413), and InvalidInput (400)
    when the body as a whole cannot be read.
    """
    media = media_type(content_type)
    plain = _decompress(body, (content_encoding or "identity").strip().lower(), max_bytes)
    results = _from_json(plain) if media == JSON else _from_protobuf(plain)
    spans: list[Span] = []
    rejected: list[str] = []
    for read in results:
        try:
            spans.append(read())
        except Malformed as reason:
            rejected.append(str(reason))
    return Decoded(tuple(spans), tuple(rejected))


def media_type(content_type: str | None) -> str:
    """The media type without parameters. Raises UnsupportedMedia."""
    media = (content_type or "").partition(";")[0].strip().lower()
    if media in (PROTOBUF, JSON):
        return media
    raise UnsupportedMedia(
        f"OTLP is not read from content type {content_type!r}.", fix=f"Send {PROTOBUF} or {JSON}."
    )


def partial_success(rejected: tuple[str, ...] | list[str], content_type: str | None) -> bytes:
    """The response body for a request that was taken, in the request's form; names what was refused."""
    reasons = "; ".join(dict.fromkeys(rejected))[:1_000]
    if media_type(content_type) == JSON:
        if not rejected:
            return b"{}"
        return orjson.dumps(
            {"partialSuccess": {"rejectedSpans": str(len(rejected)), "errorMessage": reasons}}
        )
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = len(rejected)
        response.partial_success.error_message = reasons
    return bytes(response.SerializeToString())


ReadSpan = Callable[[], Span]


def _from_protobuf(body: bytes) -> Iterator[ReadSpan]:
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise InvalidInput("The body is no protobuf ExportTraceServiceRequest.") from error
    return protobuf_form.spans_in(request)


def _from_json(body: bytes) -> Iterator[ReadSpan]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The body is no JSON: {error}.") from error
    try:
        return json_form.spans_in(request)
    except Malformed as error:
        raise InvalidInput(f"The body is no OTLP/JSON trace request: {error}.") from error


def _decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    try:
        plain = _inflate(body, encoding, max_bytes)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise InvalidInput(f"The body is not {encoding}.") from error
    if len(plain) > max_bytes:
        raise TooLarge(
            f"The body has more than {max_bytes} bytes.",
            fix="Send smaller batches of spans.",
            limit=max_bytes,
        )
    return plain


def _inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """At most one byte more than allowed, so that a small body cannot fill the memory."""
    if encoding == "identity":
        return body
    if encoding in ("gzip", "deflate"):
        stream = zlib.decompressobj(wbits=47)  # gzip or zlib, by the header
        plain = stream.decompress(body, max_bytes + 1)
        if not stream.eof and len(plain) <= max_bytes:
            raise EOFError
        return plain
    if encoding == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            return bytes(reader.read(max_bytes + 1))
    raise UnsupportedMedia(
        f"Content encoding {encoding!r} is not read.", fix="Send gzip, deflate, zstd or none."
    )
