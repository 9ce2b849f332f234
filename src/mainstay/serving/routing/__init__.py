"""Chooses targets and calls them: policies, breakers, attempts under one budget and one deadline."""

from mainstay.serving.routing.breakers import Breakers, TargetView
from mainstay.serving.routing.dispatch import Dispatcher
from mainstay.serving.routing.errors import (
    CredentialsExhausted,
    NoTargetNow,
    PromptTooLong,
    TargetsFailed,
    Unsupported,
    UpstreamTimedOut,
    attempts_detail,
)
from mainstay.serving.routing.fallbacks import Clock, ResolveRoute, Sleep
from mainstay.serving.routing.policies import Router, likely_cost_nusd
from mainstay.serving.routing.probing import Prober
from mainstay.serving.routing.sticky import sticky_key
from mainstay.serving.routing.types import Attempt, Observer, Plan, Prepare

__all__ = [
    "Attempt",
    "Breakers",
    "Clock",
    "CredentialsExhausted",
    "Dispatcher",
    "NoTargetNow",
    "Observer",
    "Plan",
    "Prepare",
    "Prober",
    "PromptTooLong",
    "ResolveRoute",
    "Router",
    "Sleep",
    "TargetView",
    "TargetsFailed",
    "Unsupported",
    "UpstreamTimedOut",
    "attempts_detail",
    "likely_cost_nusd",
    "sticky_key",
]
