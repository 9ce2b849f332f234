"""Prices per token from genai-prices (offline data of the installed package), and costs in nano-dollars.

An unknown price is None: shown as unknown, refused under a hard budget, never taken for free. The package
is imported on first use: its data takes about half a second to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from mainstay.core.clock import to_datetime
from mainstay.core.money import NUSD_PER_USD
from mainstay.models.types import Price, PriceTier, Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo as ListedModel
    from genai_prices.types import ModelPrice

LOCAL: Final = "local"
OVERRIDE_TIMES_MAX: Final = 1000
_MILLION: Final = 1_000_000
_PRICED_IN_TOKENS: Final = frozenset({"input_mtok", "output_mtok", "cache_read_mtok"})


def local_price(at_us: int) -> Price:
    """Models on this machine cost nothing per token."""
    return Price(0.0, 0.0, 0.0, source=LOCAL, as_of=to_datetime(at_us).date().isoformat())


def price_of(provider: str, model: str, at_us: int) -> Price | None:
    """The list price at that time. `provider`: a genai-prices id such as `openai`, a base URL, or `local`.

    None when the provider or model is not listed or is not priced by input and output tokens.
    """
    if provider == LOCAL:
        return local_price(at_us)
    listed = listed_model(provider, model)
    if listed is None:
        return None
    prices = listed.get_prices(to_datetime(at_us))
    as_of = to_datetime(at_us).date().isoformat()
    return _to_price(prices, f"genai-prices {_package_version()}", as_of)


def listed_context_tokens(provider: str, model: str) -> int | None:
    listed = listed_model(provider, model)
    return listed.context_window if listed is not None else None


def listed_models(provider: str) -> tuple[str, ...]:
    """Ids of the provider's current models that are priced by input and output tokens."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    found = find_provider_by_id(get_snapshot().providers, provider)
    if found is None:
        return ()
    at = to_datetime(0)
    return tuple(m.id for m in found.models if not m.deprecated and _flat(m.get_prices(at)) is not None)


@lru_cache(maxsize=4096)
def listed_model(provider: str, model: str) -> ListedModel | None:
    from genai_prices.data_snapshot import get_snapshot

    is_url = provider.startswith(("http://", "https://"))
    try:
        _, found = get_snapshot().find_provider_model(
            model, None, None if is_url else provider, provider if is_url else None
        )
    except LookupError:
        return None
    return found


@lru_cache(maxsize=1)
def _package_version() -> str:
    return version("genai-prices")


def _flat(prices: ModelPrice) -> tuple[Decimal, Decimal, Decimal] | None:
    """Base prices in dollars per million tokens: input, output, cached input."""
    base = {key: _base(getattr(prices, key)) for key in _PRICED_IN_TOKENS}
    given, written, cached = base["input_mtok"], base["output_mtok"], base["cache_read_mtok"]
    if given is None or written is None:
        return None
    return given, written, given if cached is None else cached


def _base(value: object) -> Decimal | None:
    base = getattr(value, "base", value)
    return base if isinstance(base, Decimal) else None


def _to_price(prices: ModelPrice, source: str, as_of: str) -> Price | None:
    flat = _flat(prices)
    if flat is None:
        return None
    given, written, cached = flat
    per_request = _base(getattr(prices, "requests_kcount", None)) or Decimal(0)
    return Price(
        input_nusd=_per_token(given),
        output_nusd=_per_token(written),
        cached_input_nusd=_per_token(cached),
        source=source,
        as_of=as_of,
        tiers=_tiers(prices, given, written, cached),
        request_nusd=float(per_request * NUSD_PER_USD / 1000),
        cache_write_nusd=_optional(prices, "cache_write_mtok"),
        cache_write_1h_nusd=_optional(prices, "cache_write_1h_mtok"),
        audio_input_nusd=_optional(prices, "input_audio_mtok"),
        audio_output_nusd=_optional(prices, "output_audio_mtok"),
    )


def _optional(prices: ModelPrice, name: str) -> float | None:
    base = _base(getattr(prices, name, None))
    return None if base is None else _per_token(base)


def _per_token(usd_per_million: Decimal) -> float:
    return float(usd_per_million * NUSD_PER_USD / _MILLION)


def _tiers(prices: ModelPrice, given: Decimal, written: Decimal, cached: Decimal) -> tuple[PriceTier, ...]:
    by_key: Mapping[str, Mapping[int, Decimal]] = {
        key: {tier.start: tier.price for tier in getattr(getattr(prices, key), "tiers", ())}
        for key in _PRICED_IN_TOKENS
    }
    tiers = []
    for start in sorted({start for steps in by_key.values() for start in steps}):
        given = by_key["input_mtok"].get(start, given)
        written = by_key["output_mtok"].get(start, written)
        cached = by_key["cache_read_mtok"].get(start, cached if by_key["cache_read_mtok"] else given)
        tiers.append(PriceTier(start, _per_token(given), _per_token(written), _per_token(cached)))
    return tuple(tiers)


_PARTS: Final = 1_000_000
"""Rates are whole millionths of a nano-dollar a token: exact for every listed price, and integers are quick."""


@dataclass(frozen=True, slots=True)
class _Rates:
    """The rates of one tier of a price, each in `_PARTS` of a nano-dollar a token."""

    above_input_tokens: int
    given: int
    cached: int
    written: int
    cache_write: int
    cache_write_1h: int
    sound: int
    spoken: int
    dearest_given: int
    dearest_given_uncached: int
    dearest_written: int


_Compiled = tuple[int, tuple[_Rates, ...]]
"""(the fee of a request, tiers from the highest down; the last one always applies)"""

_COMPILED_MAX: Final = 4096
_compiled_by_id: dict[int, tuple[Price, _Compiled]] = {}
"""By identity, as to hash a price's fields costs more than to use it. An entry keeps its price, and so its id, alive."""


def _compiled(price: Price) -> _Compiled:
    known = _compiled_by_id.get(id(price))
    if known is not None:
        return known[1]
    if len(_compiled_by_id) >= _COMPILED_MAX:
        _compiled_by_id.clear()
    made = _compile(price)
    _compiled_by_id[id(price)] = price, made
    return made


def _compile(price: Price) -> _Compiled:
    tiers = (PriceTier(-1, price.input_nusd, price.output_nusd, price.cached_input_nusd), *price.tiers)
    return _parts(price.request_nusd), tuple(_rates(tier, price) for tier in reversed(tiers))


def _rates(tier: PriceTier, price: Price) -> _Rates:
    minutes, hour = _write_rates(tier.input_nusd, price)
    sound, spoken = (
        _or(price.audio_input_nusd, tier.input_nusd),
        _or(price.audio_output_nusd, tier.output_nusd),
    )
    uncached = max(tier.input_nusd, tier.cached_input_nusd, sound)
    return _Rates(
        above_input_tokens=tier.above_input_tokens,
        given=_parts(tier.input_nusd),
        cached=_parts(tier.cached_input_nusd),
        written=_parts(tier.output_nusd),
        cache_write=_parts(minutes),
        cache_write_1h=_parts(hour),
        sound=_parts(sound),
        spoken=_parts(spoken),
        dearest_given=_parts(max(uncached, minutes, hour)),
        dearest_given_uncached=_parts(uncached),
        dearest_written=_parts(max(tier.output_nusd, spoken)),
    )


def _parts(nusd: float) -> int:
    return round(nusd * _PARTS)


def _reached(input_tokens: int, tiers: tuple[_Rates, ...]) -> _Rates:
    for rates in tiers:
        if input_tokens > rates.above_input_tokens:
            return rates
    return tiers[-1]


def cost_nusd(usage: Usage, price: Price) -> int:
    """The cost of a call, rounded up once to a whole nano-dollar.

    Each token is charged in one class: read from the cache, written to it (for minutes or an hour), sound, or plain.
    Sound read from the cache is charged as cached.
    """
    fee, tiers = _compiled(price)
    rates = _reached(usage.input_tokens, tiers)
    given, output = usage.input_tokens, usage.output_tokens
    # `x and …`: most of these are zero, and then so is the least of them
    cached = usage.cached_input_tokens and min(usage.cached_input_tokens, given)
    written = usage.cache_write_tokens and min(usage.cache_write_tokens, given - cached)
    hour = usage.cache_write_1h_tokens and min(usage.cache_write_1h_tokens, written)
    sound = usage.audio_input_tokens and min(usage.audio_input_tokens, given - cached - written)
    spoken = usage.audio_output_tokens and min(usage.audio_output_tokens, output)
    total = (
        fee
        + (given - cached - written - sound) * rates.given
        + cached * rates.cached
        + (written - hour) * rates.cache_write
        + hour * rates.cache_write_1h
        + sound * rates.sound
        + (output - spoken) * rates.written
        + spoken * rates.spoken
    )
    return -(-total // _PARTS)


def worst_case_nusd(
    input_tokens: int, max_output_tokens: int, price: Price, *, cache_writes: bool = True
) -> int:
    """What a call can cost at most: each token in its dearest class, all output tokens written, the dearest tier
    reached. `cache_writes` False: the call asks for no cache, so none is written at a price of its own."""
    fee, tiers = _compiled(price)
    rates = _reached(input_tokens, tiers)
    given = rates.dearest_given if cache_writes else rates.dearest_given_uncached
    total = fee + input_tokens * given + max_output_tokens * rates.dearest_written
    return -(-total // _PARTS)


def expected_nusd(input_tokens: int, output_tokens: int, price: Price) -> int:
    """What a call of that size costs when nothing is cached: for comparing targets and for dry runs."""
    return cost_nusd(Usage(input_tokens, output_tokens), price)


def _write_rates(input_nusd: float, price: Price) -> tuple[float, float]:
    """Of a token written to the cache for minutes, and for an hour. In a dearer tier both rise as input does."""
    rise = input_nusd / price.input_nusd if price.input_nusd else 1.0
    minutes = input_nusd if price.cache_write_nusd is None else price.cache_write_nusd * rise
    hour = minutes if price.cache_write_1h_nusd is None else price.cache_write_1h_nusd * rise
    return minutes, hour


def _or(rate: float | None, otherwise: float) -> float:
    return otherwise if rate is None else rate


def check_override(price: Price, listed: Price) -> str | None:
    """What is wrong with a configured price, judged by the listed one: it is more than 1000 times that, so that
    it was probably given per thousand tokens or in another unit. None: nothing."""
    for word, given, known in (
        ("input", price.input_nusd, listed.input_nusd),
        ("output", price.output_nusd, listed.output_nusd),
    ):
        if known > 0 and given > known * OVERRIDE_TIMES_MAX:
            return (
                f"{word} is ${given / 1000:g} per million tokens, more than {OVERRIDE_TIMES_MAX} times the "
                f"listed ${known / 1000:g} ({listed.source})"
            )
    return None
