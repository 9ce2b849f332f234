"""From the driver's results to figures with the gateway's targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import Figure, figure

OURS = "mainstay"
WITH_DRAIN = "mainstay_up"
MIB_IN_MB = 1.048576
LOST = ("bad", "non2xx", "neterr", "timeouts")

Run = Mapping[str, Any]


class Results:
    """The driver's file: runs of each contender, each with its scenarios. All middle values are over runs."""

    def __init__(self, results: Mapping[str, Sequence[Run]]) -> None:
        self._runs = results

    def median(self, name: str, scenario: str, key: str) -> float | None:
        values = [s[key] for s in self.scenarios(name, scenario) if s.get(key) is not None]
        return statistics.median(values) if values else None

    def added(self, name: str, scenario: str, key: str) -> float | None:
        """Milliseconds beyond no gateway, each run against the same run's."""
        pairs = zip(self._runs.get(name, ()), self._runs.get("direct", ()), strict=False)
        values = [
            ours["scenarios"][scenario][key] - direct["scenarios"][scenario][key]
            for ours, direct in pairs
            if _good(ours, scenario) and _good(direct, scenario)
        ]
        return statistics.median(values) / 1000 if values else None

    def ratio(self, scenario: str, key: str, against: str) -> float | None:
        ours, theirs = self.median(OURS, scenario, key), self.median(against, scenario, key)
        return None if ours is None or not theirs else ours / theirs

    def scenarios(self, name: str, scenario: str) -> list[Run]:
        return [run["scenarios"][scenario] for run in self._runs.get(name, ()) if _good(run, scenario)]

    def all_scenarios(self, name: str) -> list[Run]:
        return [s for run in self._runs.get(name, ()) for s in run.get("scenarios", {}).values()]

    def why_not(self, name: str) -> str:
        """Why there is no figure of this contender."""
        errors = [run["error"] for run in self._runs.get(name, ()) if "error" in run]
        if errors:
            return f"{name} did not run: {errors[0][:120]}"
        return f"{name} is not here" if name not in self._runs else f"{name} has no such figure"


def _good(run: Run, scenario: str) -> bool:
    return bool(run.get("scenarios", {}).get(scenario, {}).get("ok"))


def figures(results: Results, load: float) -> list[Figure]:
    """One per target; those that could not be measured say why."""
    build = _Builder(results, load)
    return [
        *build.per_request(),
        *build.added_latency(),
        *build.streams(),
        build.memory(),
        *build.with_drain(),
    ]


class _Builder:
    def __init__(self, results: Results, load: float) -> None:
        self._results = results
        self._load = load
        self._foreign = max((s.get("foreign", 0.0) for s in results.all_scenarios(OURS)), default=0.0)

    def per_request(self) -> list[Figure]:
        ratio = self._results.ratio
        return [
            self._figure("gateway_cpu_per_request", self._us("max"), "µs", None),
            self._ratio("gateway_cpu_vs_tensorzero", "max", "cpu_us_per_req", "tensorzero", 1.0),
            self._ratio(
                "gateway_cpu_vs_litellm_features", "max", "cpu_us_per_req", "litellm_features", 1 / 50
            ),
            self._figure(
                "gateway_requests_per_s",
                self._results.median(OURS, "max", "rps"),
                "req/s",
                4500.0,
                at_least=True,
            ),
            self._figure(
                "gateway_requests_per_s_vs_nginx",
                ratio("max", "rps", "nginx"),
                "×",
                0.10,
                at_least=True,
                note=self._both("max", "rps", "nginx"),
            ),
        ]

    def added_latency(self) -> list[Figure]:
        targets = {
            ("rate200", "p50"): 0.6,
            ("rate200", "p99"): 2.5,
            ("rate1000", "p50"): 0.5,
            ("rate1000", "p99"): 3.0,
        }
        return [
            self._figure(
                f"gateway_added_{at}_{rate}", self._results.added(OURS, rate, f"lat_{at}"), "ms", target
            )
            for (rate, at), target in targets.items()
        ]

    def streams(self) -> list[Figure]:
        results = self._results
        return [
            self._ratio("gateway_cpu_per_chunk_vs_nginx", "sse_max", "cpu_us_per_chunk", "nginx", 3.0),
            self._figure("gateway_ttft_added_p50", results.added(OURS, "sse_paced", "ttft_p50"), "ms", 1.0),
            self._figure("gateway_gap_added_p99", results.added(OURS, "sse_paced", "gap_p99"), "ms", 1.0),
            self._figure("gateway_stream_lost", self._streams_lost(), "chunks", 0.0),
            self._figure(
                "gateway_stream_pace",
                results.ratio("sse_max", "events_per_s", "direct"),
                "×",
                None,
                note=self._both("sse_max", "events_per_s", "direct"),
            ),
        ]

    def _streams_lost(self) -> float | None:
        """Streams of `sse_max` that failed, and events that are missing against no gateway.

        The opening event of a stream, which holds a role and no text, may be left out.
        """
        runs = self._results.scenarios(OURS, "sse_max")
        whole = self._results.median("direct", "sse_max", "events_per_answer")
        if not runs or whole is None:
            return None
        failed = sum(run.get(key, 0) for run in runs for key in LOST)
        short = sum(max(0.0, (whole - 1 - run["events_per_answer"]) * run["ok"]) for run in runs)
        return float(failed) + short

    def memory(self) -> Figure:
        most = max((s.get("mem_mib", 0.0) for s in self._results.all_scenarios(OURS)), default=0.0)
        return self._figure(
            "gateway_memory", most * MIB_IN_MB if most else None, "MB", 200.0, note="most in any scenario"
        )

    def with_drain(self) -> list[Figure]:
        """`mainstay up`: the same process also brings every trace into the store."""
        us = self._results.median(WITH_DRAIN, "max", "cpu_us_per_req")
        rps = self._results.median(WITH_DRAIN, "max", "rps")
        return [
            self._figure(
                "gateway_up_cpu_per_request", us, "µs", None, of=WITH_DRAIN, note="traces into the store, too"
            ),
            self._figure("gateway_up_requests_per_s", rps, "req/s", None, of=WITH_DRAIN),
        ]

    def _us(self, scenario: str) -> float | None:
        return self._results.median(OURS, scenario, "cpu_us_per_req")

    def _ratio(self, name: str, scenario: str, key: str, against: str, target: float) -> Figure:
        value = self._results.ratio(scenario, key, against)
        return self._figure(name, value, "×", target, of=against, note=self._both(scenario, key, against))

    def _both(self, scenario: str, key: str, against: str) -> str | None:
        ours, theirs = (self._results.median(name, scenario, key) for name in (OURS, against))
        if ours is None or theirs is None:
            return None
        return f"{ours:,.1f} to {against}'s {theirs:,.1f}"

    def _figure(
        self,
        name: str,
        value: float | None,
        unit: str,
        target: float | None,
        *,
        at_least: bool = False,
        of: str = OURS,
        note: str | None = None,
    ) -> Figure:
        if value is None:
            missing = [n for n in (OURS, of) if not self._results.all_scenarios(n)]
            note = self._results.why_not(missing[0] if missing else of)
        elif self._foreign > 0.15:
            note = f"{note + '; ' if note else ''}other programs took up to {self._foreign:.1f} cores"
        return figure(name, value, unit, target, at_least=at_least, note=note, load=self._load)


def failures(results: Results, names: Sequence[str]) -> list[str]:
    """Contenders' runs with failed requests, and which failed to run."""
    found = []
    for name in names:
        failed = sum(scenario.get(key) or 0 for scenario in results.all_scenarios(name) for key in LOST)
        if failed:
            found.append(f"{name}: {failed} requests failed")
        if not results.all_scenarios(name):
            found.append(results.why_not(name))
    return found
