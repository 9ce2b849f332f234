"""Overview, Spend and Audit: changes since the day before, budgets, and a log that is verified when asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from starlette.testclient import TestClient
from web_world import HOUR_NS, PASSWORD, USD, World, build_world, spend, team_scope

from mainstay.core.clock import now_us
from mainstay.core.ids import new_span_id, new_trace_id
from mainstay.govern import Budget, Limits, LimitScope
from mainstay.govern.types import ApiKey, BudgetWindow
from mainstay.observe import Attr, Span
from mainstay.services import close_services
from mainstay.web import SESSION_COOKIE, formats
from mainstay.web.changes import Earlier, difference, points, relative

DAY_BEFORE = Earlier("in the 24 hours before", "not measured then")


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[World]:
    """A Mainstay without apps and traffic."""
    world = build_world(tmp_path)
    world.services.users.create(world.actor, "ada@example.org", "Ada Lindqvist", "admin", PASSWORD)
    yield world
    close_services(world.services)


@pytest.fixture
def visitor(quiet: World) -> Iterator[TestClient]:
    client = TestClient(quiet.app, follow_redirects=False)
    user = quiet.services.users.by_email("ada@example.org")
    client.cookies.set(SESSION_COOKIE, quiet.services.sessions.start(user.id).reveal())
    yield client
    client.close()


def record(world: World, hours_ago: float, **given: Any) -> None:
    """A request to `shop-bot`, that long ago."""
    start_ns = now_us() * 1_000 - round(hours_ago * HOUR_NS)
    attributes = {Attr.APP: "shop-bot", Attr.COST_NUSD: 1_000_000, **given.pop("attributes", {})}
    world.services.traces.ingest(
        [
            Span(
                new_trace_id(),
                new_span_id(),
                None,
                "chat shop-bot",
                start_ns,
                start_ns + 1_000_000,
                kind="server",
                attributes=attributes,
                **given,
            )
        ]
    )


def spend_on(
    world: World,
    name: str,
    budget_nusd: int,
    spent_nusd: int,
    *,
    window: BudgetWindow = "month",
    hard: bool = True,
    **given: Any,
) -> ApiKey:
    limits = Limits(budgets=(Budget(budget_nusd, window, hard),))
    key, _ = world.services.keys.create(world.actor, name, limits=limits, **given)
    spend(world, spent_nusd, LimitScope("key", key.id, name, limits))
    return key


def metrics(page: str) -> dict[str, str]:
    """Each number's name and its change, as text."""
    found = re.findall(r"<dt>(.+?)</dt>.*?<dd class=\"change\">(.*?)</dd>", page, re.DOTALL)
    return {name: Markup(change).striptags() for name, change in found}


def test_each_number_shows_how_it_moved_since_the_day_before(quiet: World, visitor: TestClient) -> None:
    for _ in range(2):
        record(quiet, 30, attributes={Attr.TTFT_MS: 100.0, Attr.GROUNDED_SHARE: 1.0})
    for status in ("ok", "ok", "error"):
        record(
            quiet,
            0,
            status=status,
            attributes={Attr.TTFT_MS: 200.0, Attr.GROUNDED_SHARE: 0.8, Attr.GUARD: [{"check": "pii"}]},
        )

    shown = metrics(visitor.get("/").text)

    assert shown["Requests"] == "▲ +50 %: 2 in the 24 hours before"
    assert shown["Errors"] == "▲ +33 pts worse: 0 % in the 24 hours before"
    moved = re.match(r"▲ \+(\d+) % worse: \d+ ms", shown["First token p95"])
    assert moved is not None
    assert int(moved[1]) == pytest.approx(100, abs=4)  # each percentile is within 1 %
    assert shown["Grounded"] == "▼ −20 pts worse: 100 % in the 24 hours before"
    assert shown["Guard hits"] == "▲ +3 worse: 0 in the 24 hours before"


def test_what_was_not_measured_the_day_before_has_a_dash_and_no_change(
    quiet: World, visitor: TestClient
) -> None:
    record(quiet, 0, attributes={Attr.TTFT_MS: 200.0})

    shown = metrics(visitor.get("/").text)

    assert shown["Requests"] == "▲ from 0: 0 in the 24 hours before"
    for name in ("Errors", "First token p95", "Grounded", "Guard hits"):
        assert shown[name] == "–not measured in the 24 hours before, or not in these"


def test_costs_that_are_not_all_known_are_not_compared(quiet: World, visitor: TestClient) -> None:
    record(quiet, 0, attributes={Attr.OPERATION: "chat", Attr.INPUT_TOKENS: 5, Attr.COST_NUSD: None})
    record(quiet, 0)

    page = visitor.get("/").text

    assert metrics(page)["Cost today"].startswith("–not every price is known")
    assert "≥ $0.001" in page


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (relative(110, 100, DAY_BEFORE, formats.count_text, "neither"), "▲ +10 %: 100"),
        (relative(90, 100, DAY_BEFORE, formats.duration_text, "bad"), "▼ −10 % better: 100 ms"),
        (relative(100.2, 100, DAY_BEFORE, formats.count_text, "bad"), "no change: 100"),
        (relative(0, 0, DAY_BEFORE, formats.count_text, "bad"), "no change: 0"),
        (relative(5, 0, DAY_BEFORE, formats.count_text, "bad"), "▲ from 0 worse: 0"),
        (relative(52_000, 1_000, DAY_BEFORE, formats.count_text, "neither"), "▲ +5,100 %: 1,000"),
        (
            relative(101, 100, DAY_BEFORE, formats.duration_text, "bad", within_percent=2),
            "about the same: 100 ms",
        ),
        (points(0.012, 0.004, DAY_BEFORE, "bad"), "▲ +0.8 pts worse: 0.4 %"),
        (points(0.9, 0.7, DAY_BEFORE, "good"), "▲ +20 pts better: 70 %"),
        (points(0.1, 0.1004, DAY_BEFORE, "good"), "no change: 10 %"),
        (difference(1, 4, DAY_BEFORE, "bad"), "▼ −3 better: 4"),
    ],
)
def test_a_change_has_a_direction_a_size_and_a_meaning(shown: Markup, text: str) -> None:
    assert shown.striptags() == f"{text} in the 24 hours before"


def test_spend_shows_what_each_key_has_spent_of_its_budget(quiet: World, visitor: TestClient) -> None:
    spend_on(quiet, "web <shop>", 25 * USD, 420_000_000)
    spend_on(quiet, "night report", 2 * USD, 1_700_000_000, window="day")
    gone = spend_on(quiet, "old notebook", USD, USD)
    quiet.services.keys.revoke(quiet.actor, gone.id)
    quiet.services.keys.create(quiet.actor, "unlimited")

    page = visitor.get("/spend").text

    rows = re.findall(r'<th scope="row" class="full">(.+?)</th><td data-label="Spent">(.+?)</td>', page)
    assert [(name, Markup(text).striptags()) for name, text in rows] == [
        ("key night report", "$1.70 of $2 today nearly spent"),
        ("key web &lt;shop&gt;", "$0.42 of $25 this month"),
    ]


def test_a_key_near_its_budgets_end_is_told_on_the_overview(quiet: World, visitor: TestClient) -> None:
    spend_on(quiet, "plenty", 10 * USD, 7 * USD)
    assert "of its budget" not in visitor.get("/").text

    spend_on(quiet, "little", 10 * USD, 8 * USD)
    spend_on(quiet, "nothing", 10 * USD, 10 * USD, window="total")

    page = Markup(visitor.get("/").text).unescape()
    assert "The key “little” has spent 80 % of its budget: $8.00 of $10 this month." in page
    assert "The key “nothing” has spent its budget ($10.00 of $10 in all): its requests are refused." in page
    assert page.index("“nothing”") < page.index("“little”")
    assert "plenty" not in page


def test_a_spent_soft_budget_and_a_teams_are_told_on_the_overview(quiet: World, visitor: TestClient) -> None:
    spend_on(quiet, "soft", 10 * USD, 11 * USD, hard=False)
    team = quiet.services.teams.create(quiet.actor, "support")
    limits = quiet.services.limits.set(
        quiet.actor, "team", team.id, Limits(budgets=(Budget(10 * USD, "week"),))
    )
    spend(quiet, 9 * USD, team_scope(team, limits))

    page = Markup(visitor.get("/").text).unescape()

    assert "The key “soft” has spent its soft budget ($11.00 of $10 this month); nothing is refused." in page
    assert "The team “support” has spent 90 % of its budget: $9.00 of $10 this week." in page


def test_an_apps_cost_stands_beside_the_budgets_of_the_keys_that_may_ask_it(
    quiet: World, visitor: TestClient
) -> None:
    record(quiet, 0)
    spend_on(quiet, "web", 10 * USD, 1 * USD, models=("shop-bot",))
    spend_on(quiet, "any", 20 * USD, 2 * USD)
    spend_on(quiet, "daily", 5 * USD, 500_000_000, models=("shop-*",), window="day")
    spend_on(quiet, "other", 90 * USD, 9 * USD, models=("other-bot",))

    page = visitor.get("/").text

    assert "keys: $0.50 of $5 today, $3.00 of $30 this month" in page

    own = Limits(budgets=(Budget(50 * USD, "week"), Budget(40 * USD, "week", hard=False)))
    quiet.services.limits.set(quiet.actor, "app", "shop-bot", own)
    spend(quiet, 4 * USD, LimitScope("app", "shop-bot", "shop-bot", own))
    assert "app: $4.00 of $50 this week; keys: $0.50" in visitor.get("/").text


def test_the_audit_log_is_verified_when_asked_and_says_when(quiet: World, visitor: TestClient) -> None:
    assert "has not verified the log" in visitor.get("/audit").text

    asked = Markup(visitor.get("/audit?verify=1").text).striptags()

    assert "The log was whole when it was verified just now" in asked
    rows = quiet.services.audit.verify().rows
    assert f": {rows} row" in asked
    quiet.services.keys.create(quiet.actor, "later")
    later = Markup(visitor.get("/audit").text).striptags()
    assert f": {rows} row" in later  # what was found then; not verified again


def test_an_outside_service_is_named_as_one_and_leads_to_its_traces(
    quiet: World, visitor: TestClient
) -> None:
    record(quiet, 0, attributes={Attr.APP: None}, resource={"service.name": "web-shop"})

    pages = {path: visitor.get(path).text for path in ("/", "/traces", "/spend")}

    assert "outside service" in pages["/"]
    assert "no release in production" not in pages["/"]
    for path, page in pages.items():
        assert "/apps/web-shop" not in page, path
        assert 'href="/traces?q=app%3Aweb-shop"' in page, path


def test_refusals_of_wrong_requests_are_not_counted_as_failures(quiet: World, visitor: TestClient) -> None:
    for code in ("content_policy_violation", "insufficient_quota", "engine_failed", "cancelled"):
        record(quiet, 0, status="error", attributes={Attr.ERROR_TYPE: code})
    record(quiet, 0)

    page, listed = visitor.get("/").text, visitor.get("/traces").text

    assert (
        "shop-bot: 1 request of 5 failed in the last 24 hours (2 refused, 1 broken off by the caller)" in page
    )
    assert "20 %" in page
    for text in ("refused: insufficient_quota", "failed: engine_failed", "broken off: cancelled"):
        assert text in listed


def test_spend_without_any_cost_says_so_and_draws_no_scale(quiet: World, visitor: TestClient) -> None:
    record(quiet, 0, attributes={Attr.COST_NUSD: 0})

    page = visitor.get("/spend").text

    assert "Nothing was spent in these days" in page
    assert 'class="scale"' not in page


def test_the_grounded_figure_says_that_it_measures_the_models_sentences(
    quiet: World, visitor: TestClient
) -> None:
    replaced = {
        Attr.GROUNDED_SHARE: 0.0,
        Attr.ANSWERED_BY: "local/extractive",
        "mainstay.grounding.fallback": "extractive",
    }
    record(quiet, 0, attributes=replaced)
    (row,) = quiet.services.traces.list()

    trace = Markup(visitor.get(f"/traces/{row.trace_id}").text).striptags()

    assert "0 % of the model's sentences; replaced, answered by local/extractive" in trace
    assert "of the model's sentences" in Markup(visitor.get("/").text).striptags()
    assert "shown or taken out; answered by local/extractive" in visitor.get("/traces").text
