"""What can be asked and how targets are, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mainstay.api.models import MODEL_EXAMPLE, STATE_EXAMPLE, TARGET_EXAMPLE
from mainstay.app import build_control_app
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.govern import SYSTEM
from mainstay.models.errors import ProviderUnreachable
from mainstay.services import Services, build_services, close_services

PROJECT = """
project: demo
providers:
  vllm: {kind: vllm, base_url: "http://gpu-1:8000/v1", models: [qwen3-32b]}
  acme: {kind: openai, base_url: "http://acme.example/v1", api_key_env: ACME_KEY, models: [small]}
models:
  quick: {provider: vllm, model: qwen3-32b, price: {input: 0.10, output: 0.40}, context_tokens: 32768}
routes:
  fast: {policy: weighted, targets: [quick, {model: acme/small, weight: 3}]}
"""


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setenv("ACME_KEY", "a-key")
    (tmp_path / "mainstay.yaml").write_text(PROJECT)
    settings = load_settings({"data_dir": tmp_path / "data", "models_dir": tmp_path / "models"}, {}, tmp_path)
    built = build_services(settings, load_project(tmp_path / "mainstay.yaml"))
    yield built
    close_services(built)


@pytest.fixture
def viewer(services: Services) -> Iterator[TestClient]:
    client = client_of(services)
    yield client
    client.close()


def client_of(services: Services) -> TestClient:
    _, token = services.keys.create(SYSTEM, "a viewer", role="viewer")
    services.refresher.refresh()
    return TestClient(build_control_app(services), headers={"Authorization": f"Bearer {token.reveal()}"})


def test_every_name_is_listed_with_what_stands_behind_it(viewer: TestClient) -> None:
    models = {m["name"]: m for m in viewer.get("/api/v1/models").json()["models"]}

    fast, quick = models["fast"], models["quick"]

    assert {"fast", "quick", "vllm/qwen3-32b", "acme/small", "local/extractive"} <= models.keys()
    assert (fast["kind"], fast["policy"], fast["provider"], fast["price"]) == (
        "route",
        "weighted",
        None,
        None,
    )
    assert [(t["name"], t["provider"], t["weight"]) for t in fast["targets"]] == [
        ("quick", "vllm", 1.0),
        ("acme/small", "acme", 3.0),
    ]
    assert quick["price"]["input_nusd"] == 100.0
    assert quick["price"]["source"]
    assert quick["context_tokens"] == fast["context_tokens"] == 32_768
    assert "tools" in fast["capabilities"]
    assert models["acme/small"]["price"] is None


def test_the_list_is_narrowed_by_kind_and_provider(viewer: TestClient) -> None:
    routes = viewer.get("/api/v1/models", params={"kind": "route"}).json()["models"]
    of_acme = viewer.get("/api/v1/models", params={"provider": "acme"}).json()["models"]
    assert [m["name"] for m in routes] == ["fast"]
    assert [m["name"] for m in of_acme] == ["acme/small"]
    assert viewer.get("/api/v1/models", params={"kind": "other"}).status_code in (400, 422)


def test_a_name_whose_key_is_missing_is_listed_with_the_problem(
    viewer: TestClient, monkeypatch: pytest.MonkeyPatch, services: Services
) -> None:
    monkeypatch.delenv("ACME_KEY")
    of_acme = viewer.get("/api/v1/models", params={"provider": "acme"}).json()["models"]
    assert "ACME_KEY" in of_acme[0]["problem"]
    assert of_acme[0]["targets"] == []


def test_the_states_of_targets_are_told(viewer: TestClient, services: Services) -> None:
    assert viewer.get("/api/v1/targets").json() == {"process": None, "targets": [], "note": None}

    async def fail() -> None:
        now_s = asyncio.get_running_loop().time()
        target = services.catalog.resolve("quick")
        state = services.deps.dispatcher.router.breakers.of(target, now_s)
        state.failed(state.enter(), ProviderUnreachable("It is down.", provider="vllm"), now_s)

    asyncio.run(fail())
    (state,) = viewer.get("/api/v1/targets").json()["targets"]
    assert state.keys() == STATE_EXAMPLE.keys()
    assert (state["public_name"], state["availability"]) == ("quick", "closed")
    assert (state["attempts"], state["failures"], state["failures_in_a_row"]) == (1, 1, 1)


def test_a_control_plane_alone_says_whose_states_it_tells(services: Services) -> None:
    with client_of(replace(services, role="control")) as client:
        body = client.get("/api/v1/targets").json()
    assert body["process"] == "control"
    assert "gateway" in body["note"]


@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/targets"])
def test_it_takes_a_key_that_may_read(services: Services, path: str) -> None:
    with TestClient(build_control_app(services)) as stranger:
        assert stranger.get(path).status_code == 401


def test_the_examples_of_the_description_have_the_fields_of_the_answers(viewer: TestClient) -> None:
    found = viewer.get("/api/v1/models").json()["models"]
    assert found[0].keys() == MODEL_EXAMPLE.keys()
    assert found[0]["targets"][0].keys() == TARGET_EXAMPLE.keys()
    described = viewer.get("/api/openapi.json").json()["paths"]
    for path in ("/api/v1/models", "/api/v1/targets"):
        assert described[path]["get"]["responses"]["200"]["content"]["application/json"]["example"]
