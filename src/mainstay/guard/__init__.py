"""Guard: policies, and the checks they apply to input, retrieved context and output.

`Guard.load().check(text, rail, policy)` gives the verdict on one text. Further checks register themselves in
`checks` (a `Registry`) through the entry point group `mainstay.guard_checks`.
"""

from mainstay.guard.guard import SEVERITY, Guard
from mainstay.guard.policy import default_policy, load_policy, policy_body, policy_from_body
from mainstay.guard.registry import Check, Hit, checks
from mainstay.guard.stream import StreamGuard
from mainstay.guard.types import (
    Action,
    CheckRule,
    Finding,
    GroundingRule,
    Policy,
    Rail,
    Unsupported,
    Verdict,
)

__all__ = [
    "SEVERITY",
    "Action",
    "Check",
    "CheckRule",
    "Finding",
    "GroundingRule",
    "Guard",
    "Hit",
    "Policy",
    "Rail",
    "StreamGuard",
    "Unsupported",
    "Verdict",
    "checks",
    "default_policy",
    "load_policy",
    "policy_body",
    "policy_from_body",
]
