"""What a model server says of itself: its health endpoint, and gauges among its Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mainstay.models.http.types import HttpClient, HttpError
from mainstay.models.types import Health

_METRICS_BYTES_MAX: Final = 8 << 20


async def get(
    client: HttpClient, url: str, headers: Mapping[str, str], timeout_s: float, limit_bytes: int
) -> tuple[int, bytes] | None:
    """Status and body; None when there is no whole answer in time."""
    try:
        response = await client.request(
            "GET", url, headers=headers, connect_timeout_s=timeout_s, head_timeout_s=timeout_s
        )
    except HttpError:
        return None
    try:
        return response.status, await response.read(limit_bytes, timeout_s)
    except HttpError:
        return None
    finally:
        response.close()


async def probe(
    client: HttpClient,
    root_url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    *,
    health_path: str,
    running_gauge: str,
    waiting_gauge: str,
) -> Health:
    """Healthy when the health endpoint answers 200; the counts from `/metrics`, None where it has none."""
    answer = await get(client, f"{root_url}{health_path}", headers, timeout_s, 64 << 10)
    if answer is None or answer[0] != 200:
        return Health(ok=False)
    metrics = await get(client, f"{root_url}/metrics", headers, timeout_s, _METRICS_BYTES_MAX)
    text = metrics[1].decode("utf-8", "replace") if metrics is not None and metrics[0] == 200 else ""
    return Health(True, gauge_sum(text, running_gauge), gauge_sum(text, waiting_gauge))


def gauge_sum(text: str, name: str) -> int | None:
    """The sum of a gauge over its labels in Prometheus' text format; None when it is not there."""
    found = [
        float(line.rpartition("}")[2].split()[0] if "{" in line else line.split()[1])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    return round(sum(found)) if found else None
