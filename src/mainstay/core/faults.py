"""Named points at which a test may kill or fail this process: `fault("after_reserve")`.

Nothing happens unless the environment variable MAINSTAY_FAULT names the point. `NAME=kill` ends
the process with SIGKILL, `NAME=raise` raises InjectedFault; `NAME=kill@3` waits for the third visit.
"""

from __future__ import annotations

import os
import signal

_visits: dict[str, int] = {}
_plan = os.environ.get("MAINSTAY_FAULT")


class InjectedFault(RuntimeError):
    """Raised only under test."""


def fault(point: str) -> None:
    if _plan is None:
        return
    name, _, action = _plan.partition("=")
    if name != point:
        return
    action, _, nth = action.partition("@")
    _visits[point] = _visits.get(point, 0) + 1
    if _visits[point] < int(nth or 1):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise InjectedFault(point)
