"""Govern: who calls, what they may do, and what is written down about it.

Users and API keys become an `Identity`; `require` is the one place that refuses; `append_audit` writes each
control change into a hash-chained log in the transaction of the change.
"""

from mainstay.govern.audit import AuditLog, append_audit, sign_audit_with
from mainstay.govern.keys import KeyStore, identity_of
from mainstay.govern.permissions import ROLE_PERMISSIONS, SYSTEM, allowed, local_identity, require
from mainstay.govern.retention import apply_retention, due
from mainstay.govern.sessions import Sessions
from mainstay.govern.types import ApiKey, AuditEntry, AuditVerdict, Identity, Permission, Role, User
from mainstay.govern.users import UserStore, identity_of_user

__all__ = [
    "ROLE_PERMISSIONS",
    "SYSTEM",
    "ApiKey",
    "AuditEntry",
    "AuditLog",
    "AuditVerdict",
    "Identity",
    "KeyStore",
    "Permission",
    "Role",
    "Sessions",
    "User",
    "UserStore",
    "allowed",
    "append_audit",
    "apply_retention",
    "due",
    "identity_of",
    "identity_of_user",
    "local_identity",
    "require",
    "sign_audit_with",
]
