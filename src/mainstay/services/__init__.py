"""Services: the layers wired together, and the few actions that span them.

A name's module is imported when the name is first asked for, so that a command which only reads the control
database does not wait for models, retrieval and the gateway.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstay.services.actions import (
        evaluate_app,
        local_key,
        may_see,
        prune_traces,
        replay_trace,
        visible_documents,
        visible_version,
        wait_for_trace,
    )
    from mainstay.services.build import GATEWAY_WORKER, build_services, close_services
    from mainstay.services.checking import model_warnings, project_catalog
    from mainstay.services.container import Services
    from mainstay.services.folder import DataFolderLock, announce_server, running_server, withdraw_server
    from mainstay.services.in_loop import running
    from mainstay.services.janitor import Janitor
    from mainstay.services.offers import Offered, by_target, offered, target_views, whose_states
    from mainstay.services.people import LOCAL_ADMIN, local_admin, sign_in_link
    from mainstay.services.publishing import Published, publish, tend_indexes
    from mainstay.services.spending import LimitsInUse, limits_in_use
    from mainstay.services.stores import Stores, open_database, open_stores
    from mainstay.services.this_machine import LocalModel, local_models

_HOMES = {
    "actions": (
        "evaluate_app",
        "local_key",
        "may_see",
        "prune_traces",
        "replay_trace",
        "visible_version",
        "visible_documents",
        "wait_for_trace",
    ),
    "build": ("GATEWAY_WORKER", "build_services", "close_services"),
    "checking": ("model_warnings", "project_catalog"),
    "container": ("Services",),
    "folder": ("DataFolderLock", "announce_server", "running_server", "withdraw_server"),
    "janitor": ("Janitor",),
    "offers": ("Offered", "by_target", "offered", "target_views", "whose_states"),
    "people": ("LOCAL_ADMIN", "local_admin", "sign_in_link"),
    "publishing": ("Published", "publish", "tend_indexes"),
    "spending": ("LimitsInUse", "limits_in_use"),
    "in_loop": ("running",),
    "stores": ("Stores", "open_database", "open_stores"),
    "this_machine": ("LocalModel", "local_models"),
}
__all__ = [
    "GATEWAY_WORKER",
    "LOCAL_ADMIN",
    "DataFolderLock",
    "Janitor",
    "LimitsInUse",
    "LocalModel",
    "Offered",
    "Published",
    "Services",
    "Stores",
    "announce_server",
    "build_services",
    "by_target",
    "close_services",
    "evaluate_app",
    "limits_in_use",
    "local_admin",
    "local_key",
    "local_models",
    "may_see",
    "model_warnings",
    "offered",
    "open_database",
    "open_stores",
    "project_catalog",
    "prune_traces",
    "publish",
    "replay_trace",
    "running",
    "running_server",
    "sign_in_link",
    "target_views",
    "tend_indexes",
    "visible_documents",
    "visible_version",
    "wait_for_trace",
    "whose_states",
    "withdraw_server",
]


def __getattr__(name: str) -> object:
    """PEP 562. No name is that of a module here: importing the module would put it in the name's place."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mainstay.services.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
