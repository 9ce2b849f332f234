"""Secrets: a type that cannot be formatted or logged by accident, and files that only we may read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

from mainstay.core.content import write_atomically


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
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)


def random_token(prefix: str) -> str:
    """A URL-safe token of 256 random bits, with a prefix that secret scanners can know."""
    return f"{prefix}{secrets.token_urlsafe(32)}"


def keyed_hash(master: bytes, value: str) -> str:
    """HMAC-SHA-256 in hex: how tokens are stored, so that a stolen database opens nothing."""
    return hmac.new(master, value.encode(), hashlib.sha256).hexdigest()


def load_or_create_master_key(path: Path) -> bytes:
    """32 random bytes in a file of mode 0600, made on first use. Losing it revokes every key and session."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        write_atomically(path, os.urandom(32), mode=0o600)
        return path.read_bytes()
