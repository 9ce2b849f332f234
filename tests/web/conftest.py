"""Fixtures of the page tests: a filled Mainstay, clients of each role, a real browser on a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient
from web_world import EMAILS, PASSWORD, ClientFor, Server, World, full_world

from mainstay.web import SESSION_COOKIE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Shared by all tests of a process: each changes only what it made itself, or puts back what it moved."""
    with full_world(tmp_path_factory.mktemp("web")) as built:
        yield built


@pytest.fixture
def client(world: World) -> Iterator[ClientFor]:
    """A client signed in with a role; None: nobody."""
    opened: list[TestClient] = []

    def make(role: str | None) -> TestClient:
        made = TestClient(world.app, follow_redirects=False)
        opened.append(made)
        if role is not None:
            user = world.services.users.by_email(EMAILS[role])
            made.cookies.set(SESSION_COOKIE, world.services.sessions.start(user.id).reveal())
        return made

    yield make
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def site(world: World) -> Iterator[str]:
    """The base URL of a running server."""
    with Server(world.app) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Gone with its module: while Playwright is there, this thread counts as inside a running event loop."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("The browser tests need Chromium: run `make browser`.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source, as `npm ci` brought it."""
    path = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
    if not path.exists():
        pytest.fail("axe-core is not installed: run `npm ci`.")
    return path.read_text()


__all__ = ["PASSWORD"]
