"""AWS Signature Version 4 for requests whose whole body is at hand. Pure.

Source: AWS General Reference, "Signature Version 4 signing process"; every service but S3, whose paths are
escaped once only and not normalised.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from mainstay.core.secret import Secret

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """Of a user, or temporary ones of a role with their `session_token`."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


def sign(
    credentials: AwsCredentials,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    region: str,
    service: str,
    at: datetime,
) -> dict[str, str]:
    """`headers` with those that authenticate the request. `url` is as it will be sent, its path escaped.

    All of `headers` are signed, and the host, which the client sends by itself. `at` is aware.
    """
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    signed = dict(headers) | {"X-Amz-Date": stamp}
    if credentials.session_token is not None:
        signed["X-Amz-Security-Token"] = credentials.session_token.reveal()
    lower = {name.lower(): " ".join(value.split()) for name, value in signed.items()} | {"host": host_of(url)}
    names = ";".join(sorted(lower))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = _sha256(canonical_request(method, url, lower, body).encode())
    key = _signing_key(credentials.secret_access_key, stamp[:8], region, service)
    signature = _hmac(key, f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}").hex()
    signed["Authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return signed


def canonical_request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
    """`headers` have lower-case names and trimmed values, `host` among them."""
    parts = urlsplit(url)
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    names = ";".join(sorted(headers))
    path, query = canonical_path(parts.path), _canonical_query(parts.query)
    return f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_sha256(body)}"


def canonical_path(path: str) -> str:
    """Normalised (RFC 3986, 5.2.4; empty segments removed) and escaped once more than it is sent."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    normal = "/" + "/".join(kept)
    if kept and path.rsplit("/", 1)[-1] in ("", ".", ".."):
        normal += "/"
    return quote(normal, safe="/-_.~")


def host_of(url: str) -> str:
    """What clients send as `Host`: without the scheme's own port."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return host.rpartition(":")[0] if parts.port == _DEFAULT_PORTS.get(parts.scheme) else host


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(
        sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    )


def _signing_key(secret: Secret, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret.reveal()}".encode()
    for part in (day, region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
