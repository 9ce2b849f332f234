"""A running server follows its project file, and never takes over one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.core.yamlfile import load_yaml
from mainstay.models import Catalog, EngineSettings, UnknownModel, read_models_config
from mainstay.services.project_watch import ProjectWatch

BEFORE = """
project: p
providers:
  acme: {kind: openai, base_url: http://127.0.0.1:1/v1}
  other: {kind: openai, base_url: http://127.0.0.1:2/v1}
models:
  fast: {provider: acme, model: small}
  slow: {provider: other, model: large}
"""


def watched(tmp_path: Path) -> tuple[Path, Catalog, ProjectWatch, list[str]]:
    path = tmp_path / "mainstay.yaml"
    path.write_text(BEFORE)
    catalog = Catalog(read_models_config(load_yaml(path)), tmp_path, {}, EngineSettings())
    reloads: list[str] = []
    return path, catalog, ProjectWatch(path, catalog, lambda: reloads.append("reload")), reloads


async def test_a_changed_route_is_served_and_what_is_under_way_keeps_its_target(tmp_path: Path) -> None:
    path, catalog, watch, reloads = watched(tmp_path)
    under_way, untouched = catalog.resolve("fast"), catalog.resolve("slow")
    assert not await watch.look()
    path.write_text(BEFORE.replace("127.0.0.1:1/", "127.0.0.1:3/").replace("small", "medium"))
    assert await watch.look()
    assert (under_way.model, catalog.resolve("fast").model) == ("small", "medium")
    assert catalog.resolve("fast").provider is not under_way.provider
    assert catalog.resolve("slow").provider is untouched.provider, "its connections stay warm"
    assert reloads == ["reload"]
    await catalog.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [("provider: acme", "provider: nobody"), ("models:", "models"), ("kind: openai", "kind: x")],
)
async def test_a_wrong_file_never_replaces_a_good_one(tmp_path: Path, old: str, new: str) -> None:
    path, catalog, watch, reloads = watched(tmp_path)
    path.write_text(BEFORE.replace(old, new))
    assert not await watch.look()
    assert watch.problem is not None
    assert (catalog.resolve("fast").model, reloads) == ("small", [])
    path.write_text(BEFORE.replace("small", "medium"))
    assert await watch.look()
    assert (watch.problem, catalog.resolve("fast").model) == (None, "medium")
    await catalog.close()


async def test_a_model_that_is_gone_is_unknown(tmp_path: Path) -> None:
    path, catalog, watch, _ = watched(tmp_path)
    path.write_text(BEFORE.replace("  slow: {provider: other, model: large}\n", ""))
    assert await watch.look()
    with pytest.raises(UnknownModel):
        catalog.resolve("slow")
    await catalog.close()
