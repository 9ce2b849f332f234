"""What prompts of 200,000 tokens do to the other requests: their p99 with and without large prompts beside them."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gateway_process import UPSTREAM, Tools, contender
from benchmarks.measure import Figure, figure

PROMPT_BYTES = 800_000
"""About 200,000 tokens of English text."""
SMALL_PER_S = 200
PORT = 9261


def write_large_prompt(small: Path, path: Path) -> None:
    """The small request with a user message of 800 KB; `@@@@@@@@` makes each one distinct, as in the small one."""
    body = json.loads(small.read_text())
    words = sorted({w for m in body["messages"] for w in m["content"].split() if "@" not in w})
    source = random.Random(4)
    text = "Document @@@@@@@@. "
    while len(text) < PROMPT_BYTES:
        text += " ".join(source.choices(words, k=200)) + ". "
    body["messages"][-1]["content"] = text[:PROMPT_BYTES]
    path.write_text(json.dumps(body))


def measure(
    tools: Tools, bodies: Path, work: Path, core: str, seconds: float, runs: int, load: float
) -> list[Figure]:
    """Small requests at 200/s alone and with large ones, one after the other, beside them; also without a gateway."""
    large = work / "large.json"
    write_large_prompt(bodies / "body_chat.json", large)
    small = bodies / "body_chat.json"
    direct = f"{UPSTREAM}/v1/chat/completions"
    with tools.mock(delay_ms=50), contender(work / "large", PORT, core) as gateway:
        tools.load(gateway.url, small, gateway.headers, "--rate", str(SMALL_PER_S), "--duration", "1")
        pairs = [
            (
                _pair(tools, gateway.url, gateway.headers, small, large, seconds),
                _pair(tools, direct, gateway.headers, small, large, seconds),
            )
            for _ in range(runs)
        ]
        memory_mb = gateway.resident_mb
    ours = [with_ - without for (with_, without, _), _ in pairs]
    floor = [with_ - without for _, (with_, without, _) in pairs]
    asked = sum(count for (_, _, count), _ in pairs)
    note = (
        f"{asked} prompts of {PROMPT_BYTES // 1000} KB beside {SMALL_PER_S} requests/s; p99 of these "
        f"{pairs[0][0][1]:.2f} → {pairs[0][0][0]:.2f} ms in the first run; without a gateway they add "
        f"{statistics.median(floor):.2f} ms"
    )
    return [
        figure("gateway_large_prompt_added_p99", statistics.median(ours), "ms", 5.0, note=note, load=load),
        figure(
            "gateway_large_prompt_memory", memory_mb, "MB", load=load, note="resident after large prompts"
        ),
    ]


def _pair(
    tools: Tools, url: str, headers: Sequence[str], small: Path, large: Path, seconds: float
) -> tuple[float, float, int]:
    """p99 in ms of the small requests with and without large ones, and how many large ones were answered."""
    rate = ["--rate", str(SMALL_PER_S), "--conns", "128"]
    alone = tools.load(url, small, headers, *rate, "--duration", str(seconds))
    beside = tools.start_load(url, large, headers, "--conns", "1", "--duration", str(seconds + 1))
    loaded = tools.load(url, small, headers, *rate, "--duration", str(seconds))
    big = json.loads(beside.communicate()[0])
    for name, result in (("small", alone), ("small", loaded), ("large", big)):
        failed = result["bad"] + result["non2xx"] + result["neterr"] + result["timeouts"]
        if failed or not result["ok"]:
            raise RuntimeError(f"{failed} {name} requests failed at {url}: {result['first_bad']}")
    return loaded["lat_p99"] / 1000, alone["lat_p99"] / 1000, int(big["ok"])
