"""What uvicorn need not say."""

from __future__ import annotations

import logging


def quiet_dropped_streams() -> None:
    """A stream that failed after its first words is left without an end on purpose, so that the connection is
    dropped; the failure itself is in the log and in the trace."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg != "ASGI callable returned without completing response."
