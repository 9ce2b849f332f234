"""Secrets: a type that cannot be formatted or logged by accident, and files that only we may read."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

from mainstay.core.content import write_atomically
from mainstay.core.errors import ConfigError

KEY_BYTES = 32


class Secret:
    """A string that prints as `***`. `reveal()` is the only way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)


def random_token(prefix: str) -> str:
    """A URL-safe token of 256 random bits, with a prefix that secret scanners can know."""
    return f"{prefix}{secrets.token_urlsafe(32)}"


def keyed_hash(master: bytes, value: str) -> str:
    """HMAC-SHA-256 in hex: how tokens are stored, so that a stolen database opens nothing."""
    return hmac.digest(master, value.encode(), "sha256").hex()


def load_or_create_master_key(path: Path) -> bytes:
    """32 random bytes in a file of mode 0600, made on first use. Losing it revokes every key and session.

    Of two processes that start at once, one makes the key and both use it. Raises ConfigError for another length:
    a file cut short would sign with next to nothing.
    """
    if not path.exists():
        fresh = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        write_atomically(fresh, os.urandom(KEY_BYTES), mode=0o600)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(fresh)  # unlike a rename, it never replaces a key
        fresh.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"The master key {path} has {len(key)} bytes instead of {KEY_BYTES}.",
            fix="Restore it from a backup; a new one would revoke every key and session.",
        )
    return key
