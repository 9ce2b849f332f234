"""Signatures against vectors that AWS publishes (Signature Version 4 test suite)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mainstay.core.secret import Secret
from mainstay.models.providers.aws_sigv4 import AwsCredentials, canonical_path, host_of, sign

SECRET = Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TOKEN = Secret("6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267")
STS_TOKEN = Secret(
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8Y"
    "UuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE"
    "8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2"
    "ICCR/oLxBA=="
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

VECTORS = [
    # name, method, path and query, more headers, body, session token, signature
    (
        "get-vanilla",
        "GET",
        "/",
        {},
        b"",
        None,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        {},
        b"",
        None,
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-vanilla-query-unreserved",
        "GET",
        f"/?{UNRESERVED}={UNRESERVED}",
        {},
        b"",
        None,
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "get-utf8",
        "GET",
        "/ሴ",
        {},
        b"",
        None,
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    (
        "get-space",
        "GET",
        "/example space/",
        {},
        b"",
        None,
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    (
        "get-slash-dot-slash",
        "GET",
        "/./",
        {},
        b"",
        None,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-header-value-trim",
        "GET",
        "/",
        {"My-Header1": " value1", "My-Header2": ' "a   b   c"'},
        b"",
        None,
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "get-vanilla-with-session-token",
        "GET",
        "/",
        {},
        b"",
        TOKEN,
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
    ),
    (
        "post-vanilla",
        "POST",
        "/",
        {},
        b"",
        None,
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "post-header-key-sort",
        "POST",
        "/",
        {"My-Header1": "value1"},
        b"",
        None,
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    (
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        FORM,
        b"Param1=value1",
        None,
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    (
        "post-sts-header-before",
        "POST",
        "/",
        {},
        b"",
        STS_TOKEN,
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
]


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "token", "signature"),
    [vector[1:] for vector in VECTORS],
    ids=[vector[0] for vector in VECTORS],
)
def test_a_published_request_gets_its_published_signature(method, target, headers, body, token, signature):
    signed = sign(
        AwsCredentials("AKIDEXAMPLE", SECRET, token),
        method=method,
        url=f"https://example.amazonaws.com{target}",
        headers=headers,
        body=body,
        region="us-east-1",
        service="service",
        at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
    )

    names = sorted({"host", "x-amz-date", *(name.lower() for name in headers)})
    names += ["x-amz-security-token"] if token else []
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    assert signed.get("X-Amz-Security-Token") == (token.reveal() if token else None)


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/model/anthropic.claude-3%3A0/converse", "/model/anthropic.claude-3%253A0/converse"),
        ("/model/arn%3Aaws%3Abedrock%2Fa/converse", "/model/arn%253Aaws%253Abedrock%252Fa/converse"),
        ("//example//", "/example/"),
        ("/example1/example2/../..", "/"),
        ("", "/"),
    ],
)
def test_a_path_is_normalised_and_escaped_once_more(path, canonical):
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.org:443/a", "example.org"),
        ("http://example.org:80/a", "example.org"),
        ("http://127.0.0.1:8443/a", "127.0.0.1:8443"),
        ("https://example.org", "example.org"),
    ],
)
def test_the_host_signed_is_the_one_clients_send(url, host):
    assert host_of(url) == host


def test_secrets_are_not_shown_with_the_credentials():
    shown = repr(AwsCredentials("AKIDEXAMPLE", SECRET, TOKEN))

    assert "wJal" not in shown
    assert "6e86" not in shown
