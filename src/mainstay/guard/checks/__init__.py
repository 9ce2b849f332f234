"""The checks Mainstay ships, one file each; importing this package registers them."""

from mainstay.guard.checks import injection, invisible_unicode, pii, secrets

__all__ = ["injection", "invisible_unicode", "pii", "secrets"]
