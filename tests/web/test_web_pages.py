"""The pages over HTTP: who may see what, forged posts, headers, signing in."""

from __future__ import annotations

import html
import re
import shlex
from contextlib import closing
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import typer.main
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from web_world import EMAILS, PASSWORD, ClientFor, World, csrf_of, post

from mainstay import web
from mainstay.app import build_control_app
from mainstay.cli.main import app as command_line
from mainstay.govern.permissions import ROLE_PERMISSIONS
from mainstay.web import SESSION_COOKIE, PageUser
from mainstay.web.page import CONTENT_SECURITY_POLICY, FORM_COOKIE
from mainstay.web.routes import PAGES

STATE_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def page_routes() -> list[APIRoute]:
    """Every route under the pages' router, however deep it was included."""
    found: list[APIRoute] = []
    for part in PAGES:
        found += [route for route in part.router.routes if isinstance(route, APIRoute)]
    return found


def declared(route: APIRoute) -> list[PageUser]:
    return [d.call for d in route.dependant.dependencies if isinstance(d.call, PageUser)]


def example_path(route: APIRoute, world: World) -> str:
    trace = world.services.traces.list(limit=1)[0].trace_id
    head = world.services.library.head("handbook")
    values = {
        "name:path": "app.css",
        "token": "unknown",
        "app": "handbook-bot",
        "corpus": "handbook",
        "version_id": next(iter(head.entries.values())),
        "trace_id": trace,
        "run_id": world.services.evaluations.runs()[0].id,
        "user_id": "user_unknown",
        "key_id": "key_unknown",
        "team_id": "team_unknown",
        "project_id": "project_unknown",
        "path:path": "no-such-page",
    }
    return re.sub(r"{([^}]+)}", lambda m: values[m[1]], route.path)


@pytest.mark.parametrize("route", page_routes(), ids=lambda r: f"{sorted(r.methods)[0]} {r.path}")
def test_every_route_declares_exactly_one_permission(route: APIRoute) -> None:
    assert len(declared(route)) == 1
    assert declared(route)[0].permission in ROLE_PERMISSIONS["admin"]


def test_the_router_holds_every_page(world: World) -> None:
    paths = {route.path for route in page_routes()}
    assert {"/", "/apps/{app}", "/traces/{trace_id}", "/documents/{version_id}", "/audit"} <= paths
    assert web.router().routes


@pytest.mark.parametrize("role", [None, "viewer", "developer", "admin"])
def test_a_role_opens_what_it_allows_and_nothing_else(
    client: ClientFor, world: World, role: str | None
) -> None:
    visitor = client(role)
    for route in page_routes():
        permission = declared(route)[0].permission
        if "GET" not in route.methods or route.path in ("/traces/live", "/models/live"):
            continue
        answer = visitor.get(example_path(route, world), headers={"accept": "text/html"})
        if permission == "public":
            assert answer.status_code in (200, 303, 404), route.path
        elif role is None:
            assert answer.status_code == 303, route.path
            assert answer.headers["location"].startswith("/sign-in"), route.path
        elif permission in ROLE_PERMISSIONS[role]:  # type: ignore[index]
            assert answer.status_code == 200, (route.path, answer.text[-500:])
        else:
            assert answer.status_code == 403, route.path


@pytest.mark.parametrize("role", [None, "viewer", "developer", "admin"])
def test_a_post_without_the_pages_token_is_refused(client: ClientFor, world: World, role: str | None) -> None:
    visitor = client(role)
    for route in page_routes():
        if route.methods & STATE_CHANGES:
            for fields in ({}, {"csrf": "guessed"}):
                answer = visitor.post(example_path(route, world), data=fields)
                signed_out = role is None and declared(route)[0].permission != "public"
                assert answer.status_code == (303 if signed_out else 403), route.path


def test_another_sessions_token_does_not_fit(client: ClientFor) -> None:
    mine, theirs = client("admin"), client("developer")
    token = csrf_of(theirs.get("/help").text)
    answer = mine.post("/people/keys", data={"csrf": token, "name": "forged"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/apps/handbook-bot/promote", {"release": "1"}),
        ("/apps/handbook-bot/rollback", {}),
        ("/knowledge/handbook/head", {"number": "1"}),
    ],
)
def test_a_viewer_cannot_change_what_answers(
    client: ClientFor, world: World, path: str, fields: dict[str, str]
) -> None:
    before = world.services.audit.list(limit=1)[0].sequence
    answer = post(client("viewer"), path, **fields)
    assert answer.status_code == 403
    changes = [e.action for e in world.services.audit.list(limit=50) if e.sequence > before]
    assert set(changes) <= {"session.started"}


# -- headers ---------------------------------------------------------------------------------------------


def test_every_answer_carries_the_security_headers(client: ClientFor) -> None:
    visitor = client("admin")
    for path in ("/", "/sign-in", "/static/tokens.css", "/traces/0000", "/no-such-page"):
        headers = visitor.get(path, headers={"accept": "text/html"}).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_the_policy_allows_nothing_inline() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'self'" in CONTENT_SECURITY_POLICY


def test_no_template_holds_inline_script_or_style() -> None:
    from mainstay.web.templating import FOLDER

    for path in sorted((FOLDER / "templates").glob("*.html")):
        text = path.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)", text), (
            path.name
        )


def test_static_files_are_named_by_their_content(client: ClientFor) -> None:
    visitor = client(None)
    sheet = re.search(r'href="(/static/base\.css\?v=[0-9a-f]+)"', visitor.get("/sign-in").text)
    assert sheet is not None
    assert "immutable" in visitor.get(sheet[1]).headers["cache-control"]
    assert visitor.get("/static/base.css?v=old").headers["cache-control"] == "no-cache"
    assert visitor.get("/static/../page.py").status_code == 404


# -- signing in --------------------------------------------------------------------------------------------


def sign_in(client: TestClient, email: str, password: str, next_path: str = "/") -> object:
    page = client.get("/sign-in")
    fields = {"csrf": csrf_of(page.text), "email": email, "password": password, "next": next_path}
    return client.post("/sign-in", data=fields)


def test_a_password_signs_in_and_leads_to_the_page_asked_for(client: ClientFor) -> None:
    visitor = client(None)
    wanted = visitor.get("/traces?q=status:error").headers["location"]
    assert wanted == "/sign-in?next=%2Ftraces%3Fq%3Dstatus%3Aerror"
    answer = sign_in(visitor, EMAILS["viewer"], PASSWORD, "/traces?q=status:error")
    assert answer.headers["location"] == "/traces?q=status:error"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert visitor.get("/traces").status_code == 200


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"]
)
def test_signing_in_never_leads_to_another_host(client: ClientFor, elsewhere: str) -> None:
    answer = sign_in(client(None), EMAILS["viewer"], PASSWORD, elsewhere)
    assert answer.headers["location"] == "/"


def test_a_wrong_password_says_nothing_about_who_exists(client: ClientFor) -> None:
    known = sign_in(client(None), EMAILS["viewer"], "a wrong long password")
    unknown = sign_in(client(None), "nobody@example.org", "a wrong long password")
    assert known.status_code == unknown.status_code == 401
    alert = r'(?s)role="alert">.*?</div></div>'
    assert re.search(alert, known.text)[0] == re.search(alert, unknown.text)[0]  # type: ignore[index]


def test_a_link_signs_in_once_and_only_by_its_button(client: ClientFor, world: World) -> None:
    user = world.services.users.by_email(EMAILS["viewer"])
    path = f"/sign-in/link/{world.services.sessions.create_link(world.actor, user.id).reveal()}"
    first, second = client(None), client(None)
    for _ in range(3):  # a mail scanner looks at it
        page = first.get(path)
        assert page.status_code == 200
    answer = first.post(path, data={"csrf": csrf_of(page.text)})
    assert answer.status_code == 303
    assert first.get("/").status_code == 200
    again = second.post(path, data={"csrf": csrf_of(second.get(path).text)})
    assert again.status_code == 401
    assert "was used" in again.text


def test_signing_out_ends_the_session(client: ClientFor, world: World) -> None:
    visitor = client("viewer")
    token = visitor.cookies[SESSION_COOKIE]
    assert post(visitor, "/sign-out").headers["location"] == "/sign-in?done=signed-out"
    assert world.services.sessions.identity(token) is None


def test_a_cookie_from_before_sign_in_is_not_a_session(client: ClientFor) -> None:
    visitor = client(None)
    visitor.get("/sign-in")
    assert FORM_COOKIE in visitor.cookies
    assert visitor.get("/apps").status_code == 303


def test_over_https_the_session_cookie_never_leaves_https(world: World) -> None:
    settings = replace(world.services.settings, public_url="https://mainstay.example.org")
    app = build_control_app(replace(world.services, settings=settings))
    with closing(TestClient(app, base_url="https://mainstay.example.org", follow_redirects=False)) as visitor:
        answer = sign_in(visitor, EMAILS["viewer"], PASSWORD)
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE))
    assert "Secure" in cookie


# -- what the forms do ------------------------------------------------------------------------------------


def shown_lines(client: ClientFor, world: World) -> tuple[set[str], set[str]]:
    """Every command and every address that some page shows behind `</>`."""
    visitor, commands, addresses = client("admin"), set(), set()
    for route in page_routes():
        if "GET" not in route.methods or route.path == "/traces/live":
            continue
        for query in ("", "?a=1&b=2"):
            page = visitor.get(example_path(route, world) + query).text
            lines = {html.unescape(line) for line in re.findall(r'data-copy="([^"]+)"', page)}
            commands |= {line for line in lines if line.startswith("mainstay ")}
            addresses |= {shlex.split(line)[-1] for line in lines if line.startswith("curl -H")}
            addresses |= {html.unescape(a) for a in re.findall(r'href="(/api/v1/[^"]+)"', page)}
    return commands, addresses


def test_the_commands_and_addresses_that_pages_show_exist(client: ClientFor, world: World) -> None:
    commands, addresses = shown_lines(client, world)
    assert len(commands) > 12
    for line in sorted(commands):
        for part in line.split(" && "):
            parse_command(part)
    visitor = client("admin")
    for address in sorted(addresses):
        assert visitor.get(urlsplit(address)._replace(scheme="", netloc="").geturl()).status_code == 200, (
            address
        )


def parse_command(line: str) -> None:
    """As the shell and the command line would read it; raises when a name or option does not exist."""
    name, *words = shlex.split(line)
    if name == "cd":
        return
    command = typer.main.get_command(command_line)
    context = command.make_context(name, list(words), resilient_parsing=True)
    while hasattr(command, "commands") and words:
        command = command.commands[words.pop(0)]
        context = command.make_context(
            line, list(words), parent=context, resilient_parsing=hasattr(command, "commands")
        )
