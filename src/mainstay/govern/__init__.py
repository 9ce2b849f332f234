"""Govern: who calls, what they may do, and what is written down about it.

Users and API keys become an `Identity`; `require` is the one place that refuses; `append_audit` writes each
control change into a hash-chained log in the transaction of the change. `LimitStore` keeps what keys, users,
teams, projects and apps may use; `scopes_of` and `app_scope` say which of it a request falls under.
"""

from mainstay.govern.audit import AuditLog, append_audit, sign_audit_with
from mainstay.govern.keys import KeyStore, identity_of
from mainstay.govern.limit_store import SCOPE_KINDS, LimitStore
from mainstay.govern.limits import (
    BUDGET_NUSD_MAX,
    RATE_WORDS,
    WINDOWS,
    budget_from_text,
    budget_text,
    limit_texts,
    limits_from_json,
    limits_to_json,
)
from mainstay.govern.permissions import ROLE_PERMISSIONS, SYSTEM, allowed, local_identity, require
from mainstay.govern.retention import apply_retention, due
from mainstay.govern.scopes import Directory, app_scope, scopes_of
from mainstay.govern.sessions import Sessions
from mainstay.govern.teams import ProjectStore, TeamStore
from mainstay.govern.types import (
    UNLIMITED,
    ApiKey,
    AuditEntry,
    AuditVerdict,
    Budget,
    BudgetWindow,
    Identity,
    LimitKey,
    Limits,
    LimitScope,
    Permission,
    Project,
    Role,
    ScopeKind,
    Team,
    User,
)
from mainstay.govern.users import UserStore, identity_of_user

__all__ = [
    "BUDGET_NUSD_MAX",
    "RATE_WORDS",
    "ROLE_PERMISSIONS",
    "SCOPE_KINDS",
    "SYSTEM",
    "UNLIMITED",
    "WINDOWS",
    "ApiKey",
    "AuditEntry",
    "AuditLog",
    "AuditVerdict",
    "Budget",
    "BudgetWindow",
    "Directory",
    "Identity",
    "KeyStore",
    "LimitKey",
    "LimitScope",
    "LimitStore",
    "Limits",
    "Permission",
    "Project",
    "ProjectStore",
    "Role",
    "ScopeKind",
    "Sessions",
    "Team",
    "TeamStore",
    "User",
    "UserStore",
    "allowed",
    "app_scope",
    "append_audit",
    "apply_retention",
    "budget_from_text",
    "budget_text",
    "due",
    "identity_of",
    "identity_of_user",
    "limit_texts",
    "limits_from_json",
    "limits_to_json",
    "local_identity",
    "require",
    "scopes_of",
    "sign_audit_with",
]
