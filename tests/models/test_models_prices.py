"""Prices and costs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.models import Price, PriceTier, Usage, cost_nusd, expected_nusd, price_of, worst_case_nusd
from mainstay.models.prices import check_override

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


def test_the_price_list_brings_the_dearer_classes_too():
    claude = price_of("anthropic", "claude-sonnet-4-5", AT_US)
    spoken = price_of("openai", "gpt-realtime", AT_US)

    assert claude is not None
    assert claude.cache_write_nusd == claude.input_nusd * 1.25
    assert spoken is not None
    assert spoken.audio_input_nusd == 32_000
    assert spoken.audio_output_nusd == 64_000


DEAR = Price(
    1000.0,
    4000.0,
    100.0,
    "test",
    "2026-09-01",
    cache_write_nusd=1250.0,
    cache_write_1h_nusd=2000.0,
    audio_input_nusd=32_000.0,
    audio_output_nusd=64_000.0,
)


def test_many_short_lived_prices_are_each_charged_by_their_own_rates():
    costs = [cost_nusd(Usage(1, 0), Price(float(n), 0.0, 0.0, "test", "2026-01-01")) for n in range(5000)]

    assert costs == list(range(5000))


def test_each_token_is_charged_in_one_class():
    usage = Usage(
        1000,
        100,
        cached_input_tokens=400,
        cache_write_tokens=300,
        cache_write_1h_tokens=100,
        audio_input_tokens=50,
        audio_output_tokens=10,
    )

    assert cost_nusd(usage, DEAR) == (
        250 * 1000 + 400 * 100 + 200 * 1250 + 100 * 2000 + 50 * 32_000 + 90 * 4000 + 10 * 64_000
    )


def test_writing_a_cache_costs_as_input_without_a_price_of_its_own():
    assert cost_nusd(Usage(1000, 0, cache_write_tokens=1000), PRICE) == cost_nusd(Usage(1000, 0), PRICE)


def test_in_a_dearer_tier_writing_the_cache_is_dearer_too():
    price = Price(
        100.0, 0.0, 10.0, "test", "", tiers=(PriceTier(10, 200.0, 0.0, 20.0),), cache_write_nusd=125.0
    )

    assert cost_nusd(Usage(20, 0, cache_write_tokens=20), price) == 20 * 250


def test_a_call_that_writes_no_cache_is_held_for_less():
    silent = Price(1000.0, 4000.0, 100.0, "test", "", cache_write_nusd=1250.0, cache_write_1h_nusd=2000.0)

    assert worst_case_nusd(10, 1, silent) == 10 * 2000 + 4000
    assert worst_case_nusd(10, 1, silent, cache_writes=False) == 10 * 1000 + 4000


def test_the_expected_cost_counts_nothing_as_cached():
    assert expected_nusd(10, 2, PRICE) == 10 * 150 + 2 * 600


@pytest.mark.parametrize(("times", "wrong"), [(1000, False), (1001, True), (0.001, False)])
def test_only_a_price_beyond_a_thousand_times_the_list_looks_wrong(times, wrong):
    given = Price(PRICE.input_nusd * times, PRICE.output_nusd, 0.0, "file", "")

    assert (check_override(given, PRICE) is not None) == wrong


def test_a_free_listed_price_judges_nothing():
    assert check_override(PRICE, Price(0.0, 0.0, 0.0, "test", "")) is None


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    given_tokens, written_tokens = draw(st.integers(0, 500)), draw(st.integers(0, 300))
    cached = draw(st.integers(0, given_tokens))
    writes = draw(st.integers(0, given_tokens - cached))
    return Usage(
        given_tokens,
        written_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=writes,
        cache_write_1h_tokens=draw(st.integers(0, writes)),
        audio_input_tokens=draw(st.integers(0, given_tokens)),
        audio_output_tokens=draw(st.integers(0, written_tokens)),
    )


rates = st.floats(0, 1e4)
own_rates = st.none() | rates


@given(usages(), rates, rates, rates, st.tuples(own_rates, own_rates, own_rates, own_rates), st.booleans())
def test_no_call_within_its_limits_costs_more_than_the_worst_case(usage, fresh, written, cached, own, tiered):
    tiers = (PriceTier(100, fresh * 2, written * 2, cached * 2),) if tiered else ()
    price = Price(fresh, written, cached, "test", "2026-09-01", tiers, 3.0, *own)

    assert cost_nusd(usage, price) <= worst_case_nusd(usage.input_tokens, usage.output_tokens, price)
