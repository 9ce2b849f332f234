"""Errors that teach: what is wrong, how to mend it, a stable code, an id to find in the logs.

    MainstayError            500 internal_error
    ├── InvalidInput         400 invalid_request_error   the caller's input is wrong
    │   └── ConfigError      400 config_error            a setting or project file is wrong
    ├── Unauthenticated      401 invalid_api_key         no, bad, expired or revoked credentials
    ├── PermissionDenied     403 permission_denied       known caller, not allowed
    ├── NotFound             404 not_found
    ├── Conflict             409 conflict                the state does not allow it
    ├── TooLarge             413 request_too_large
    ├── Unavailable          503 unavailable             a part we need is not there now
    └── MissingExtra         501 missing_extra           an optional dependency is not installed

Layers derive their own from these. Decide by type and `status`, never by message text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

from mainstay.core.ids import new_id


class MainstayError(Exception):
    """Base of every error Mainstay raises on purpose.

    `message` says what is wrong, `fix` how to mend it, `detail` holds machine-readable facts.
    `error_id` is in the response and in the log line, so that one finds the other.
    """

    status: ClassVar[int] = 500
    code: str = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, fix: str | None = None, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.detail = detail
        self.error_id = new_id("err")

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class InvalidInput(MainstayError):
    status, code, type = 400, "invalid_request_error", "invalid_request_error"


class ConfigError(InvalidInput):
    code = "config_error"


class Unauthenticated(MainstayError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class PermissionDenied(MainstayError):
    status, code, type = 403, "permission_denied", "permission_error"


class NotFound(MainstayError):
    status, code, type = 404, "not_found", "not_found_error"


class Conflict(MainstayError):
    status, code, type = 409, "conflict", "conflict_error"


class TooLarge(MainstayError):
    status, code, type = 413, "request_too_large", "invalid_request_error"


class Unavailable(MainstayError):
    status, code, type = 503, "unavailable", "service_unavailable"


class MissingExtra(MainstayError):
    status, code, type = 501, "missing_extra", "server_error"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional part that is not installed.",
            fix=f'Install it: pip install "mainstay[{extra}]".',
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, for "did you mean"; None when nothing is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence for `fix`: the nearest known name, or the list of all."""
    names = sorted(known)
    near = nearest(name, names)
    if near is not None:
        return f"Did you mean {near!r}?"
    return f"Known: {', '.join(names)}." if names else "There is none yet."
