"""What can be asked, what stands behind each name, and how this process finds those targets, for pages and programs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mainstay.core.errors import MainstayError
from mainstay.models import Catalog, ModelInfo
from mainstay.models.types import Capability, Route
from mainstay.services.container import Role, Services
from mainstay.serving import TargetView

_AT_ONCE: Final = 50
"""Names resolved before other work of the event loop gets its turn: some milliseconds."""

TargetKey = tuple[str, str, str | None]
"""(provider, the provider's own name of the model, credential): what has one breaker."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A name that can be asked. `route` None: it stands for nothing now, and `problem` says why."""

    info: ModelInfo
    route: Route | None
    problem: str | None = None

    @property
    def kind(self) -> Literal["route", "model"]:
        return "route" if self.info.provider == "route" else "model"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What at least one target can do: a call that needs it goes there."""
        targets = () if self.route is None else self.route.targets
        return frozenset[Capability]().union(*(routed.target.capabilities for routed in targets))

    @property
    def context_tokens(self) -> int | None:
        """The longest context of its targets; None when none is known."""
        if self.route is None:
            return self.info.context_tokens
        known = [t.target.context_tokens for t in self.route.targets if t.target.context_tokens is not None]
        return max(known, default=None)


async def offered(catalog: Catalog) -> tuple[Offered, ...]:
    """Every name that can be asked, in the catalogue's order. Call it on the event loop that serves."""
    infos = await asyncio.to_thread(catalog.names)
    found: list[Offered] = []
    for at, info in enumerate(infos):
        if at % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        found.append(_resolved(catalog, info))
    return tuple(found)


def _resolved(catalog: Catalog, info: ModelInfo) -> Offered:
    try:
        return Offered(info, catalog.route(info.name))
    except MainstayError as error:  # a key's variable that is not set, a model file that was deleted
        return Offered(info, None, str(error))


def target_views(services: Services) -> tuple[TargetView, ...]:
    """The targets that this process called within the last hour. Call it on the event loop that serves."""
    now_s = asyncio.get_running_loop().time()
    return services.deps.dispatcher.router.breakers.states(now_s)


def by_target(views: Iterable[TargetView]) -> Mapping[TargetKey, TargetView]:
    return {(view.provider, view.model, view.credential): view for view in views}


def whose_states(role: Role | None) -> str | None:
    """Why the states of targets are not those of the gateways; None in a process that is one."""
    if role != "control":
        return None
    return (
        "This process is the control plane alone: it knows only of the calls that its own playground and "
        "evaluations made. Each gateway keeps the states of its targets and tells them at its /metrics."
    )
