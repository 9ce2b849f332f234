"""Server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

SSE_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def event(name: str, data: str, *, id: str | None = None, retry_ms: int | None = None) -> str:
    """One event as text; `data` may hold line breaks."""
    lines = [f"event: {name}"]
    if id is not None:
        lines.append(f"id: {id}")
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms}")
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return "\n".join(lines) + "\n\n"
