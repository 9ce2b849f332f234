"""Errors as clients are told them."""

from __future__ import annotations

import pytest

from mainstay.models import ProviderAuthFailed, ProviderRateLimited
from mainstay.serving.errors import InsufficientQuota, reply_to


def test_an_upstream_refusal_of_our_key_is_not_passed_off_as_the_callers() -> None:
    reply = reply_to(ProviderAuthFailed("refused our key", provider="openai", upstream_status=401))
    assert reply.status == 502
    assert reply.body["error"]["code"] == "upstream_credentials_exhausted"
    assert reply.headers["x-should-retry"] == "false"


def test_a_providers_wait_is_passed_on() -> None:
    reply = reply_to(
        ProviderRateLimited("slow down", provider="openai", upstream_status=429, retry_after_s=7.2)
    )
    assert (reply.status, reply.headers["x-should-retry"], reply.headers["retry-after"]) == (429, "true", "8")


def test_a_spent_budget_must_not_be_retried() -> None:
    reply = reply_to(InsufficientQuota("spent", retry_after_s=None, scope="key_a"), "trace")
    assert reply.headers == {"x-should-retry": "false"}
    assert reply.body["error"]["type"] == "insufficient_quota"
    assert reply.body["error"]["mainstay"]["scope"] == "key_a"
    assert reply.body["error"]["mainstay"]["trace_id"] == "trace"


def test_an_unforeseen_error_says_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    reply = reply_to(RuntimeError("password=hunter2"))
    assert reply.status == 500
    assert "hunter2" not in str(reply.body)
    assert reply.body["error"]["mainstay"]["error_id"] in caplog.text
