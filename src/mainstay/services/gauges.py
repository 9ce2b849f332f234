"""What a serving process is doing now, for metrics: targets, requests under way, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mainstay.models import Catalog
from mainstay.observe import Metrics
from mainstay.serving import Deps, LimiterFigures, Shutdown, SnapshotHolder, TargetView

_TARGET_LABELS = ("target", "provider", "credential")
_MAY_BE_CALLED = ("closed", "half_open")


class KnownNames:
    """Whether a model name is configured, listed, or what a release runs on: a set that callers cannot grow."""

    def __init__(self, holder: SnapshotHolder, catalog: Catalog) -> None:
        self._holder = holder
        self._catalog = catalog
        self._made = (holder.current, frozenset[str]())

    def __call__(self, name: str) -> bool:
        snapshot = self._holder.current
        if self._made[0] is not snapshot:
            of_releases = {runnable.model for runnable in snapshot.runnables.values()}
            names = of_releases.union(snapshot.models, self._catalog.route_targets())
            self._made = (snapshot, frozenset(names))
        return name in self._made[1]


class Gauges(Collector):
    """Read on the event loop by `look`, told to whoever collects, in any thread.

    A target is one model at a provider under one credential. Targets of unknown names are told together, as `other`.
    """

    def __init__(self, metrics: Metrics, deps: Deps, shutdown: Shutdown) -> None:
        self._metrics = metrics
        self._deps = deps
        self._shutdown = shutdown
        self._targets: tuple[TargetView, ...] = ()
        self._limits = LimiterFigures(0)
        metrics.registry.register(self)

    def look(self) -> None:
        """Take in how things are now. Call it on the event loop that serves."""
        now_s = asyncio.get_running_loop().time()
        self._targets = self._deps.dispatcher.router.breakers.states(now_s)
        self._limits = self._deps.limiter.figures()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _plain("mainstay_requests_under_way", "Requests being answered.", self._shutdown.under_way)
        yield _plain("mainstay_streams_open", "Event streams being written.", self._shutdown.streams)
        yield _plain("mainstay_draining", "1 while this process ends.", self._shutdown.begun)
        limits = self._limits
        yield _plain("mainstay_limit_holds_open", "Reservations not yet settled.", limits.holds_open)
        yield _plain("mainstay_limit_store_down", "1 while Redis does not answer.", limits.store_down)
        yield _plain(
            "mainstay_limit_let_through",
            "Requests since the start that were not counted, as Redis did not answer.",
            limits.let_through,
        )
        yield _plain("mainstay_limit_unsettled", "Settlements Redis has not confirmed.", limits.unsettled)
        yield from self._of_targets()

    def _of_targets(self) -> Iterator[GaugeMetricFamily]:
        families = {
            name: GaugeMetricFamily(f"mainstay_target_{name}", text, labels=_TARGET_LABELS)
            for name, text in _TARGET_GAUGES.items()
        }
        for labels, views in self._labelled().items():
            for name, figure in _figures(views).items():
                if figure is not None:
                    families[name].add_metric(labels, figure)
        yield from families.values()

    def _labelled(self) -> dict[tuple[str, str, str], list[TargetView]]:
        found: dict[tuple[str, str, str], list[TargetView]] = {}
        for view in self._targets:
            labels = (self._metrics.model_label(view.public_name), view.provider, view.credential or "")
            found.setdefault(labels, []).append(view)
        return found


_TARGET_GAUGES = {
    "available": "1 when it may be called; 0 while its breaker is open, its key is out or it is rate limited.",
    "in_flight": "Calls of this process to it.",
    "failures_in_a_row": "Failed calls since the last good one.",
    "retry_in_seconds": "Until it may be called again; absent when it may be now.",
    "first_token_seconds": "Expected time to a stream's first token; absent when not known.",
    "whole_seconds": "Expected time to a whole answer; absent when not known.",
    "waiting": "Requests waiting at the server, where it says so.",
}


def _figures(views: list[TargetView]) -> dict[str, float | None]:
    """Of one target; of several told together, the worst, and the sum of what is under way."""
    return {
        "available": float(all(view.availability in _MAY_BE_CALLED for view in views)),
        "in_flight": sum(view.in_flight for view in views),
        "failures_in_a_row": max(view.failures_in_a_row for view in views),
        "retry_in_seconds": _most(view.retry_in_s for view in views),
        "first_token_seconds": _most(view.first_token_s for view in views),
        "whole_seconds": _most(view.whole_s for view in views),
        "waiting": _most(view.waiting for view in views),
    }


def _most(figures: Iterator[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)


def _plain(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
