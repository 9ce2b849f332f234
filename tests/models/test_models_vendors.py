"""The table of vendors, and what single models are known to lack."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from genai_prices.data_snapshot import get_snapshot

from mainstay.models import VENDORS, Catalog, EngineSettings, ModelsConfig
from mainstay.models.capabilities import ALL
from mainstay.models.limitations import model_lacks
from mainstay.models.providers import PROVIDER_KINDS
from mainstay.models.vendors import Vendor

EVERY = pytest.mark.parametrize("vendor", VENDORS.values(), ids=lambda vendor: vendor.name)


def test_there_are_many_and_each_address_once():
    assert len(VENDORS) >= 30
    assert len({vendor.base_url for vendor in VENDORS.values()}) == len(VENDORS)


@EVERY
def test_a_vendor_is_well_described(vendor: Vendor):
    address = urlsplit(vendor.base_url)

    assert (address.scheme, address.query) == ("https", "")
    assert not vendor.base_url.endswith("/")
    assert vendor.kind in PROVIDER_KINDS
    assert vendor.key_env.isupper()
    assert vendor.lacks <= ALL
    assert vendor.source
    assert "/" not in vendor.name


@EVERY
def test_a_vendor_answers_to_its_key(vendor: Vendor, tmp_path: Path):
    catalog = Catalog(ModelsConfig(), tmp_path, {vendor.key_env: "k"}, EngineSettings())

    target = catalog.resolve(f"{vendor.name}/some-new-model")

    assert target.provider.name == vendor.name
    assert target.capabilities == target.provider.supports - vendor.lacks


def test_price_ids_are_those_of_the_price_list():
    listed = {provider.id for provider in get_snapshot().providers}

    assert {vendor.price_id for vendor in VENDORS.values() if vendor.price_id} <= listed


@pytest.mark.parametrize(
    ("model", "lacks"),
    [
        ("o3", {"temperature", "stop"}),
        ("o4-mini-2025-04-16", {"temperature", "stop"}),
        ("o1-2024-12-17", {"temperature"}),
        ("gpt-5-mini", {"temperature", "top_p", "penalties"}),
        ("gpt-4.1", {"reasoning"}),
    ],
)
def test_what_openais_models_refuse_is_known(model, lacks):
    assert lacks <= model_lacks("openai", model)
    assert model_lacks("azure", model) == model_lacks("openai", model)


@pytest.mark.parametrize("model", ["gpt-5.1", "gpt-5-chat-latest", "gpt-99", "my-deployment"])
def test_other_models_are_assumed_to_take_what_their_vendor_does(model):
    assert model_lacks("openai", model) == frozenset()


def test_groks_that_do_not_reason_lack_nothing():
    assert model_lacks("xai", "grok-4.3") == {"penalties", "stop"}
    assert model_lacks("xai", "grok-4-1-fast-non-reasoning") == frozenset()


def test_a_name_alike_at_another_vendor_lacks_nothing():
    assert model_lacks("groq", "o3") == frozenset()


@pytest.mark.parametrize(
    ("model", "lacks"),
    [
        ("claude-opus-4-7", {"temperature", "top_p", "top_k"}),
        ("claude-sonnet-5-5", {"temperature", "top_p", "top_k"}),
        ("eu.anthropic.claude-opus-4-7-v1:0", {"temperature", "top_p", "top_k"}),
        ("claude-sonnet-4-20250514", {"json_schema"}),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", {"json_schema"}),
        ("claude-sonnet-4-5-20250929", set()),
        ("claude-opus-4-1", set()),
        ("claude-haiku-4-5", set()),
        ("claude-opus-4-6", set()),
    ],
)
def test_what_claude_models_refuse_is_known_wherever_they_run(model, lacks):
    assert model_lacks("anthropic", model) == model_lacks("bedrock", model) == lacks
