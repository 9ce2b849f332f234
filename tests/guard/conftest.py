"""Fixtures of the guard tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mainstay.guard import Guard, Policy, Rail, Verdict, load_policy


@pytest.fixture(scope="session")
def guard() -> Guard:
    return Guard.load()


@pytest.fixture
def judge(guard: Guard) -> Callable[..., Verdict]:
    """judge("text", pii="mask"): the verdict of a policy with these rules on one rail."""

    def verdict(text: str, rail: Rail = "input", **rules: Any) -> Verdict:
        policy: Policy = load_policy({rail: rules}, "test")
        return guard.check(text, rail, policy)

    return verdict
