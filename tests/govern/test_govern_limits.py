"""Limits at five levels: what makes sense, who falls under which, teams and projects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from mainstay.core.database import Database, read_change_counter
from mainstay.core.errors import Conflict, InvalidInput, NotFound
from mainstay.govern import (
    SYSTEM,
    UNLIMITED,
    ApiKey,
    AuditLog,
    Budget,
    Directory,
    KeyStore,
    Limits,
    LimitScope,
    LimitStore,
    Project,
    ProjectStore,
    Team,
    TeamStore,
    User,
    UserStore,
    app_scope,
    budget_from_text,
    budget_text,
    limit_texts,
    limits_from_json,
    limits_to_json,
    scopes_of,
)

USD = 10**9
SOME = Limits(requests_per_minute=60, budgets=(Budget(5 * USD, "day"),))


@pytest.fixture
def limits(database: Database) -> LimitStore:
    return LimitStore(database)


@pytest.fixture
def teams(database: Database) -> TeamStore:
    return TeamStore(database)


@pytest.fixture
def projects(database: Database) -> ProjectStore:
    return ProjectStore(database)


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database, b"k" * 32)


# -- the store ----------------------------------------------------------------------------------------------


def test_limits_are_kept_for_each_kind_of_scope(
    database: Database, limits: LimitStore, teams: TeamStore, projects: ProjectStore, keys: KeyStore
) -> None:
    ada = UserStore(database).create(SYSTEM, "ada@example.org", "Ada", "viewer", None)
    ids: dict[Any, str] = {
        "key": keys.create(SYSTEM, "web")[0].id,
        "user": ada.id,
        "team": teams.create(SYSTEM, "support").id,
        "project": projects.create(SYSTEM, "shop").id,
        "app": "shop-bot",
    }

    for kind, scope_id in ids.items():
        limits.set(SYSTEM, kind, scope_id, SOME)

    assert limits.all() == dict.fromkeys(ids.items(), SOME)
    assert limits.get("team", ids["team"]) == SOME
    assert keys.list()[0].limits == SOME


def test_setting_limits_replaces_what_was_set_before(limits: LimitStore) -> None:
    limits.set(SYSTEM, "app", "bot", SOME)
    limits.set(SYSTEM, "app", "bot", Limits(concurrent_requests=3))
    assert limits.get("app", "bot") == Limits(concurrent_requests=3)


def test_cleared_limits_are_gone_and_clearing_twice_is_no_error(limits: LimitStore) -> None:
    limits.set(SYSTEM, "app", "bot", SOME)
    assert limits.clear(SYSTEM, "app", "bot")
    assert not limits.clear(SYSTEM, "app", "bot")
    assert limits.get("app", "bot") == UNLIMITED
    limits.set(SYSTEM, "app", "bot", SOME)
    limits.set(SYSTEM, "app", "bot", UNLIMITED)
    assert limits.all() == {}


def test_every_change_of_limits_is_audited_and_told_to_gateways(
    database: Database, limits: LimitStore
) -> None:
    limits.set(SYSTEM, "app", "bot", SOME)
    limits.clear(SYSTEM, "app", "bot")
    limits.clear(SYSTEM, "app", "bot")

    entries = AuditLog(database).list()

    assert [(e.action, e.target) for e in entries] == [("limits.cleared", "bot"), ("limits.set", "bot")]
    assert entries[1].detail == {"kind": "app", **limits_to_json(SOME)}
    assert read_change_counter(database) == 2
    assert AuditLog(database).verify().ok


def test_limits_of_what_is_not_there_are_refused(limits: LimitStore) -> None:
    for kind in ("key", "user", "team", "project"):
        with pytest.raises(NotFound):
            limits.set(SYSTEM, kind, f"{kind}_none", SOME)  # type: ignore[arg-type]
    for kind, name in (("app", " "), ("app", " bot"), ("app", "b\x00t"), ("city", "x")):
        with pytest.raises(InvalidInput):
            limits.set(SYSTEM, kind, name, SOME)  # type: ignore[arg-type]
    assert limits.all() == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Limits(requests_per_minute=0), "0 requests a minute"),
        (Limits(requests_per_minute=10**9), "requests a minute"),
        (Limits(tokens_per_minute=-1), "tokens a minute"),
        (Limits(concurrent_requests=10**9), "requests at once"),
        (Limits(budgets=(Budget(-1, "day"),)), "below zero"),
        (Limits(budgets=(Budget(2 * 10**18, "day"),)), "too large"),
        (Limits(budgets=(Budget(1, "year"),)), "no budget window"),  # type: ignore[arg-type]
        (Limits(budgets=(Budget(1, "day"), Budget(2, "day"))), "2 hard budgets a day"),
        (Limits(budgets=(Budget(1, "day", hard=False),) * 2), "2 soft budgets a day"),
        (Limits(budgets=(Budget(5 * USD, "day"), Budget(6 * USD, "day", hard=False))), "would never warn"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: LimitStore, wrong: Limits, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        limits.set(SYSTEM, "app", "bot", wrong)
    assert limits.all() == {}


def test_a_budget_of_nothing_and_a_soft_one_of_another_window_are_allowed(limits: LimitStore) -> None:
    given = Limits(budgets=(Budget(80 * USD, "month", hard=False), Budget(0, "day")))
    stored = limits.set(SYSTEM, "app", "bot", given)
    assert stored == limits.get("app", "bot")
    assert stored.budgets == (Budget(0, "day"), Budget(80 * USD, "month", hard=False))


some_budgets = st.lists(
    st.builds(
        Budget, st.integers(0, 10**18), st.sampled_from(["day", "week", "month", "total"]), st.booleans()
    ),
    max_size=8,
).map(tuple)
rates = st.none() | st.integers(1, 10**6)


@given(st.builds(Limits, rates, rates, rates, some_budgets))
def test_limits_come_back_from_json_as_they_were(given_limits: Limits) -> None:
    assert limits_from_json(limits_to_json(given_limits)) == given_limits


# -- as people write them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget", "shown"),
    [
        ("5/day", Budget(5 * USD, "day"), "$5 a day"),
        ("$100 / month", Budget(100 * USD, "month"), "$100 a month"),
        ("0.5/week", Budget(USD // 2, "week"), "$0.50 a week"),
        ("25", Budget(25 * USD, "month"), "$25 a month"),
        ("1000/total", Budget(1000 * USD, "total"), "$1,000 in all"),
    ],
)
def test_a_budget_is_written_as_an_amount_and_a_window(text: str, budget: Budget, shown: str) -> None:
    assert budget_from_text(text, window="month") == budget
    assert budget_text(budget) == shown
    assert budget_text(replace(budget, hard=False)) == f"{shown} (soft)"


@pytest.mark.parametrize("text", ["5/year", "5", "/day", "five/day", "-1/day", "nan/day", "1e10/day", ""])
def test_a_budget_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        budget_from_text(text)


def test_limits_are_told_one_phrase_each() -> None:
    told = limit_texts(Limits(60, 100_000, 8, (Budget(5 * USD, "day"),)))
    assert told == ("60 requests a minute", "100,000 tokens a minute", "8 requests at once", "$5 a day")


# -- teams and projects -------------------------------------------------------------------------------------


def test_teams_and_projects_are_made_renamed_and_moved(teams: TeamStore, projects: ProjectStore) -> None:
    support, sales = teams.create(SYSTEM, " support "), teams.create(SYSTEM, "sales")
    shop = projects.create(SYSTEM, "shop", support.id)

    teams.rename(SYSTEM, support.id, "care")
    projects.rename(SYSTEM, shop.id, "web shop")
    projects.move(SYSTEM, shop.id, sales.id)

    assert teams.list() == (Team(support.id, "care"), sales)
    assert projects.list() == (Project(shop.id, "web shop", sales.id),)
    assert projects.move(SYSTEM, shop.id, None).team_id is None
    assert teams.rename(SYSTEM, sales.id, "sales") == sales  # its own name is not taken


def test_each_change_of_a_team_or_project_is_audited(
    database: Database, teams: TeamStore, projects: ProjectStore
) -> None:
    team = teams.create(SYSTEM, "support")
    project = projects.create(SYSTEM, "shop")
    teams.rename(SYSTEM, team.id, "care")
    projects.rename(SYSTEM, project.id, "store")
    projects.move(SYSTEM, project.id, team.id)
    projects.delete(SYSTEM, project.id)
    teams.delete(SYSTEM, team.id)

    actions = [e.action for e in reversed(AuditLog(database).list())]

    made = ["team.created", "project.created", "team.renamed", "project.renamed", "project.moved"]
    assert actions == [*made, "project.deleted", "team.deleted"]
    assert read_change_counter(database) == len(actions)


def test_a_name_is_given_once(teams: TeamStore, projects: ProjectStore) -> None:
    teams.create(SYSTEM, "support")
    projects.create(SYSTEM, "support")
    for store in (teams, projects):
        with pytest.raises(Conflict):
            store.create(SYSTEM, "support")  # type: ignore[attr-defined]
        other = store.create(SYSTEM, "other")  # type: ignore[attr-defined]
        with pytest.raises(Conflict):
            store.rename(SYSTEM, other.id, "support")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "line\nbreak", "x" * 201])
def test_a_name_nobody_could_read_is_refused(teams: TeamStore, projects: ProjectStore, name: str) -> None:
    for store in (teams, projects):
        with pytest.raises(InvalidInput):
            store.create(SYSTEM, name)  # type: ignore[attr-defined]


def test_what_is_used_is_not_deleted(teams: TeamStore, projects: ProjectStore, keys: KeyStore) -> None:
    support, sales = teams.create(SYSTEM, "support"), teams.create(SYSTEM, "sales")
    shop = projects.create(SYSTEM, "shop", sales.id)
    key, _ = keys.create(SYSTEM, "web", team_id=support.id, project_id=shop.id)

    with pytest.raises(Conflict, match="key web"):
        teams.delete(SYSTEM, support.id)
    with pytest.raises(Conflict, match="project shop"):
        teams.delete(SYSTEM, sales.id)
    with pytest.raises(Conflict, match="key web"):
        projects.delete(SYSTEM, shop.id)

    keys.revoke(SYSTEM, key.id)
    projects.delete(SYSTEM, shop.id)
    teams.delete(SYSTEM, support.id)
    teams.delete(SYSTEM, sales.id)
    assert (teams.list(), projects.list()) == ((), ())


def test_a_deleted_team_takes_its_limits_along(teams: TeamStore, limits: LimitStore) -> None:
    team = teams.create(SYSTEM, "support")
    limits.set(SYSTEM, "team", team.id, SOME)
    teams.delete(SYSTEM, team.id)
    assert limits.all() == {}


def test_changing_what_is_not_there_is_not_found(teams: TeamStore, projects: ProjectStore) -> None:
    project = projects.create(SYSTEM, "shop")
    for change in (
        lambda: teams.rename(SYSTEM, "team_none", "x"),
        lambda: teams.delete(SYSTEM, "team_none"),
        lambda: projects.create(SYSTEM, "x", "team_none"),
        lambda: projects.rename(SYSTEM, "project_none", "x"),
        lambda: projects.move(SYSTEM, project.id, "team_none"),
        lambda: projects.move(SYSTEM, "project_none", None),
        lambda: projects.delete(SYSTEM, "project_none"),
    ):
        with pytest.raises(NotFound):
            change()


# -- which limits a key falls under -------------------------------------------------------------------------

ADA = User("user_a", "ada@example.org", "Ada", "viewer", 0, None)
SUPPORT, SALES = Team("team_support", "support"), Team("team_sales", "sales")
SHOP = Project("project_shop", "shop", SALES.id)
TEAMS, PROJECTS, USERS = {t.id: t for t in (SUPPORT, SALES)}, {SHOP.id: SHOP}, {ADA.id: ADA}


def a_key(limits: Limits = UNLIMITED, **owners: str) -> ApiKey:
    return ApiKey("key_1", "web", "ms-", "hash", "viewer", None, frozenset(), limits, 0, None, None, **owners)


def test_a_key_falls_under_its_own_limits_and_its_owners_in_order() -> None:
    stored = dict.fromkeys((("project", SHOP.id), ("team", SUPPORT.id), ("user", ADA.id)), SOME)
    key = a_key(SOME, user_id=ADA.id, team_id=SUPPORT.id, project_id=SHOP.id)

    scopes = scopes_of(key, TEAMS, PROJECTS, USERS, stored)  # type: ignore[arg-type]

    assert scopes == (
        LimitScope("key", "key_1", "web", SOME),
        LimitScope("user", ADA.id, "Ada", SOME),
        LimitScope("team", SUPPORT.id, "support", SOME),
        LimitScope("project", SHOP.id, "shop", SOME),
    )


def test_a_projects_team_counts_where_the_key_names_none() -> None:
    stored: Any = {("team", SALES.id): SOME, ("team", SUPPORT.id): SOME}
    (scope,) = scopes_of(a_key(project_id=SHOP.id), TEAMS, PROJECTS, USERS, stored)
    assert scope.name == "sales"
    (scope,) = scopes_of(a_key(project_id=SHOP.id, team_id=SUPPORT.id), TEAMS, PROJECTS, USERS, stored)
    assert scope.name == "support"


def test_a_scope_without_limits_is_left_out_and_one_with_a_soft_budget_is_not() -> None:
    soft = Limits(budgets=(Budget(USD, "day", hard=False),))
    key = a_key(user_id=ADA.id, team_id=SUPPORT.id)
    (scope,) = scopes_of(key, TEAMS, PROJECTS, USERS, {("team", SUPPORT.id): soft})
    assert scope == LimitScope("team", SUPPORT.id, "support", soft)
    assert scopes_of(key, {}, {}, {}, {("team", SUPPORT.id): soft}) == ()


def test_an_apps_limits_are_a_scope_of_their_own() -> None:
    assert app_scope("bot", {("app", "bot"): SOME}) == LimitScope("app", "bot", "bot", SOME)
    assert app_scope("bot", {("team", "bot"): SOME}) is None


# -- finding by name ----------------------------------------------------------------------------------------


def test_a_scope_is_found_by_its_id_its_name_or_an_address() -> None:
    directory = Directory.of([a_key()], [ADA], [SUPPORT, SALES], [SHOP])
    assert directory.find("key", "web") == directory.find("key", "key_1") == "key_1"
    assert directory.find("user", "Ada") == directory.find("user", "ADA@example.org") == ADA.id
    assert directory.find("team", "support") == SUPPORT.id
    assert directory.find("project", "shop") == SHOP.id
    assert directory.find("app", "any-bot") == "any-bot"
    with pytest.raises(NotFound, match="'support'"):
        directory.find("team", "suport")


def test_a_name_of_several_keys_is_not_guessed() -> None:
    directory = Directory.of([a_key(), replace(a_key(), id="key_2")], [], [], [])
    with pytest.raises(InvalidInput, match="key_1, key_2"):
        directory.find("key", "web")


def test_everything_in_use_with_limits_is_listed() -> None:
    gone = replace(ADA, id="user_b", name="Bo", disabled_at_us=5)
    old = replace(a_key(), id="key_2", revoked_at_us=5)
    directory = Directory.of([a_key(), old], [ADA, gone], [SUPPORT], [])
    ids: Any = ("key_1", "key"), ("key_2", "key"), (ADA.id, "user"), (gone.id, "user"), ("bot", "app")
    stored: Any = {(kind, i): SOME for i, kind in ids} | {("team", SUPPORT.id): SOME}
    assert [(s.kind, s.name) for s in directory.scopes(stored)] == [
        ("key", "web"),
        ("user", "Ada"),
        ("team", "support"),
        ("app", "bot"),
    ]


# -- the migration ------------------------------------------------------------------------------------------


def test_budgets_and_rates_of_older_keys_become_their_limits(tmp_path: Any, request: Any) -> None:
    for url in (f"sqlite:///{tmp_path}/old.db", request.getfixturevalue("empty_postgres_url")):
        database = Database(url)
        migrate_to(database, "0005_delivery")
        with database.begin() as connection:
            for row in OLD_KEYS:
                connection.execute(OLD_INSERT, row)

        migrate_to(database, "0006_limits")

        found = {k.id: k.limits for k in KeyStore(database, b"k" * 32).list()}
        columns = {c["name"] for c in sa.inspect(database.engine).get_columns("api_keys")}
        database.close()
        assert found == {
            "key_1": Limits(requests_per_minute=60, budgets=(Budget(25 * USD, "month"),)),
            "key_2": Limits(budgets=(Budget(9 * 10**18, "day"),)),
            "key_3": Limits(requests_per_minute=7),
            "key_4": UNLIMITED,
        }
        assert not columns & {"budget_nusd", "budget_window", "requests_per_minute"}


OLD_INSERT = sa.text(
    "INSERT INTO api_keys (id, name, prefix, token_hash, role, models, groups, budget_nusd, budget_window,"
    " requests_per_minute, created_at_us, created_by) VALUES (:id, :id, 'ms-', :id, 'viewer', '[\"bot\"]',"
    " '[\"staff\"]', :budget, :window, :rate, 1, 'test')"
)
OLD_KEYS = (
    {"id": "key_1", "budget": 25 * USD, "window": "month", "rate": 60},
    {"id": "key_2", "budget": 9 * 10**18, "window": "day", "rate": None},
    {"id": "key_3", "budget": None, "window": "month", "rate": 7},
    {"id": "key_4", "budget": None, "window": "month", "rate": None},
)


def migrate_to(database: Database, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    import mainstay.core.migrations as migrations

    config = Config()
    config.set_main_option("script_location", str(next(iter(migrations.__path__))))
    config.attributes["engine"] = database.engine
    command.upgrade(config, revision)
