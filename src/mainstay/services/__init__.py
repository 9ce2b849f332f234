"""Services: the layers wired together, and the few actions that span them."""

from mainstay.services.actions import (
    LOCAL_ADMIN,
    evaluate_app,
    local_admin,
    local_key,
    may_see,
    prune_traces,
    replay_trace,
    sign_in_link,
    visible_version,
    visible_versions,
    wait_for_trace,
)
from mainstay.services.build import build_services, close_services, open_database
from mainstay.services.container import Services
from mainstay.services.folder import DataFolderLock, announce_server, running_server
from mainstay.services.janitor import Janitor
from mainstay.services.publish import Published, publish

__all__ = [
    "LOCAL_ADMIN",
    "DataFolderLock",
    "Janitor",
    "Published",
    "Services",
    "announce_server",
    "build_services",
    "close_services",
    "evaluate_app",
    "local_admin",
    "local_key",
    "may_see",
    "open_database",
    "prune_traces",
    "publish",
    "replay_trace",
    "running_server",
    "sign_in_link",
    "visible_version",
    "visible_versions",
    "wait_for_trace",
]
