"""The page of budgets: where each stands, the form that sets limits, teams and projects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import Markup
from starlette.testclient import TestClient
from web_world import PASSWORD, USD, World, build_world, post, spend, team_scope

from mainstay.app import build_control_app
from mainstay.govern import Budget, Limits, LimitScope
from mainstay.services import close_services
from mainstay.serving.errors import BudgetStoreUnavailable
from mainstay.serving.limits import MemoryLimiter
from mainstay.serving.limits.types import BudgetState
from mainstay.web import SESSION_COOKIE

MONTHLY = Limits(
    requests_per_minute=60,
    tokens_per_minute=100_000,
    budgets=(Budget(50 * USD, "month"), Budget(40 * USD, "month", hard=False)),
)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[World]:
    """A Mainstay without apps and traffic, with an administrator and a viewer."""
    world = build_world(tmp_path)
    world.services.users.create(world.actor, "ada@example.org", "Ada Lindqvist", "admin", PASSWORD)
    world.services.users.create(world.actor, "vic@example.org", "Vic Moreau", "viewer", PASSWORD)
    yield world
    close_services(world.services)


@pytest.fixture
def admin(quiet: World) -> Iterator[TestClient]:
    with_session = client_of(quiet, "ada@example.org")
    yield with_session
    with_session.close()


def client_of(world: World, email: str) -> TestClient:
    client = TestClient(world.app, follow_redirects=False)
    user = world.services.users.by_email(email)
    client.cookies.set(SESSION_COOKIE, world.services.sessions.start(user.id).reveal())
    return client


def rows_of(page: str) -> list[str]:
    """The rows of the table of limits, as text."""
    table = page[page.index("<caption") : page.index("</table>")]
    return [
        " ".join(Markup(row).striptags().split())
        for row in re.findall(r"(?s)<tr>\s*<th scope=\"row\".*?</tr>", table)
    ]


def test_every_budget_is_a_row_that_says_what_is_spent_held_and_left(quiet: World, admin: TestClient) -> None:
    team = quiet.services.teams.create(quiet.actor, "support <b>")
    quiet.services.limits.set(quiet.actor, "team", team.id, MONTHLY)
    quiet.services.limits.set(quiet.actor, "app", "shop-bot", Limits(concurrent_requests=3))
    spend(quiet, 41 * USD, team_scope(team, MONTHLY))

    hard, soft, rates = rows_of(admin.get("/budgets").text)

    assert hard.startswith("team support <b>60 requests a minute, 100,000 tokens a minute")
    assert "$50 a month nearly spent $41.00 $0 $9.00 of $50.00 in " in hard
    assert "$40 a month (soft) over the soft budget $41.00 $0 $0 of $40.00 in " in soft
    assert rates.startswith("app shop-bot3 requests at once")
    assert "no budget, only rates" in rates


def test_the_bar_of_what_is_left_has_its_text_beside_it(quiet: World, admin: TestClient) -> None:
    limits = quiet.services.limits.set(quiet.actor, "app", "bot", Limits(budgets=(Budget(8 * USD, "week"),)))
    spend(quiet, 2 * USD, LimitScope("app", "bot", "bot", limits))
    page = admin.get("/budgets").text
    assert re.search(r'<svg class="left-bar "[^>]*aria-hidden="true"><rect[^>]*/><rect width="75.00"', page)
    assert "$6.00 <span" in page


def test_limits_are_set_changed_and_cleared_by_form(quiet: World, admin: TestClient) -> None:
    team = quiet.services.teams.create(quiet.actor, "support")
    of = f"team:{team.id}"

    answer = post(
        admin,
        "/budgets/limits",
        of=of,
        fresh="1",
        hard_month="$500",
        soft_month="400",
        requests_per_minute="60",
    )
    assert answer.headers["location"] == "/budgets?done=limits-set"
    assert quiet.services.limits.get("team", team.id) == Limits(
        requests_per_minute=60, budgets=(Budget(500 * USD, "month"), Budget(400 * USD, "month", hard=False))
    )

    form = admin.get(f"/budgets?of={of}").text
    for name, value in (("hard_month", "500"), ("soft_month", "400"), ("requests_per_minute", "60")):
        assert re.search(rf'name="{name}"[^>]* value="{value}"', form), name
    post(admin, "/budgets/limits", of=of, hard_day="0.5")
    assert quiet.services.limits.get("team", team.id) == Limits(budgets=(Budget(USD // 2, "day"),))

    post(admin, "/budgets/clear", of=of)
    assert quiet.services.limits.all() == {}
    assert [e.action for e in quiet.services.audit.list(limit=3)] == [
        "limits.cleared",
        "limits.set",
        "limits.set",
    ]


def test_what_has_limits_is_not_offered_for_new_ones(quiet: World, admin: TestClient) -> None:
    free, limited = (quiet.services.teams.create(quiet.actor, name) for name in ("free", "limited"))
    quiet.services.limits.set(quiet.actor, "team", limited.id, MONTHLY)

    page = admin.get("/budgets").text

    assert f'<option value="team:{free.id}">free</option>' in page
    assert f'<option value="team:{limited.id}">' not in page
    late = post(admin, "/budgets/limits", of=f"team:{limited.id}", fresh="1", hard_day="1")
    assert late.status_code == 409
    assert "It has limits by now" in late.text
    assert quiet.services.limits.get("team", limited.id) == MONTHLY


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("hard_day", "1,5", "is no amount"),
        ("soft_week", "much", "is no amount"),
        ("requests_per_minute", "many", "Requests a minute must be a whole number"),
    ],
)
def test_a_mistake_comes_back_at_its_field_with_what_was_typed(
    quiet: World, admin: TestClient, field: str, typed: str, said: str
) -> None:
    given = {"of": "app:bot", "hard_month": "7", field: typed}
    answer = post(admin, "/budgets/limits", **given)
    assert answer.status_code == 400
    assert re.search(r'name="hard_month"[^>]* value="7"', answer.text)
    wrong = rf'name="{field}"[^>]* value="{typed}"[^>]* aria-invalid="true"[^>]*>\s*<p class="wrong"[^>]*>.*{said}'
    assert re.search(wrong, answer.text)
    assert quiet.services.limits.all() == {}


def test_limits_that_contradict_are_told_at_the_top_of_the_form(quiet: World, admin: TestClient) -> None:
    answer = post(admin, "/budgets/limits", of="app:bot", hard_day="5", soft_day="6")
    assert answer.status_code == 400
    assert "would never warn" in answer.text
    assert 'role="alert"' in answer.text
    nothing = post(admin, "/budgets/limits", of="app:bot", fresh="1")
    assert "No limit was given" in nothing.text
    gone = post(admin, "/budgets/limits", of="team:team_gone", hard_day="5")
    assert gone.status_code == 404
    nobody = post(admin, "/budgets/limits", of="", fresh="1", hard_day="5")
    assert "what is to be limited" in nobody.text
    assert quiet.services.limits.all() == {}


def test_a_viewer_sees_budgets_and_no_forms(quiet: World) -> None:
    quiet.services.limits.set(quiet.actor, "app", "bot", MONTHLY)
    viewer = client_of(quiet, "vic@example.org")
    page = viewer.get("/budgets").text
    assert "$50 a month" in page
    assert 'action="/budgets' not in page
    assert post(viewer, "/budgets/limits", of="app:bot", hard_day="5").status_code == 403
    assert quiet.services.limits.get("app", "bot") == MONTHLY
    viewer.close()


def test_teams_and_projects_are_made_renamed_moved_and_deleted_by_form(
    quiet: World, admin: TestClient
) -> None:
    parts = quiet.services
    post(admin, "/budgets/teams", name="support")
    team = parts.teams.list()[0]
    post(admin, "/budgets/projects", name="shop", team=team.id)
    project = parts.projects.list()[0]
    assert project.team_id == team.id
    assert post(admin, f"/budgets/teams/{team.id}/delete").status_code == 409

    post(admin, f"/budgets/teams/{team.id}/rename", name="care")
    post(admin, f"/budgets/projects/{project.id}/rename", name="store")
    post(admin, f"/budgets/projects/{project.id}/move", team="")
    page = admin.get("/budgets").text
    assert "care" in page
    assert "store" in page
    assert (parts.teams.list()[0].name, parts.projects.list()[0].team_id) == ("care", None)

    post(admin, f"/budgets/teams/{team.id}/delete")
    post(admin, f"/budgets/projects/{project.id}/delete")
    assert parts.teams.list() == parts.projects.list() == ()


def test_a_taken_name_comes_back_in_its_form(quiet: World, admin: TestClient) -> None:
    for path in ("/budgets/teams", "/budgets/projects"):
        post(admin, path, name="support")
        again = post(admin, path, name="support")
        assert again.status_code == 409
        assert re.search(r'name="name"[^>]* value="support"[^>]* aria-invalid="true"', again.text)


def test_a_key_is_made_for_a_project_and_assigned_anew(quiet: World, admin: TestClient) -> None:
    parts = quiet.services
    team = parts.teams.create(quiet.actor, "support")
    project = parts.projects.create(quiet.actor, "shop")
    ada = parts.users.by_email("ada@example.org")
    fields = {"project": project.id, "user": ada.id, "tokens_per_minute": "900", "concurrent_requests": "2"}
    post(admin, "/people/keys", name="web", **fields)
    (key,) = parts.keys.list()
    assert (key.project_id, key.user_id, key.team_id) == (project.id, ada.id, None)
    assert key.limits == Limits(tokens_per_minute=900, concurrent_requests=2)

    post(admin, f"/people/keys/{key.id}/assign", team=team.id)

    assert (parts.keys.list()[0].project_id, parts.keys.list()[0].team_id) == (None, team.id)
    page = admin.get("/people").text
    assert '<span class="soft">team</span> support' in page
    assert "900 tokens a minute, 2 requests at once" in page


class GoneLimiter(MemoryLimiter):
    """Shared counters that cannot be reached."""

    async def states(self, scopes: Sequence[LimitScope]) -> tuple[BudgetState, ...]:
        raise BudgetStoreUnavailable("The counters cannot be reached.")


def test_pages_say_so_while_the_counters_cannot_be_read(quiet: World) -> None:
    quiet.services.limits.set(quiet.actor, "app", "bot", MONTHLY)
    deps = replace(quiet.services.deps, limiter=GoneLimiter())
    broken = replace(quiet, app=build_control_app(replace(quiet.services, deps=deps)))
    visitor = client_of(broken, "ada@example.org")

    page = visitor.get("/budgets").text

    assert "The counters cannot be reached." in page
    assert "$50 a month" in page
    assert "it cannot be read now" in page
    assert visitor.get("/").status_code == visitor.get("/spend").status_code == 200
    visitor.close()
