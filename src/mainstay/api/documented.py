"""What the OpenAPI document says beyond what routes declare by their types."""

from __future__ import annotations

from typing import Any, Final

_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                **{key: {"type": "string"} for key in ("message", "type", "code", "error_id")},
                "fix": {"type": ["string", "null"]},
            },
        }
    },
}

_CONTENT: Final[dict[str, Any]] = {"application/json": {"schema": _ERROR}}

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "description": "The request is wrong, or not allowed; `fix` says how to mend it.",
        "content": _CONTENT,
    },
    "5XX": {
        "description": "It could not be done; the log has the cause under `error_id`.",
        "content": _CONTENT,
    },
}

METRICS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
OTLP: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Stored; spans that could not be are counted.",
        "content": {"application/json": {}, "application/x-protobuf": {}},
    }
}
