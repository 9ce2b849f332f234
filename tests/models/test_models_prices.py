"""Prices and costs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.models import Price, PriceTier, Usage, cost_nusd, price_of, worst_case_nusd

AT_US = int(datetime(2026, 9, 1, tzinfo=UTC).timestamp() * 1e6)
PRICE = Price(150.0, 600.0, 75.0, source="test", as_of="2026-09-01")


def test_a_listed_price_is_nano_dollars_per_token_with_its_source_and_date():
    price = price_of("openai", "gpt-4o-mini", AT_US)

    assert price is not None
    assert (price.input_nusd, price.output_nusd, price.cached_input_nusd) == (150.0, 600.0, 75.0)
    assert price.source.startswith("genai-prices ")
    assert price.as_of == "2026-09-01"


@pytest.mark.parametrize(("provider", "model"), [("openai", "no-such-model"), ("nobody", "gpt-4o-mini")])
def test_an_unknown_price_is_none_and_never_zero(provider, model):
    assert price_of(provider, model, AT_US) is None


def test_a_model_priced_by_something_else_than_tokens_has_no_price():
    assert price_of("openai", "whisper-1", AT_US) is None


def test_a_base_url_finds_its_vendors_prices():
    assert price_of("https://api.openai.com/v1", "gpt-4o-mini", AT_US) is not None
    assert price_of("http://10.0.0.5:8000/v1", "gpt-4o-mini", AT_US) is None


def test_without_a_cache_price_cached_input_costs_as_much_as_any():
    price = price_of("groq", "llama-3.3-70b-versatile", AT_US)

    assert price is not None
    assert price.cached_input_nusd == price.input_nusd == 590.0


def test_a_price_that_rises_with_the_prompt_keeps_its_tiers():
    price = price_of("google", "gemini-2.5-pro", AT_US)

    assert price is not None
    assert price.tiers
    assert price.tiers[0].above_input_tokens == 200_000
    assert price.tiers[0].input_nusd > price.input_nusd


def test_local_models_cost_nothing():
    price = price_of("local", "smollm2", AT_US)

    assert price is not None
    assert price.source == "local"
    assert cost_nusd(Usage(10_000, 10_000), price) == 0


def test_cost_counts_cached_input_once_and_rounds_up():
    assert cost_nusd(Usage(1000, 100, cached_input_tokens=400), PRICE) == 600 * 150 + 400 * 75 + 100 * 600
    assert cost_nusd(Usage(3, 0), Price(0.1, 0.0, 0.0, "test", "2026-09-01")) == 1
    assert cost_nusd(Usage(10, 0), Price(0.1, 0.0, 0.0, "test", "2026-09-01")) == 1


def test_the_tier_a_prompt_reaches_prices_the_whole_call():
    price = Price(
        1.0, 2.0, 0.5, "test", "2026-09-01", tiers=(PriceTier(100, 10.0, 20.0, 5.0),), request_nusd=7.0
    )

    assert cost_nusd(Usage(100, 10), price) == 100 + 20 + 7
    assert cost_nusd(Usage(101, 10), price) == 1010 + 200 + 7


usages = st.integers(0, 500).flatmap(
    lambda given_tokens: st.builds(
        Usage,
        input_tokens=st.just(given_tokens),
        output_tokens=st.integers(0, 300),
        cached_input_tokens=st.integers(0, given_tokens),
    )
)


@given(usages, st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4))
def test_no_call_within_its_limits_costs_more_than_the_worst_case(usage, fresh, written, cached):
    price = Price(fresh, written, cached, "test", "2026-09-01")

    assert cost_nusd(usage, price) <= worst_case_nusd(usage.input_tokens, usage.output_tokens, price)
