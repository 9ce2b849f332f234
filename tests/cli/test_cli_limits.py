"""`mainstay limits`, `team`, `project`, and the owners and limits of keys, on a real control database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from mainstay.cli.main import app
from mainstay.core.errors import Conflict, InvalidInput, NotFound

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `mainstay WORDS` on a data folder of its own."""
    monkeypatch.setenv("MAINSTAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [*words])


def data(cli: Cli, *words: str) -> Any:
    done = cli(*words, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def key_named(cli: Cli, name: str) -> dict[str, Any]:
    return next(k for k in data(cli, "key", "list") if k["name"] == name)


def test_a_key_is_made_with_owners_and_limits(cli: Cli) -> None:
    data(cli, "team", "create", "support")
    data(cli, "project", "create", "shop", "--team", "support")
    data(cli, "user", "create", "ann@example.org")

    data(
        cli, "key", "create", "web", "--project", "shop", "--team", "support", "--user", "ann@example.org",
        "--budget", "5/day", "--budget", "100/month", "--soft-budget", "80/month",
        "--rpm", "60", "--tpm", "100000", "--concurrent", "8",
    )  # fmt: skip

    key = key_named(cli, "web")
    assert key["of"] == "project shop, team support, user ann"
    assert key["limits"] == (
        "60 requests a minute, 100,000 tokens a minute, 8 requests at once, "
        "$5 a day, $100 a month, $80 a month (soft)"
    )


def test_a_budget_and_its_window_may_still_be_given_apart(cli: Cli) -> None:
    data(cli, "key", "create", "web", "--budget", "2.50")
    data(cli, "key", "create", "night", "--budget", "25", "--window", "day")
    assert key_named(cli, "web")["limits"] == "$2.50 a month"
    assert key_named(cli, "night")["limits"] == "$25 a day"


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("--budget", "5/year", InvalidInput),
        ("--budget", "much", InvalidInput),
        ("--soft-budget", "-1/day", InvalidInput),
        ("--team", "nobody", NotFound),
        ("--user", "nobody@example.org", NotFound),
    ],
)
def test_a_key_with_a_mistake_is_not_made(cli: Cli, option: str, value: str, error: type[Exception]) -> None:
    refused = cli("key", "create", "web", option, value)
    assert isinstance(refused.exception, error)
    data(cli, "key", "create", "other")
    assert [k["name"] for k in data(cli, "key", "list")] == ["other"]


def test_limits_are_set_bit_by_bit_shown_and_cleared(cli: Cli) -> None:
    data(cli, "team", "create", "support")
    data(cli, "limits", "set", "team", "support", "--budget", "500/month", "--rpm", "60")
    data(cli, "limits", "set", "team", "support", "--tpm", "100000", "--budget", "400/month")

    (shown,) = data(cli, "limits", "show", "team", "support")
    assert (shown["kind"], shown["name"]) == ("team", "support")
    assert shown["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": 100_000,
        "concurrent_requests": None,
        "budgets": [{"limit_nusd": 400 * 10**9, "window": "month", "hard": True}],
    }
    table = cli("limits", "show").stdout
    assert "support" in table
    assert "$400 a month" in table

    data(cli, "limits", "set", "team", "support", "--concurrent", "2", "--replace")
    assert data(cli, "limits", "show", "team")[0]["limits"]["requests_per_minute"] is None

    assert data(cli, "limits", "clear", "team", "support")["cleared"] is True
    assert data(cli, "limits", "clear", "team", "support")["cleared"] is False
    assert data(cli, "limits", "show") == []


def test_limits_of_a_key_are_the_keys_own(cli: Cli) -> None:
    data(cli, "key", "create", "web", "--rpm", "60")
    data(cli, "limits", "set", "key", "web", "--budget", "5/week")
    assert key_named(cli, "web")["limits"] == "60 requests a minute, $5 a week"
    assert [(s["kind"], s["name"]) for s in data(cli, "limits", "show", "key")] == [("key", "web")]


def test_limits_that_say_nothing_or_contradict_are_refused(cli: Cli) -> None:
    data(cli, "team", "create", "support")
    said_nothing = cli("limits", "set", "team", "support")
    contradiction = cli("limits", "set", "app", "bot", "--budget", "5/day", "--soft-budget", "6/day")
    unknown = cli("limits", "set", "team", "suport", "--rpm", "5")
    assert isinstance(said_nothing.exception, InvalidInput)
    assert isinstance(contradiction.exception, InvalidInput)
    assert isinstance(unknown.exception, NotFound)
    assert "'support'" in str(unknown.exception.fix)
    assert cli("limits", "set", "city", "x", "--rpm", "5").exit_code == 2
    assert data(cli, "limits", "show") == []


def test_teams_and_projects_are_renamed_moved_and_deleted(cli: Cli) -> None:
    data(cli, "team", "create", "support")
    data(cli, "project", "create", "shop", "--team", "support")
    data(cli, "team", "rename", "support", "care")
    data(cli, "project", "rename", "shop", "store")
    assert "care" in cli("project", "list").stdout
    assert isinstance(cli("team", "delete", "care").exception, Conflict)

    data(cli, "project", "move", "store")
    data(cli, "team", "delete", "care")
    data(cli, "project", "delete", "store")

    assert data(cli, "team", "list") == data(cli, "project", "list") == []


def test_a_key_is_assigned_anew(cli: Cli) -> None:
    data(cli, "team", "create", "support")
    data(cli, "project", "create", "shop")
    data(cli, "key", "create", "web", "--project", "shop")
    data(cli, "key", "assign", "web", "--team", "support")
    assert key_named(cli, "web")["of"] == "project shop, team support"
    data(cli, "key", "assign", "web", "--project", "")
    assert key_named(cli, "web")["of"] == "team support"
