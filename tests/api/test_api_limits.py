"""Limits, budgets, teams, projects and the new fields of keys, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mainstay.app import build_control_app
from mainstay.core.config import load_settings
from mainstay.govern import SYSTEM, Role
from mainstay.services import Services, build_services, close_services
from mainstay.serving.limits.types import Ask

LIMITS = {
    "requests_per_minute": 60,
    "tokens_per_minute": None,
    "concurrent_requests": 8,
    "budgets": [
        {"limit_usd": "5", "window": "day", "hard": True},
        {"limit_usd": "80.000000001", "window": "month", "hard": False},
    ],
}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    built = build_services(load_settings({"data_dir": tmp_path / "data"}, {}, tmp_path))
    yield built
    close_services(built)


def client_of(services: Services, role: Role) -> TestClient:
    _, token = services.keys.create(SYSTEM, f"the {role}", role=role)
    services.refresher.refresh()
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    return TestClient(build_control_app(services), headers=headers)


@pytest.fixture
def admin(services: Services) -> Iterator[TestClient]:
    client = client_of(services, "admin")
    yield client
    client.close()


def made(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_limits_are_read_in_the_form_they_are_set(admin: TestClient) -> None:
    team = made(admin, "teams", name="support")

    answer = admin.put("/api/v1/limits/team/support", json=LIMITS)

    assert answer.status_code == 200
    scope = {"kind": "team", "id": team["id"], "name": "support", "limits": LIMITS}
    assert answer.json() == admin.get(f"/api/v1/limits/team/{team['id']}").json() == scope
    assert (
        admin.get("/api/v1/limits").json()
        == admin.get("/api/v1/limits?kind=team").json()
        == {"limits": [scope]}
    )
    assert admin.get("/api/v1/limits?kind=app").json() == {"limits": []}
    assert admin.put("/api/v1/limits/team/support", json=answer.json()["limits"]).json() == scope


def test_cleared_limits_are_gone(admin: TestClient) -> None:
    admin.put("/api/v1/limits/app/bot", json=LIMITS)
    first, second = (admin.delete("/api/v1/limits/app/bot").json() for _ in range(2))
    assert (first["cleared"], second["cleared"]) == (True, False)
    assert admin.get("/api/v1/limits").json() == {"limits": []}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("app/bot", {"requests_per_minute": 0}, 400),
        ("app/bot", {"requests_per_minute": 10**30}, 400),
        ("app/bot", {"budgets": [{"limit_usd": "1e9999", "window": "day"}]}, 400),
        ("app/bot", {"budgets": [{"limit_usd": "5", "window": "year"}]}, 400),
        ("app/bot", {"budgets": [{"limit_usd": "5", "window": "day"}] * 2}, 400),
        ("app/bot", {"surprise": 1}, 400),
        ("city/bot", {}, 400),
        ("team/nobody", {}, 404),
    ],
)
def test_limits_that_make_no_sense_are_the_callers_mistake(
    admin: TestClient, path: str, body: dict[str, Any], status: int
) -> None:
    answer = admin.put(f"/api/v1/limits/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_a_viewer_reads_limits_and_changes_none(services: Services, admin: TestClient) -> None:
    team = made(admin, "teams", name="support")
    admin.put("/api/v1/limits/app/bot", json=LIMITS)
    viewer = client_of(services, "viewer")

    for path in ("limits", "limits/app/bot", "budgets", "teams", "projects"):
        assert viewer.get(f"/api/v1/{path}").status_code == 200, path
    for method, path, body in (
        ("PUT", "limits/app/bot", LIMITS),
        ("DELETE", "limits/app/bot", None),
        ("POST", "teams", {"name": "x"}),
        ("PATCH", f"teams/{team['id']}", {"name": "x"}),
        ("DELETE", f"teams/{team['id']}", None),
        ("POST", "projects", {"name": "x"}),
        ("PATCH", "keys/key_1", {"team": None}),
    ):
        assert viewer.request(method, f"/api/v1/{path}", json=body).status_code == 403, (method, path)
    viewer.close()


async def test_budgets_say_what_is_spent_and_left(services: Services, admin: TestClient) -> None:
    admin.put("/api/v1/limits/app/bot", json=LIMITS)
    (scope,) = services.directory().scopes(services.limits.all())
    limiter = services.deps.limiter
    await limiter.reserve([scope], Ask(0, 40, 0))
    limiter.settle(await limiter.reserve([scope], Ask(0, 1_000, 0)), 900, 0)

    day, month = admin.get("/api/v1/budgets").json()["budgets"]

    assert (day["kind"], day["scope_id"], day["window"], day["hard"]) == ("app", "bot", "day", True)
    assert (day["spent_nusd"], day["held_nusd"], day["available_nusd"]) == (900, 40, 5 * 10**9 - 940)
    assert (month["window"], month["hard"], month["limit_nusd"]) == ("month", False, 80 * 10**9 + 1)


def test_a_key_is_made_with_owners_and_limits_and_assigned_anew(admin: TestClient) -> None:
    team, project = made(admin, "teams", name="support"), made(admin, "projects", name="shop", team="support")
    assert project["team_id"] == team["id"]

    key = made(admin, "keys", name="web", project="shop", team="support", limits=LIMITS)

    assert (key["project_id"], key["team_id"], key["user_id"]) == (project["id"], team["id"], None)
    assert key["limits"] == LIMITS
    moved = admin.patch(f"/api/v1/keys/{key['id']}", json={"team": None}).json()
    assert (moved["project_id"], moved["team_id"]) == (project["id"], None)
    listed = next(k for k in admin.get("/api/v1/keys").json()["keys"] if k["id"] == key["id"])
    assert listed == moved
    assert "token_hash" not in moved
    assert admin.post("/api/v1/keys", json={"name": "x", "team": "nobody"}).status_code == 404


def test_the_short_form_of_a_keys_budget_still_works_but_not_beside_limits(admin: TestClient) -> None:
    key = made(admin, "keys", name="web", budget_usd="2.50", requests_per_minute=5)
    assert key["limits"]["requests_per_minute"] == 5
    assert key["limits"]["budgets"] == [{"limit_usd": "2.5", "window": "month", "hard": True}]
    twice = admin.post("/api/v1/keys", json={"name": "x", "budget_usd": "1", "limits": LIMITS})
    assert twice.status_code == 400
    assert "twice" in twice.json()["error"]["message"]


def test_teams_and_projects_are_changed_and_deleted(admin: TestClient) -> None:
    made(admin, "teams", name="support")
    made(admin, "projects", name="shop", team="support")
    assert admin.post("/api/v1/teams", json={"name": "support"}).status_code == 409
    assert admin.delete("/api/v1/teams/support").status_code == 409
    assert admin.patch("/api/v1/teams/support", json={"name": "care"}).json()["name"] == "care"
    changed = admin.patch("/api/v1/projects/shop", json={"name": "store", "team": None}).json()
    assert (changed["name"], changed["team_id"]) == ("store", None)
    assert admin.patch("/api/v1/projects/store", json={}).status_code == 400
    assert admin.delete("/api/v1/teams/care").json()["state"] == "deleted"
    assert admin.delete("/api/v1/projects/store").json()["state"] == "deleted"
    assert admin.get("/api/v1/teams").json() == {"teams": []}


def test_the_apis_description_shows_an_example_of_each_new_body(services: Services) -> None:
    described = build_control_app(services).openapi()
    for path, operations in described["paths"].items():
        if path.removeprefix("/api/v1/").split("/")[0] in ("limits", "budgets", "teams", "projects"):
            for operation in operations.values():
                status = "201" if "201" in operation["responses"] else "200"
                content = operation["responses"][status]["content"]["application/json"]
                assert content["example"], path
    for name in ("NewKey", "KeyOwners", "LimitsBody", "NewTeam", "NewProject", "ChangedProject"):
        assert described["components"]["schemas"][name]["examples"]
