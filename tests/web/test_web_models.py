"""The page of models, and how a trace tells which target answered and what failed before."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import Markup
from starlette.testclient import TestClient
from web_world import FALLBACK_QUESTION, PASSWORD, World, build_world

from mainstay.app import build_control_app
from mainstay.core.ids import new_span_id, new_trace_id
from mainstay.models.types import Price, PriceTier
from mainstay.observe import Span
from mainstay.services import LocalModel, close_services, offered
from mainstay.web import SESSION_COOKIE
from mainstay.web.pages import models as page_of_models
from mainstay.web.views.models import models_view, price_text, state_of
from mainstay.web.views.turns import turns


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[World]:
    """A Mainstay whose models are there and were not asked yet."""
    world = build_world(tmp_path)
    world.services.users.create(world.actor, "ada@example.org", "Ada Lindqvist", "admin", PASSWORD)
    yield world
    close_services(world.services)


@pytest.fixture
def reader(quiet: World) -> Iterator[TestClient]:
    with_session = client_of(quiet)
    yield with_session
    with_session.close()


def client_of(world: World) -> TestClient:
    client = TestClient(world.app, follow_redirects=False)
    user = world.services.users.by_email("ada@example.org")
    client.cookies.set(SESSION_COOKIE, world.services.sessions.start(user.id).reveal())
    return client


def words(fragment: str) -> str:
    return " ".join(Markup(fragment).striptags().split())


def table(page: str, caption: str) -> list[str]:
    """The rows of the table under a caption, as text."""
    found = page[page.index(caption) :]
    body = found[found.index("<tbody>") : found.index("</tbody>")]
    return [words(row) for row in re.findall(r"(?s)<tr>.*?</tr>", body)]


def test_a_route_shows_its_policy_and_its_targets_in_order(reader: TestClient) -> None:
    page = reader.get("/models").text

    first, second, third = table(page, "Targets of the route fast")

    assert (
        "asks the first that can answer; at most 3 attempts in 10 min; answers are cached for 10 min" in page
    )
    assert first.startswith("1. globex/large → globex/large-2, key 1")
    assert second.startswith("2. globex/large → globex/large-2, key 2")
    assert third.startswith("3. acme/chat")
    assert [row.split(" ")[1] for row in table(page, "Targets of the route shared")] == [
        "acme/chat",
        "local/small",
    ]
    assert "75 % of requests" in page
    assert "longer prompts go to acme/chat" in page


def test_an_unknown_price_is_unknown_and_a_known_one_says_where_it_is_from(reader: TestClient) -> None:
    page = reader.get("/models").text
    unknown, known = table(page, "Models of globex")[0], table(page, "Models of acme")[0]
    assert "unknown" in unknown
    assert "$" not in unknown
    assert "$0.15 $0.60 $0.075 128.0k" in known
    assert 'title="test, in force on 2026-11-24">$0.15<' in page
    assert "Prices: test, in force on 2026-11-24." in page


def test_what_a_target_can_do_is_said_in_words(reader: TestClient) -> None:
    row = table(reader.get("/models").text, "Models of globex")[0]
    assert "tools · images · all settings but top_p, top_k, penalties, logit bias" in row


def test_states_attempts_and_failures_follow_the_calls(quiet: World, reader: TestClient) -> None:
    assert "not called" in table(reader.get("/models").text, "Models of acme")[0]

    quiet.ask("fast", FALLBACK_QUESTION)
    page = reader.get("/models").text
    refused, down, good = table(page, "Targets of the route fast")

    assert "key refused, out for" in refused
    assert "1 1 failed" in refused
    assert "in service 1 failure in a row" in down
    assert "in service" in good
    assert "failed" not in good


def test_a_breaker_that_opened_says_until_when(quiet: World, reader: TestClient) -> None:
    for at in range(5):
        quiet.ask("fast", f"{FALLBACK_QUESTION} {at}")
    assert re.search(
        r"breaker open for \d+ s", table(reader.get("/models").text, "Targets of the route fast")[1]
    )
    assert "breaker open" in reader.get("/models?q=breaker+open").text


def test_a_model_that_stands_for_nothing_says_why(reader: TestClient) -> None:
    page = reader.get("/models").text
    assert "<b>initech/legacy</b>: The variable INITECH_KEY is not set." in page


@pytest.mark.parametrize(
    ("query", "there", "gone"),
    [
        ("q=acme", "Models of acme", "Models of globex"),
        ("q=images+globex", "Models of globex", "Models of acme"),
        ("provider=acme", "Models of acme", "Targets of the route"),
        ("q=not+called", "Models of acme", "No model fits"),
        ("q=nothing-like-this", "No model fits", "<table"),
    ],
)
def test_the_filter_narrows_and_keeps_what_was_typed(
    reader: TestClient, query: str, there: str, gone: str
) -> None:
    page = reader.get(f"/models?{query}").text
    assert there in page
    assert gone not in page
    if query.startswith("q="):
        assert f'value="{query[2:].replace("+", " ")}"' in page


def test_a_vendor_with_many_models_shows_those_in_use_and_how_to_see_all(
    quiet: World, reader: TestClient
) -> None:
    models = quiet.services.deps.models
    for at in range(30):
        models.targets[f"acme/m{at}"] = replace(  # type: ignore[attr-defined]
            models.targets["acme/chat"],
            public_name=f"acme/m{at}",
            model=f"m{at}",  # type: ignore[attr-defined]
        )
    quiet.ask("acme/m29", "Are you there?")

    rows = table(page := reader.get("/models").text, "Models of acme")

    assert len(rows) == 20
    assert rows[0].startswith("acme/m29")
    assert 'href="/models?provider=acme">11 more models of acme' in page
    assert len(table(reader.get("/models?provider=acme").text, "Models of acme")) == 31


def test_without_a_provider_the_page_says_how_to_add_one(quiet: World, reader: TestClient) -> None:
    models = quiet.services.deps.models
    only = {"local/extractive": models.targets["local/extractive"]}  # type: ignore[attr-defined]
    models.targets, models.routes, models.broken = only, {}, {}  # type: ignore[attr-defined]
    page = reader.get("/models").text
    assert "No provider is set up" in page
    assert "mainstay models add smollm2" in page
    assert "base_url:" in page
    assert table(page, "Models of local")[0].startswith("local/extractive")


def test_a_control_plane_alone_says_that_it_knows_no_gateways_states(quiet: World) -> None:
    alone = replace(quiet, app=build_control_app(replace(quiet.services, role="control")))
    visitor = client_of(alone)
    page = visitor.get("/models").text
    assert "This process is the control plane alone" in page
    assert "/metrics" in page
    visitor.close()


def test_the_live_page_is_sent_what_changed(
    quiet: World, reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_models, "LIVE_S_MAX", 0.5)
    quiet.ask("acme/chat", "Good evening.")
    events = reader.get("/models/live").text
    sent = json.loads(re.search(r"event: targets\ndata: (.*)", events)[1])  # type: ignore[index]
    key = re.search(
        r'data-now="([0-9a-f]{12})" data-cell="state"><span class="pill good', reader.get("/models").text
    )
    assert key is not None
    assert "in service" in sent[key[1]]["state"]
    assert sent[key[1]]["calls"] == "1"


def test_nobody_who_is_not_signed_in_gets_the_page_or_its_stream(quiet: World) -> None:
    stranger = TestClient(quiet.app, follow_redirects=False)
    assert stranger.get("/models").headers["location"] == "/sign-in?next=%2Fmodels"
    assert stranger.get("/models/live").status_code == 303
    stranger.close()


def test_a_model_of_this_machine_says_whether_it_is_loaded_and_what_it_holds(quiet: World) -> None:
    local = {"local/small": LocalModel("gguf", None, 10**8, 2048, True, 300 << 20, ())}
    found = asyncio.run(offered(quiet.services.catalog))

    loaded = models_view(found, (), local)
    idle = models_view(found, (), {"local/small": replace(local["local/small"], loaded=False)})

    (line,) = [x for b in loaded.providers for x in b.lines if x.name == "local/small"]
    assert line.local == local["local/small"]
    assert models_view(found, (), local, "local loaded").found
    assert not models_view(found, (), local, 'local "not loaded"').found
    assert [x.local.state for b in idle.providers for x in b.lines if x.local] == ["not loaded"]


def test_a_price_with_tiers_begins_with_from_and_tells_the_steps() -> None:
    tiers = (PriceTier(200_000, 2500.0, 15000.0, 250.0),)
    text = price_text(Price(1250.0, 10000.0, 125.0, "list", "2026-11-01", tiers, request_nusd=5_000_000))
    assert text is not None
    assert text.input == "from $1.25"
    assert "above 200,000 input tokens $2.50 in, $15.00 out" in text.origin
    assert "more for each request" in text.origin


# -- the trace page -----------------------------------------------------------------------------------------


def test_a_trace_tells_which_attempts_failed_and_what_came_next(quiet: World, reader: TestClient) -> None:
    page = reader.get(f"/traces/{quiet.ask('fast', FALLBACK_QUESTION)}").text
    attempts = page[page.index('aria-label="Attempts"') :]
    lines = [words(line) for line in re.findall(r"(?s)<li>.*?</li>", attempts[: attempts.index("</ol>")])]
    assert lines == [
        "1. globex/large-2, key 1 failed: provider_auth_failed then globex/large-2, key 2",
        "2. globex/large-2, key 2 failed: provider_unreachable then acme/chat",
        "3. acme/chat answered",
    ]
    assert "<dt>Target</dt>" in page
    assert 'acme/chat <span class="soft">attempt 3</span>' in page
    assert page.count('class="failed-name">failed<') == 2


def test_a_failed_attempt_opened_says_its_code_and_what_came_next(quiet: World, reader: TestClient) -> None:
    trace_id = quiet.ask("fast", FALLBACK_QUESTION)
    failed = next(s for s in quiet.services.traces.get(trace_id) if s.name == "chat large-2")
    step = words(reader.get(f"/traces/{trace_id}?step={failed.span_id}").text)
    assert "failed: provider_auth_failed globex did not take the call." in step
    assert "Attempt 1 of 3, at globex/large-2, key 1; then globex/large-2, key 2." in step


def test_an_answer_from_the_cache_says_what_it_saved(quiet: World, reader: TestClient) -> None:
    quiet.ask("fast", FALLBACK_QUESTION)
    page = reader.get(f"/traces/{quiet.ask('fast', FALLBACK_QUESTION)}").text
    assert re.search(r"\$0\.000\d+ saved", page)
    assert 'class="pill good">' in page
    assert 'aria-label="Attempts"' not in page


def test_tool_calls_reasoning_media_and_usage_classes_are_shown(quiet: World, reader: TestClient) -> None:
    call = {"id": "call_7", "name": "free_dock", "arguments": '{"at": "20:00", "for": "<lorry>"}'}
    asked = [
        {"role": "user", "content": "Which dock?", "media": ["image image/png, 2048 bytes"]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "dock 4", "tool_call_id": "call_7"},
    ]
    said = [{"role": "assistant", "content": "Dock 4.", "reasoning": "The tool said 4."}]
    root = Span(
        new_trace_id(), new_span_id(), None, "chat", 10**18, 10**18 + 10**9, kind="server",
        attributes={"gen_ai.input.messages": asked, "gen_ai.output.messages": said},
    )  # fmt: skip
    used = {
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.cache_read.input_tokens": 800,
        "gen_ai.usage.cache_creation.input_tokens": 50,
        "gen_ai.usage.reasoning.output_tokens": 70,
    }
    model = replace(root, span_id=new_span_id(), parent_id=root.span_id, name="chat m", attributes=used)
    quiet.services.traces.ingest([root, model])

    page = reader.get(f"/traces/{root.trace_id}").text

    assert "<title>Which dock?" in page
    assert "image image/png, 2048 bytes" in page
    assert "<code>free_dock</code>" in page
    assert "&lt;lorry&gt;" in page
    assert (
        'A tool&#39;s result <span class="faint mono break">call_7</span>' in page
        or "A tool's result" in page
    )
    assert "Reasoning of the model" in page
    assert "800 in: read from the provider" in page
    assert "50 in: written to it" in page
    assert "70 out: reasoning" in page
    assert "<h2>Steps</h2>" in page


def test_messages_of_other_tools_are_read_too() -> None:
    openai, otel = turns(
        [
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "hm"},
                    {"type": "text", "content": "well"},
                    {"type": "tool_call", "id": "b", "name": "g", "arguments": {"x": 1}},
                ],
            },
        ]
    )
    assert [(t.id, t.name) for t in (*openai.tools, *otel.tools)] == [("a", "f"), ("b", "g")]
    assert (otel.content, otel.reasoning) == ("well", "hm")
    (result,) = turns(
        [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "b", "response": {"y": 2}}]}]
    )
    assert result.answers == "b"
    assert '"y": 2' in result.content


def test_every_state_of_a_target_has_a_word(quiet: World, reader: TestClient) -> None:
    quiet.ask("acme/chat", "Hello.")
    from_breakers = quiet.services.deps.dispatcher.router.breakers.states(time.monotonic())
    (known,) = [v for v in from_breakers if v.provider == "acme"]
    said = {
        availability: state_of(replace(known, availability=availability, retry_in_s=7.3)).word
        for availability in ("closed", "open", "half_open", "limited", "key_out")
    }
    assert said["open"] == "breaker open for 7 s"
    assert said["limited"] == "rate-limited for 7 s"
    assert said["key_out"] == "key refused, out for 7 s"
    assert said["closed"] == "in service"
    assert "one call tries it" in said["half_open"]


def test_the_page_of_spend_says_what_the_cache_saved(quiet: World, reader: TestClient) -> None:
    quiet.ask("fast", FALLBACK_QUESTION)
    assert "came from the cache" not in reader.get("/spend").text
    quiet.ask("fast", FALLBACK_QUESTION)
    assert "1 answer came from the cache, which saved $0.000" in words(reader.get("/spend").text)
