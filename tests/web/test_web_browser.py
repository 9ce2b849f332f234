"""The pages in a real Chromium: as people see them, with the keyboard, light and dark, wide and narrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from web_world import FALLBACK_QUESTION, QUESTIONS, World

from mainstay.web import SESSION_COOKIE

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).parents[1] / "screenshots"
WIDTHS = {"phone": (390, 844), "tablet": (768, 1024), "desk": (1440, 900)}
THEMES = ("light", "dark")
AXE_LOOKS_AT = {("desk", "light"), ("desk", "dark"), ("phone", "light")}

OpenPage = Callable[..., Page]


class Watch:
    """What a page did that it must not: requests to other hosts, console errors, scripts that failed."""

    def __init__(self, context: BrowserContext, base_url: str) -> None:
        self.wrong: list[str] = []
        self._host = urlsplit(base_url).netloc
        context.on("request", self._on_request)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.wrong.append(f"script failed: {error.error}"))

    def _on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != self._host:
            self.wrong.append(f"left the host: {request.url}")

    def _on_console(self, message: Any) -> None:
        expected = "the server responded with a status of 40" in message.text
        if message.type in ("error", "warning") and not expected:
            self.wrong.append(f"console: {message.text}")


@pytest.fixture
def open_page(browser: Browser, site: str, world: World) -> Iterator[OpenPage]:
    """Opens a path, signed in unless told otherwise; fails the test for anything `Watch` saw."""
    contexts: list[tuple[BrowserContext, Watch]] = []

    def make(
        path: str, *, width: str = "desk", theme: str = "light", email: str | None = "ada@example.org"
    ) -> Page:
        size = WIDTHS[width]
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,  # type: ignore[arg-type]
            reduced_motion="reduce",
        )
        contexts.append((context, Watch(context, site)))
        if email is not None:
            user = world.services.users.by_email(email)
            token = world.services.sessions.start(user.id).reveal()
            context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": site}])
        page = context.new_page()
        page.goto(site + path)
        return page

    yield make
    for context, _ in contexts:
        context.close()
    assert [wrong for _, watch in contexts for wrong in watch.wrong] == []


def trace_where(world: World, **wanted: Any) -> Any:
    rows = world.services.traces.list(limit=500)
    return next(r for r in rows if all(getattr(r, k) == v for k, v in wanted.items()))


def paths(world: World) -> dict[str, str]:
    """Every page by a name for its picture."""
    cited = trace_where(world, question=QUESTIONS[0], status="ok")
    failed = trace_where(world, status="error")
    spans = world.services.traces.get(cited.trace_id)
    step = next(s for s in spans if s.name == "retrieve")
    root = next(s for s in spans if s.parent_id is None)
    citation = root.attributes["mainstay.citations"][0]
    run = world.services.evaluations.runs()
    fallen = trace_where(world, question=FALLBACK_QUESTION, cache="miss")
    again = trace_where(world, question=FALLBACK_QUESTION, cache="hit")
    attempt = next(s for s in world.services.traces.get(fallen.trace_id) if s.name == "chat large-2")
    found = {
        "overview": "/",
        "apps": "/apps",
        "app": "/apps/handbook-bot",
        "app-compared": "/apps/handbook-bot?a=1&b=2",
        "traces": "/traces",
        "traces-filtered": "/traces?q=status%3Aerror",
        "traces-none": "/traces?q=nothing-says-this",
        "trace": f"/traces/{cited.trace_id}",
        "trace-step": f"/traces/{cited.trace_id}?step={step.span_id}",
        "trace-failed": f"/traces/{failed.trace_id}",
        "trace-fallback": f"/traces/{fallen.trace_id}",
        "trace-attempt": f"/traces/{fallen.trace_id}?step={attempt.span_id}",
        "trace-from-cache": f"/traces/{again.trace_id}",
        "models": "/models",
        "models-filtered": "/models?q=images",
        "models-none": "/models?q=nothing-does-this",
        "playground": "/playground",
        "knowledge": "/knowledge",
        "corpus": "/knowledge/handbook",
        "corpus-compared": "/knowledge/handbook?a=1&b=2",
        "document": f"/documents/{citation['version_id']}?start={citation['start']}&end={citation['end']}#cited",
        "evaluations": "/evaluations",
        "spend": "/spend",
        "budgets": "/budgets",
        "limits": f"/budgets?of=team:{world.services.teams.list()[0].id}",
        "audit": "/audit",
        "people": "/people",
        "help": "/help",
        "not-found": "/traces/0000",
    }
    return found | ({"evaluation": f"/evaluations/{run[0].id}?against={run[-1].id}"} if run else {})


def shoot(page: Page, folder: str, name: str) -> None:
    (SCREENSHOTS / folder).mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / folder / f"{name}.png")


def serious(page: Page, axe: str) -> list[str]:
    """What axe-core calls serious or critical, one line each."""
    page.evaluate(axe)
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['id']}: {v['help']}: {node['target']} {node['html'][:160]}"
        for v in report["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


@pytest.mark.parametrize(
    ("width", "theme"),
    [("desk", "light"), ("desk", "dark"), ("phone", "light"), ("phone", "dark"), ("tablet", "light")],
)
def test_every_page_is_accessible_and_fits_its_width(
    open_page: OpenPage, site: str, world: World, axe: str, width: str, theme: str
) -> None:
    folder = SCREENSHOTS / f"{width}-{theme}"
    folder.mkdir(parents=True, exist_ok=True)
    page, wrong = open_page("/", width=width, theme=theme), []
    for name, path in paths(world).items():
        page.goto(site + path)
        page.screenshot(path=folder / f"{name}.png", full_page=name != "document")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"{name} scrolls sideways")
        if (width, theme) in AXE_LOOKS_AT:
            wrong += [f"{name}: {line}" for line in serious(page, axe)]
    assert wrong == []


@pytest.mark.parametrize(("width", "theme"), [("desk", "light"), ("phone", "dark")])
def test_the_sign_in_page_is_accessible(open_page: OpenPage, axe: str, width: str, theme: str) -> None:
    page = open_page("/sign-in", width=width, theme=theme, email=None)
    shoot(page, f"{width}-{theme}", "sign-in")
    assert serious(page, axe) == []


def test_every_page_shows_the_same_by_command_and_by_api(open_page: OpenPage) -> None:
    page = open_page("/apps/handbook-bot")
    page.locator("details.same summary").click()
    expect(page.get_by_text("mainstay release list handbook-bot")).to_be_visible()
    shoot(page, "desk-light", "same")
    page.keyboard.press("Escape")
    expect(page.get_by_text("mainstay release list handbook-bot")).to_be_hidden()


def test_the_bar_of_five_reaches_every_place_on_a_phone(open_page: OpenPage) -> None:
    page = open_page("/", width="phone")
    page.locator(".bar summary").click()
    shoot(page, "phone-light", "more")
    page.locator(".bar").get_by_role("link", name="Audit").click()
    page.wait_for_url("**/audit")


def test_promoting_asks_and_says_what_will_happen(open_page: OpenPage) -> None:
    page = open_page("/apps/handbook-bot")
    page.locator("details.act summary", has_text="Promote").last.click()
    expect(page.get_by_text("are answered by r1 within a second")).to_be_visible()
    shoot(page, "desk-light", "promote")


@pytest.mark.parametrize(("width", "theme"), [("desk", "light"), ("phone", "dark")])
def test_rolling_back_names_the_release_it_goes_back_to(open_page: OpenPage, width: str, theme: str) -> None:
    page = open_page("/apps/handbook-bot", width=width, theme=theme)
    page.get_by_label("Environment production").get_by_text("Roll back…").click()
    expect(page.get_by_text("production goes back from r2 to r1")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(page, f"{width}-{theme}", "roll-back")


def test_moving_a_head_asks_within_its_panel(open_page: OpenPage) -> None:
    page = open_page("/knowledge/handbook")
    page.get_by_text("Make it the head…").first.click()
    expect(page.get_by_text("The next release pins #1")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(page, "desk-light", "head")


def test_five_questions_with_the_keyboard_alone(open_page: OpenPage, world: World) -> None:
    page = open_page("/")
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/traces")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("near miss")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces?q=near+miss")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("tr[data-row] a.row-link").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces/0*")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("section.step")).to_be_visible()
    assert "step=" in page.url
    page.keyboard.press("Escape")
    expect(page.locator("section.step")).to_have_count(0)
    page.go_back()
    expect(page.locator("section.step")).to_be_visible()
    for key, path in (
        ("a", "/apps"),
        ("k", "/knowledge"),
        ("s", "/spend"),
        ("m", "/models"),
        ("u", "/audit"),
        ("o", "/"),
    ):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url("**" + path)


def test_a_question_mark_lists_the_shortcuts(open_page: OpenPage) -> None:
    page = open_page("/apps")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    shoot(page, "desk-light", "shortcuts")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_citation_leads_to_its_lit_span(open_page: OpenPage, world: World) -> None:
    page = open_page(paths(world)["trace"])
    quote = page.locator(".cites q").first.inner_text()
    page.locator(".cites a").first.click()
    page.wait_for_url("**/documents/**")
    mark = page.locator("mark#cited")
    expect(mark).to_be_in_viewport()
    lit = "".join(page.locator("mark").all_inner_texts())
    assert "".join(quote.split()) == "".join(lit.split())


def test_the_playground_streams_two_answers_side_by_side(open_page: OpenPage) -> None:
    page = open_page("/playground")
    page.select_option("#model", "handbook-bot")
    page.select_option("#other", "handbook-bot@r1")
    page.fill("#question", QUESTIONS[0])
    page.keyboard.press("Control+Enter")
    cards = page.locator(".answer-card")
    expect(cards).to_have_count(2)
    expect(cards.nth(1).locator(".cites li")).not_to_have_count(0)
    expect(cards.first.locator(".answer-foot")).to_be_visible()
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.screenshot(path=SCREENSHOTS / f"desk-{theme}" / "playground-answered.png", full_page=True)


def test_a_new_trace_appears_in_the_open_list(open_page: OpenPage, world: World) -> None:
    page = open_page("/traces")
    expect(page.locator("[data-tail]")).to_have_attribute("aria-pressed", "true")
    trace_id = world.ask("handbook-bot", "Where is the assembly point?")
    expect(page.locator(f"tr[data-id='{trace_id}']")).to_be_visible(timeout=10_000)


def test_the_open_page_of_models_follows_the_calls(open_page: OpenPage, world: World) -> None:
    page = open_page("/models?provider=acme")
    attempts = page.locator("[data-cell='calls']")
    before = int(attempts.inner_text())
    world.ask("acme/chat", "Is the late shift there?")
    expect(attempts).to_have_text(str(before + 1), timeout=10_000)


@pytest.mark.parametrize("width", [900, 1024, 1280])
def test_tables_of_models_fit_between_a_tablet_and_a_desk(open_page: OpenPage, width: int) -> None:
    page = open_page("/models")
    page.set_viewport_size({"width": width, "height": 900})
    shoot(page, "desk-light", f"models-{width}")
    wider = (
        "[...document.querySelectorAll('.table-scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
    )
    assert page.evaluate(wider) == 0


def test_the_chosen_theme_stays(open_page: OpenPage) -> None:
    page = open_page("/", theme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    switch = page.locator(".side [data-theme-switch]")
    switch.click()
    switch.click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_pages_work_without_script(browser: Browser, site: str, world: World) -> None:
    context = browser.new_context(java_script_enabled=False)
    user = world.services.users.by_email("ada@example.org")
    token = world.services.sessions.start(user.id).reveal()
    context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": site}])
    page = context.new_page()
    page.goto(site + "/playground")
    page.fill("#question", QUESTIONS[1])
    page.locator("[data-send]").click()
    expect(page.locator(".answer-card .cites li").first).to_be_visible()
    page.goto(site + paths(world)["trace"])
    page.locator(".waterfall a").nth(2).click()
    expect(page.locator("section.step")).to_be_visible()
    context.close()


def test_axe_looks_at_something(open_page: OpenPage, axe: str) -> None:
    page = open_page("/help")
    page.evaluate("document.querySelector('h1').outerHTML; document.documentElement.removeAttribute('lang')")
    assert any(line.startswith("html-has-lang") for line in serious(page, axe)), json.dumps("axe saw nothing")
