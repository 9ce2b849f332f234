"""OTLP/HTTP traces, in and out (opentelemetry-proto 1.x; encoding rules of the OTLP specification 1.x)."""

from mainstay.observe.otlp.decode import BODY_BYTES_MAX, Decoded, UnsupportedMedia, decode, partial_success
from mainstay.observe.otlp.encode import encode
from mainstay.observe.otlp.exporter import OtlpExporter

__all__ = [
    "BODY_BYTES_MAX",
    "Decoded",
    "OtlpExporter",
    "UnsupportedMedia",
    "decode",
    "encode",
    "partial_success",
]
