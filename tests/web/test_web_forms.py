"""The forms and what pages show: promoting, keys, people, replay, the playground, histories."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from web_world import EMAILS, PASSWORD, QUESTIONS, ClientFor, World, csrf_of, post

from mainstay.core.errors import Unauthenticated
from mainstay.govern import Budget, Limits
from mainstay.knowledge import FolderSource
from mainstay.web import SESSION_COOKIE


@pytest.fixture
def production(world: World) -> Iterator[Callable[[], int]]:
    """The release in production now; put back afterwards."""

    def now() -> int:
        return {e.name: e.release for e in world.services.delivery.environments("handbook-bot")}["production"]

    before = now()
    yield now
    world.services.delivery.promote(world.actor, "handbook-bot", "production", before, "put back")


def test_promoting_and_rolling_back_move_production_and_are_audited(
    client: ClientFor, world: World, production: Callable[[], int]
) -> None:
    visitor = client("developer")
    was = production()
    answer = post(visitor, "/apps/handbook-bot/promote", release="1", reason="it was fine")
    assert answer.headers["location"] == "/apps/handbook-bot?done=promoted"
    assert production() == 1
    page = visitor.get("/apps/handbook-bot").text
    assert "it was fine" in page
    assert f"Roll back production to r{was}</button>" in page
    post(visitor, "/apps/handbook-bot/rollback", reason="it was not")
    assert production() == was
    entry = world.services.audit.list(limit=1)[0]
    assert (entry.action, entry.detail["reason"]) == ("environment.rolled_back", "it was not")


def test_a_new_keys_token_is_shown_once_and_works(client: ClientFor, world: World) -> None:
    visitor = client("admin")
    answer = post(
        visitor, "/people/keys", name="report <b>", models="handbook-bot, acme/chat", budget_usd="2.50"
    )
    token = re.search(r"<code>(ms-[\w-]+)</code>", answer.text)[1]  # type: ignore[index]
    key = next(
        k for k in world.services.keys.active() if k.token_hash == world.services.keys.hash_token(token)
    )
    assert key.models == ("handbook-bot", "acme/chat")
    assert key.limits == Limits(budgets=(Budget(2_500_000_000, "month"),))
    page = visitor.get("/people").text
    assert token not in page
    assert "report &lt;b&gt;" in page
    post(visitor, f"/people/keys/{key.id}/revoke")
    assert key.id not in {k.id for k in world.services.keys.active()}


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [("budget_usd", "1,5", "is no amount"), ("requests_per_minute", "many", "a whole number")],
)
def test_a_mistake_comes_back_in_its_form_with_what_was_typed(
    client: ClientFor, world: World, field: str, typed: str, said: str
) -> None:
    before = len(world.services.keys.list())
    given = {"name": "slow", "groups": "staff, night shift", "days": "30", field: typed}

    answer = post(client("admin"), "/people/keys", **given)

    assert answer.status_code == 400
    for name, value in given.items():
        assert re.search(rf'name="{name}"[^>]* value="{value}"', answer.text), name
    assert re.search(
        rf'name="{field}"[^>]* aria-invalid="true"[^>]*>\s*<p class="wrong"[^>]*>.*{said}', answer.text
    )
    assert len(world.services.keys.list()) == before


def test_a_person_who_is_there_already_comes_back_in_the_form(client: ClientFor) -> None:
    answer = post(
        client("admin"), "/people/users", email=EMAILS["viewer"], name="Vic again", password=PASSWORD
    )

    assert answer.status_code in (400, 409)
    assert re.search(rf'name="email"[^>]* value="{EMAILS["viewer"]}"', answer.text)
    assert 'value="Vic again"' in answer.text
    assert PASSWORD not in answer.text


def test_a_key_is_made_for_groups_and_as_a_viewer(client: ClientFor, world: World) -> None:
    admin = client("admin")
    post(admin, "/people/keys", name="grouped", groups="staff, night shift,")
    key = next(k for k in world.services.keys.list() if k.name == "grouped")
    assert (key.role, key.groups) == ("viewer", {"staff", "night shift"})
    world.services.keys.revoke(world.actor, key.id)


def test_the_last_admin_cannot_be_disabled(client: ClientFor, world: World) -> None:
    user = world.services.users.by_email(EMAILS["admin"])
    answer = post(client("admin"), f"/people/users/{user.id}/disable")
    assert answer.status_code == 409
    assert "last admin" in answer.text


def test_a_sign_in_link_for_a_person_is_shown_once(client: ClientFor, world: World) -> None:
    user = world.services.users.by_email(EMAILS["developer"])
    answer = post(client("admin"), f"/people/users/{user.id}/link")
    path = urlsplit(html.unescape(re.search(r"<code>(http[^<]+)</code>", answer.text)[1])).path  # type: ignore[index]
    visitor = client(None)
    visitor.post(path, data={"csrf": csrf_of(visitor.get(path).text)})
    assert "Devi Rao" in visitor.get("/").text


def test_moving_a_corpus_head_back_is_shown_and_audited(client: ClientFor, world: World) -> None:
    head = world.services.library.head("handbook")
    visitor = client("developer")
    post(visitor, "/knowledge/handbook/head", number="1")
    assert world.services.library.head("handbook").number == 1
    assert "snapshot #1, the head" in visitor.get("/knowledge/handbook").text
    world.services.library.set_head(world.actor, "handbook", head.id)


def test_replaying_a_trace_leads_to_the_new_one_which_links_back(client: ClientFor, world: World) -> None:
    old = world.ask("handbook-bot@r1", QUESTIONS[0])
    visitor = client("developer")
    answer = post(visitor, f"/traces/{old}/replay", target="handbook-bot@r2")
    new = answer.headers["location"]
    assert new.startswith("/traces/")
    assert f'href="/traces/{old}"' in visitor.get(new).text


@pytest.mark.parametrize(("role", "shown"), [("viewer", False), ("developer", True)])
def test_forms_are_shown_to_those_who_may_send_them(client: ClientFor, role: str, shown: bool) -> None:
    page = client(role).get("/apps/handbook-bot").text
    assert ('action="/apps/handbook-bot/promote"' in page) is shown


# -- what pages show ----------------------------------------------------------------------------------------


def test_an_answers_html_is_shown_as_text(client: ClientFor, world: World) -> None:
    trace_id = world.ask("acme/chat", "<script>alert(1)</script> <img src=x onerror=alert(1)>")
    page = client("viewer").get(f"/traces/{trace_id}").text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_document_shows_the_cited_span_and_all_its_text(client: ClientFor, world: World) -> None:
    head = world.services.library.head("handbook")
    version = world.services.library.version(head.entries["operations-handbook.pdf"])
    quote = "A near miss must be reported"
    start = version.text.index(quote)
    page = client("viewer").get(f"/documents/{version.id}?start={start}&end={start + len(quote)}").text
    assert f'<mark id="cited" tabindex="-1">{quote}</mark>' in page
    body = re.search(r"(?s)<article.*?</article>", page)[0]  # type: ignore[index]
    shown = html.unescape(re.sub(r'<div class="page".*?</div>|<[^>]+>', "", body))
    assert "".join(shown.split()) == "".join(version.text.split())


def test_a_span_outside_the_document_is_refused(client: ClientFor, world: World) -> None:
    version_id = world.services.library.head("handbook").entries["cold-chain.md"]
    assert client("viewer").get(f"/documents/{version_id}?start=5&end=9999999").status_code == 400


def test_older_traces_are_a_link_away_and_none_is_lost(client: ClientFor, world: World) -> None:
    visitor, path, seen = client("viewer"), "/traces", []
    while path:
        page = visitor.get(path).text
        seen += re.findall(r'data-id="([0-9a-f]{32})"', page)
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = html.unescape(older[1]) if older else ""
    assert seen == [row.trace_id for row in world.services.traces.list(limit=1000)]
    assert len(seen) > 50


def test_a_filter_shows_only_what_fits(client: ClientFor, world: World) -> None:
    page = client("viewer").get("/traces?q=status:error").text
    ids = re.findall(r'data-id="([0-9a-f]{32})"', page)
    assert ids == [r.trace_id for r in world.services.traces.list(limit=1000) if r.status == "error"]


def test_a_filter_that_is_not_understood_says_so(client: ClientFor) -> None:
    page = client("viewer").get("/traces?q=cost>cheap").text
    assert "cost&gt;cheap was left out" in page


def test_the_playground_answers_without_script(client: ClientFor) -> None:
    answer = post(client("viewer"), "/playground", model="handbook-bot", question=QUESTIONS[0])
    assert answer.status_code == 200
    assert "within 24 hours" in answer.text
    assert 'class="cites"' in answer.text


def test_the_playground_streams_words_and_then_the_whole(client: ClientFor) -> None:
    visitor = client("viewer")
    token = csrf_of(visitor.get("/help").text)
    answer = visitor.post(
        "/playground/stream",
        data={"model": "handbook-bot", "question": QUESTIONS[0]},
        headers={"x-csrf-token": token},
    )
    names = re.findall(r"^event: (\w+)$", answer.text, re.MULTILINE)
    assert names[-1] == "final"
    assert set(names[:-1]) == {"text"}
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_a_failing_stream_ends_with_an_error_that_tells_no_secrets(client: ClientFor) -> None:
    visitor = client("viewer")
    token = csrf_of(visitor.get("/help").text)
    answer = visitor.post(
        "/playground/stream",
        data={"model": "local/small", "question": "Please fail now."},
        headers={"x-csrf-token": token},
    )
    assert "event: error" in answer.text
    assert "event: final" not in answer.text


def test_an_unknown_address_is_a_page_for_people_and_a_body_for_programs(client: ClientFor) -> None:
    visitor = client("viewer")
    page = visitor.get("/no-such-page", headers={"accept": "text/html"})
    assert (page.status_code, "There is nothing at /no-such-page" in page.text) == (404, True)
    body = visitor.get("/api/v1/no-such", headers={"accept": "text/html"})
    assert body.json()["error"]["code"] == "not_found"


def test_a_session_that_ended_sends_to_sign_in(client: ClientFor, world: World) -> None:
    visitor = client("viewer")
    world.services.sessions.end(visitor.cookies[SESSION_COOKIE])
    assert visitor.get("/apps").headers["location"] == "/sign-in?next=%2Fapps"
    with pytest.raises(Unauthenticated):
        world.services.users.check_password(EMAILS["viewer"], "not the password")


def test_a_history_names_the_person_not_their_id(client: ClientFor, world: World) -> None:
    dev = client("developer")
    user = world.services.users.by_email(EMAILS["developer"])
    try:
        post(dev, "/apps/handbook-bot/promote", release="1", environment="staging", reason="to try it")

        page = dev.get("/apps/handbook-bot").text

        assert f'by <span title="{user.id}">Devi Rao</span>' in page
        assert user.id not in re.sub(r'title="[^"]*"', "", page)
    finally:
        post(dev, "/apps/handbook-bot/promote", release="2", environment="staging", reason="as before")


def test_a_spent_link_says_what_to_do_in_plain_words(client: ClientFor) -> None:
    visitor = client(None)
    page = visitor.get("/sign-in/link/msl-nothing").text
    assert "If it was used before" in page

    again = visitor.post("/sign-in/link/msl-nothing", data={"csrf": csrf_of(page)})

    assert "Ask the person who sent it for a new one" in again.text
    assert "`" not in re.sub(r"<script.*?</script>", "", again.text)


def test_files_that_could_not_be_read_are_told_on_the_corpus_page(
    client: ClientFor, world: World, tmp_path: Path
) -> None:
    (tmp_path / "good.md").write_text("# Ferry\n\nThe ferry leaves at noon.\n")
    (tmp_path / "broken.pdf").write_bytes(b"no PDF at all")
    world.services.library.sync(world.actor, "torn", FolderSource((tmp_path,)))

    page = client("developer").get("/knowledge/torn").text

    assert "1 file could not be read" in page
    assert "broken.pdf" in page
    assert "broken.pdf" not in client("viewer").get("/knowledge/torn").text
    assert "could not be read" not in client("viewer").get("/knowledge/handbook").text


def test_the_audit_log_shows_times_and_short_ids(client: ClientFor, world: World) -> None:
    key, _ = world.services.keys.create(world.actor, "until 2026", expires_at_us=1_795_608_096_766_772)
    world.services.keys.revoke(world.actor, key.id)

    page = client("admin").get("/audit").text

    assert "expires</span> 25 Nov 2026" in page
    assert "1795608096766772" not in page
    assert "at us" not in page


def test_metrics_are_called_the_same_as_in_a_terminal(client: ClientFor, world: World) -> None:
    run = world.services.evaluations.runs()[0]
    page = client("viewer").get(f"/evaluations/{run.id}").text
    for word in ("recall of the right passages", "supported sentences", "right answers", "wrong refusals"):
        assert f">{word}</th>" in page


def test_an_impossible_promotion_comes_back_in_its_form(client: ClientFor) -> None:
    answer = post(
        client("developer"), "/apps/handbook-bot/promote", release="1", environment="Not A Name", reason="so"
    )

    assert answer.status_code == 400
    assert answer.text.count('<details class="act" open>') == 1
    assert 'value="Not A Name"' in answer.text
    assert 'name="reason" autocomplete="off" value="so"' in answer.text
    gone = post(client("developer"), "/apps/handbook-bot/rollback", environment="nowhere", reason="so")
    assert gone.status_code == 404
    assert 'role="alert"' in gone.text


def test_an_empty_question_comes_back_on_the_playground(client: ClientFor) -> None:
    answer = post(client("developer"), "/playground", model="local/small", question=" ")
    assert answer.status_code == 400
    assert "There is no question." in answer.text
    assert "<option selected>local/small</option>" in answer.text
