"""Every route of the HTTP API asks for the permission it declares, of every role."""

import httpx2 as httpx
import pytest
from fastapi.routing import APIRoute
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mainstay import api
from mainstay.api.access import declared_permission
from mainstay.cli.context import actor
from mainstay.cli.server import RunningServer
from mainstay.govern import ROLE_PERMISSIONS, Role
from mainstay.services import wait_for_trace
from mainstay.serving.snapshot import RefreshFailure

ROUTES = [r for r in api.router().routes if isinstance(r, APIRoute)]
IDS = [f"{sorted(r.methods)[0]} {r.path}" for r in ROUTES]
FILLED = {
    "{number}": "1",
    "{a}": "1",
    "{b}": "1",
    "{app}": "none",
    "{environment}": "production",
    "{corpus}": "none",
    "{version_id}": "none",
    "{trace_id}": "0" * 31 + "1",
    "{run_id}": "none",
    "{key_id}": "none",
}


def call(server: RunningServer, route: APIRoute, token: str | None) -> httpx.Response:
    path = route.path
    for name, value in FILLED.items():
        path = path.replace(name, value)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.request(sorted(route.methods)[0], server.base_url + path, headers=headers)


def test_each_route_lets_in_exactly_the_roles_that_may(server: RunningServer) -> None:
    roles: tuple[Role, ...] = ("viewer", "developer", "admin")
    tokens = {r: server.services.keys.create(actor(), r, role=r)[1].reveal() for r in roles}
    server.services.refresher.refresh()
    wrong = []
    for route in ROUTES:
        permission = declared_permission(route)
        assert permission is not None
        for role in roles:
            refused = call(server, route, tokens[role]).status_code == 403
            if refused == (permission in ROLE_PERMISSIONS[role]):
                wrong.append((route.path, role))
        anonymous = call(server, route, None).status_code
        if (anonymous == 401) == (permission == "public"):
            wrong.append((route.path, "nobody"))
    assert wrong == []


def test_no_route_answers_a_bad_request_with_a_server_error(server: RunningServer) -> None:
    statuses = {
        name: call(server, route, server.key).status_code for name, route in zip(IDS, ROUTES, strict=True)
    }
    assert {name: s for name, s in statuses.items() if s >= 500} == {}


def test_an_error_says_what_is_wrong_and_how_to_mend_it(server: RunningServer) -> None:
    reply = httpx.get(
        f"{server.base_url}/api/v1/apps/bott", headers={"Authorization": f"Bearer {server.key}"}
    )
    error = reply.json()["error"]
    assert reply.status_code == 404
    assert "bott" in error["message"]
    assert "'bot'" in error["fix"]
    assert error["error_id"].startswith("err_")


def test_a_revoked_key_is_refused_within_a_second(server: RunningServer) -> None:
    key, token = server.services.keys.create(actor(), "short-lived")
    server.services.refresher.refresh()
    headers = {"Authorization": f"Bearer {token.reveal()}"}
    assert httpx.get(f"{server.base_url}/v1/models", headers=headers).status_code == 200
    server.services.keys.revoke(actor(), key.id)
    server.services.refresher.refresh()
    assert httpx.get(f"{server.base_url}/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/api/openapi.json", "/healthz", "/readyz"])
def test_what_machines_watch_needs_no_key(server: RunningServer, path: str) -> None:
    assert httpx.get(server.base_url + path).status_code == 200


def test_an_opentelemetry_program_can_send_its_spans_here(server: RunningServer) -> None:
    exporter = OTLPSpanExporter(
        f"{server.base_url}/v1/traces", headers={"authorization": f"Bearer {server.key}"}
    )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("shop").start_as_current_span("checkout") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
    provider.shutdown()
    wait_for_trace(server.services, trace_id)
    assert [s.name for s in server.services.traces.get(trace_id)] == ["checkout"]


def test_metrics_count_the_requests_of_an_app(server: RunningServer) -> None:
    body = {"model": "bot", "messages": [{"role": "user", "content": "How many days of annual leave?"}]}
    headers = {"Authorization": f"Bearer {server.key}"}
    assert httpx.post(f"{server.base_url}/v1/chat/completions", json=body, headers=headers).status_code == 200
    text = httpx.get(f"{server.base_url}/metrics", headers=headers).text
    assert 'mainstay_requests_total{app="bot",model="local/extractive",release="1",status="ok"} 1.0' in text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b"1" * 10_000, 400),
        (b'{"name": "x", "budget_usd": "1e999999999"}', 400),
        (b'{"name": "x", "expires_at_us": 1' + b"0" * 30 + b"}", 400),
        (b'{"name": "x", "requests_per_minute": 1' + b"0" * 30 + b"}", 400),
    ],
)
def test_a_body_nobody_can_use_is_the_callers_mistake(
    server: RunningServer, body: bytes, status: int
) -> None:
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    reply = httpx.post(f"{server.base_url}/api/v1/keys", content=body, headers=headers)
    assert reply.status_code == status
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_body_without_end_is_cut_off_before_anybody_signs_in(server: RunningServer) -> None:
    limit = server.services.settings.body_limit_mb << 20
    reply = httpx.post(
        f"{server.base_url}/api/v1/keys",
        content=b" " * (limit + 1),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("address", ["audit?before=1" + "0" * 30, "traces?text=%00", "apps/%00"])
def test_an_address_with_what_no_database_holds_is_the_callers_mistake(
    server: RunningServer, address: str
) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    assert httpx.get(f"{server.base_url}/api/v1/{address}", headers=headers).status_code == 400


def test_a_server_whose_control_state_is_stale_is_not_ready_and_does_not_say_why(
    server: RunningServer,
) -> None:
    services = server.services
    services.refresher.close()
    services.snapshots.failure = RefreshFailure(0, "OperationalError: user=ada host=db-1")
    reply = httpx.get(f"{server.base_url}/readyz")
    assert (reply.status_code, reply.json()["status"]) == (503, "stale")
    assert "db-1" not in reply.text
