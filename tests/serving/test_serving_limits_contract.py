"""What every limiter does, in memory and on a real Redis alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mainstay.core.ids import uuid7_hex
from mainstay.govern.types import Budget, Limits, LimitScope
from mainstay.serving.errors import (
    BudgetInFlight,
    InsufficientQuota,
    PriceUnknown,
    RateLimited,
    RequestExceedsBudget,
    RequestExceedsTokenLimit,
    TokensLimited,
    TooManyAtOnce,
)
from mainstay.serving.exchange import rate_headers
from mainstay.serving.limits import Ask, BudgetState, Limiter, MemoryLimiter, RedisLimiter
from support.limits import DAY_US, MINUTE_US, SECOND_US, ManualClock, asking, money_of, scope, state_of
from support.redis_server import RedisServer, shared_redis_server  # noqa: F401

MONTH = Budget(1000, "month")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def warned() -> list[BudgetState]:
    return []


@pytest.fixture(params=["memory", "redis"])
async def limiter(
    request: pytest.FixtureRequest, clock: ManualClock, warned: list[BudgetState]
) -> AsyncIterator[Limiter]:
    made: Limiter
    if request.param == "memory":
        made = MemoryLimiter(clock=clock, on_soft_exceeded=warned.append)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        made = RedisLimiter(
            server.url, clock=clock, prefix=uuid7_hex(), timeout_s=10, on_soft_exceeded=warned.append
        )
    yield made
    await made.close()


async def spend(limiter: Limiter, of: list[LimitScope], nusd: int) -> None:
    limiter.settle(await limiter.reserve(of, asking(nusd, nusd)), nusd, 0)


async def test_a_hold_becomes_spend_once(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH)
    hold = await limiter.reserve([key], asking(600, 100))
    assert await money_of(limiter, key) == (0, 600)
    limiter.settle(hold, 250, None)
    limiter.settle(hold, 250, None)
    assert await money_of(limiter, key) == (250, 0)
    limiter.settle(hold, 250, None)
    assert await money_of(limiter, key) == (250, 0)


async def test_every_budget_of_every_scope_is_charged(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH, Budget(500, "day"))
    team = scope("team", "t", Budget(10_000, "total"), Budget(9_000, "week"))
    hold = await limiter.reserve([key, team], asking(300))
    limiter.settle(hold, 200, None)
    states = await limiter.states([key, team])
    assert [(s.kind, s.window, s.spent_nusd, s.held_nusd) for s in states] == [
        ("key", "month", 200, 0),
        ("key", "day", 200, 0),
        ("team", "total", 200, 0),
        ("team", "week", 200, 0),
    ]


async def test_the_tightest_hard_budget_grants_what_is_left(limiter: Limiter) -> None:
    key, team = scope("key", "a", MONTH), scope("team", "t", Budget(400, "day"))
    await spend(limiter, [team], 150)
    hold = await limiter.reserve([key, team], asking(600, 50))
    assert hold.nusd == 250
    assert hold.remaining_nusd == 0
    assert await money_of(limiter, key) == (0, 250)


async def test_a_refusal_leaves_nothing_counted_or_held(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH, rpm=5, tpm=100, slots=1)
    app = scope("app", "b", Budget(400, "day"))
    await spend(limiter, [app], 400)
    for _ in range(10):
        with pytest.raises(InsufficientQuota):
            await limiter.reserve([key, app], asking(600, 50, tokens=60))
    hold = await limiter.reserve([key], asking(1000, tokens=100))
    assert hold.rate is not None
    assert hold.rate.remaining == 4


async def test_a_spent_budget_is_refused_without_a_retry_and_says_where_it_stands(limiter: Limiter) -> None:
    team = scope("team", "support", MONTH)
    await spend(limiter, [team], 990)
    with pytest.raises(InsufficientQuota) as caught:
        await limiter.reserve([scope("key", "a", Budget(10**9, "total")), team], asking(100, 50))
    assert caught.value.retry_after_s is None
    assert caught.value.detail == {
        "limit_source": "team",
        "scope": "team_support",
        "scope_name": "support",
        "window": "month",
        "limit_nusd": 1000,
        "settled_nusd": 990,
        "held_nusd": 0,
        "resets_at": "2026-12-01T00:00:00.000Z",
    }


async def test_a_budget_that_is_only_held_says_when_to_try_again(
    limiter: Limiter, clock: ManualClock
) -> None:
    key = scope("key", "a", MONTH)
    first = await limiter.reserve([key], asking(10))
    clock.forward(7 * SECOND_US)
    limiter.settle(first, 0, None)
    await limiter.reserve([key], asking(990))
    with pytest.raises(BudgetInFlight) as caught:
        await limiter.reserve([key], asking(100, 50))
    assert caught.value.retry_after_s == 7
    assert caught.value.detail["held_nusd"] == 990


async def test_a_request_dearer_than_the_whole_budget_hears_what_would_fit(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH)
    with pytest.raises(RequestExceedsBudget, match="max_tokens of at most 100") as caught:
        await limiter.reserve([key], Ask(600, 5000, 1001, max_tokens_within=lambda nusd: nusd // 10))
    assert caught.value.detail["max_tokens_that_fit"] == 100
    with pytest.raises(RequestExceedsBudget, match="No max_tokens is small enough"):
        await limiter.reserve([key], Ask(600, 5000, 1001, max_tokens_within=lambda nusd: 0))


async def test_a_free_model_answers_on_a_spent_budget(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH)
    await spend(limiter, [key], 1000)
    hold = await limiter.reserve([key], asking(0))
    assert hold.nusd == 0


async def test_an_unknown_price_is_refused_by_a_hard_budget_only(limiter: Limiter) -> None:
    with pytest.raises(PriceUnknown):
        await limiter.reserve([scope("key", "a", MONTH)], asking(None))
    soft = scope("team", "t", Budget(1000, "month", hard=False))
    hold = await limiter.reserve([soft], asking(None))
    limiter.settle(hold, 40, None)
    assert await money_of(limiter, soft) == (40, 0)


async def test_an_unknown_cost_settles_at_the_whole_hold(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH)
    limiter.settle(await limiter.reserve([key], asking(400)), None, None)
    assert await money_of(limiter, key) == (400, 0)


async def test_a_cost_above_the_hold_is_spent_in_full(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH)
    limiter.settle(await limiter.reserve([key], asking(1000)), 1100, None)
    assert await money_of(limiter, key) == (1100, 0)
    with pytest.raises(InsufficientQuota):
        await limiter.reserve([key], asking(1))


async def test_a_hold_can_grow_and_shrink_before_the_call(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH, Budget(800, "day"))
    hold = await limiter.resize(await limiter.reserve([key], asking(100)), asking(700))
    assert await money_of(limiter, key) == (0, 700)
    hold = await limiter.resize(hold, asking(5000, 10))
    assert hold.nusd == 800
    hold = await limiter.resize(hold, asking(50))
    limiter.settle(hold, 30, None)
    assert await money_of(limiter, key, 1) == (30, 0)


async def test_a_refused_growth_leaves_the_hold_to_be_settled(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH)
    hold = await limiter.reserve([key], asking(100))
    with pytest.raises(RequestExceedsBudget):
        await limiter.resize(hold, asking(5000, 2000))
    assert await money_of(limiter, key) == (0, 100)
    limiter.settle(hold, 0, None)
    assert await money_of(limiter, key) == (0, 0)


@pytest.mark.parametrize(
    ("budget", "later_us"),
    [("day", DAY_US), ("week", 6 * DAY_US), ("month", 7 * DAY_US)],
)
async def test_a_new_window_starts_at_zero(
    limiter: Limiter, clock: ManualClock, budget: str, later_us: int
) -> None:
    key = scope("key", "a", Budget(1000, budget))  # type: ignore[arg-type]
    await spend(limiter, [key], 1000)
    before = await state_of(limiter, key)
    assert before.resets_at_us == clock.now_us + later_us
    clock.forward(later_us - 1)
    assert await money_of(limiter, key) == (1000, 0)
    clock.forward(1)
    assert await money_of(limiter, key) == (0, 0)
    assert (await limiter.reserve([key], asking(1000))).nusd == 1000


async def test_a_total_budget_never_starts_anew(limiter: Limiter, clock: ManualClock) -> None:
    key = scope("key", "a", Budget(1000, "total"))
    await spend(limiter, [key], 1000)
    clock.forward(400 * DAY_US)
    state = await state_of(limiter, key)
    assert (state.spent_nusd, state.resets_at_us) == (1000, None)


async def test_a_hold_from_before_midnight_is_spent_in_its_own_day(
    limiter: Limiter, clock: ManualClock
) -> None:
    key = scope("key", "a", Budget(1000, "day"), MONTH)
    clock.forward(DAY_US - SECOND_US)
    hold = await limiter.reserve([key], asking(600))
    clock.forward(2 * SECOND_US)
    hold = await limiter.resize(hold, asking(700))
    assert [s.held_nusd for s in await limiter.states([key])] == [0, 700]
    fresh = await limiter.reserve([key], asking(300))
    limiter.settle(hold, 500, None)
    limiter.settle(fresh, 200, None)
    assert [(s.window, s.spent_nusd, s.held_nusd) for s in await limiter.states([key])] == [
        ("day", 200, 0),
        ("month", 700, 0),
    ]


async def test_a_soft_budget_warns_once_a_window_and_refuses_nothing(
    limiter: Limiter, clock: ManualClock, warned: list[BudgetState]
) -> None:
    team = scope("team", "support", Budget(500_000_000, "day", hard=False), Budget(10**12, "day"))
    first = await limiter.reserve([team], asking(600_000_000))
    assert first.soft_exceeded == ()
    limiter.settle(first, 600_000_000, None)
    later = [await limiter.reserve([team], asking(100)) for _ in range(3)]
    assert {hold.soft_exceeded for hold in later} == {("team support: $0.50 a day",)}
    assert [(s.scope_name, s.limit_nusd, s.hard) for s in warned] == [("support", 500_000_000, False)]
    clock.forward(DAY_US)
    assert (await limiter.reserve([team], asking(100))).soft_exceeded == ()


async def test_a_key_may_send_its_requests_per_minute_and_then_waits(
    limiter: Limiter, clock: ManualClock
) -> None:
    key = scope("key", "a", rpm=3)
    left = [(await limiter.reserve([key], asking())).rate for _ in range(3)]
    with pytest.raises(RateLimited) as caught:
        await limiter.reserve([key], asking())
    assert [state.remaining for state in left if state is not None] == [2, 1, 0]
    assert caught.value.retry_after_s == 20
    assert isinstance(caught.value, RateLimited)
    assert caught.value.rate is not None
    assert caught.value.rate.remaining == 0
    clock.forward(20 * SECOND_US)
    await limiter.reserve([key], asking())


async def test_the_longest_wait_is_told(limiter: Limiter) -> None:
    key, team = scope("key", "a", rpm=60), scope("team", "t", rpm=2)
    for _ in range(2):
        await limiter.reserve([key, team], asking())
    with pytest.raises(RateLimited, match="team t may send 2") as caught:
        await limiter.reserve([key, team], asking())
    assert caught.value.retry_after_s == 30


async def test_a_clock_set_back_locks_nobody_out(limiter: Limiter, clock: ManualClock) -> None:
    key = scope("key", "a", rpm=1)
    await limiter.reserve([key], asking())
    clock.forward(-DAY_US)
    with pytest.raises(RateLimited):
        await limiter.reserve([key], asking())
    clock.forward(MINUTE_US)
    await limiter.reserve([key], asking())


async def test_unused_tokens_are_given_back(limiter: Limiter) -> None:
    key = scope("key", "a", tpm=1000)
    hold = await limiter.reserve([key], asking(tokens=900))
    with pytest.raises(TokensLimited, match="100 are left") as caught:
        await limiter.reserve([key], asking(tokens=300))
    assert caught.value.retry_after_s == 12
    limiter.settle(hold, None, 100)
    after = await limiter.reserve([key], asking(tokens=800))
    assert after.token_rate is not None
    assert after.token_rate.remaining == 100


async def test_tokens_used_beyond_the_ask_are_counted(limiter: Limiter) -> None:
    key = scope("key", "a", tpm=1000)
    limiter.settle(await limiter.reserve([key], asking(tokens=100)), None, 950)
    with pytest.raises(TokensLimited, match="50 are left"):
        await limiter.reserve([key], asking(tokens=100))


async def test_a_request_above_a_whole_minutes_tokens_is_the_callers_mistake(limiter: Limiter) -> None:
    key = scope("key", "a", tpm=1000)
    with pytest.raises(RequestExceedsTokenLimit, match="up to 1001 tokens, more than the 1000 per minute"):
        await limiter.reserve([key], asking(tokens=1001))
    hold = await limiter.reserve([key], asking(tokens=10))
    with pytest.raises(RequestExceedsTokenLimit):
        await limiter.resize(hold, asking(tokens=1001))


async def test_a_slot_is_free_again_after_every_settlement(limiter: Limiter) -> None:
    key = scope("key", "a", slots=2)
    holds = [await limiter.reserve([key], asking()) for _ in range(2)]
    with pytest.raises(TooManyAtOnce) as caught:
        await limiter.reserve([key], asking())
    assert caught.value.retry_after_s is not None
    limiter.settle(holds[0], None, None)
    limiter.settle(holds[0], None, None)
    await limiter.reserve([key], asking())
    with pytest.raises(TooManyAtOnce):
        await limiter.reserve([key], asking())


async def test_what_is_withdrawn_was_never_asked(limiter: Limiter) -> None:
    key = scope("key", "a", MONTH, rpm=1, tpm=100, slots=1)
    for _ in range(3):
        limiter.withdraw(await limiter.reserve([key], asking(600, 100, tokens=100)))
    assert await money_of(limiter, key) == (0, 0)
    hold = await limiter.reserve([key], asking(600, 100, tokens=100))
    limiter.settle(hold, 250, None)
    limiter.withdraw(hold)
    assert await money_of(limiter, key) == (250, 0)
    with pytest.raises(RateLimited):
        await limiter.reserve([key], asking())


async def test_a_limit_of_nothing_refuses_everything(limiter: Limiter) -> None:
    for none, error in ((scope(rpm=0), RateLimited), (scope(slots=0), TooManyAtOnce)):
        with pytest.raises(error):
            await limiter.reserve([none], asking())
    with pytest.raises(RequestExceedsTokenLimit):
        await limiter.reserve([scope(tpm=0)], asking(tokens=1))


async def test_changed_limits_hold_from_the_next_request_on(limiter: Limiter) -> None:
    before, after = scope("key", "a", MONTH, rpm=1), scope("key", "a", Budget(2000, "month"), rpm=2)
    first = await limiter.reserve([before], asking(1000))
    second = await limiter.reserve([after], asking(900))
    limiter.settle(first, 700, None)
    limiter.settle(second, 800, None)
    assert await money_of(limiter, after) == (1500, 0)


async def test_scopes_without_limits_are_not_tracked(limiter: Limiter) -> None:
    free = scope("user", "u")
    hold = await limiter.reserve([free], asking(500, tokens=7))
    grown = await limiter.resize(hold, asking(900, tokens=9))
    limiter.settle(grown, 100, 3)
    assert (hold.tracked, hold.nusd, grown.nusd, grown.tokens) == (False, 500, 900, 9)
    assert await limiter.states([free]) == ()


async def test_a_hold_says_where_its_limits_stand(limiter: Limiter) -> None:
    key = scope("key", "a", Budget(2_500_000_000, "day"), rpm=60, tpm=6000)
    hold = await limiter.reserve([key], asking(500_000_000, tokens=1500))
    assert dict(rate_headers(hold.rate, hold.token_rate)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1.000s",
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"4500",
        b"x-ratelimit-reset-tokens": b"15.000s",
    }
    assert hold.remaining_nusd == 2_000_000_000
    free = await limiter.reserve([scope()], asking())
    assert (free.rate, free.token_rate, free.remaining_nusd) == (None, None, None)


async def test_equal_limits_are_the_same_limits(limiter: Limiter) -> None:
    """A reloaded snapshot has new objects that say the same."""
    for _ in range(2):
        await limiter.reserve([LimitScope("key", "key_a", "a", Limits(2, None, None, ()))], asking())
    with pytest.raises(RateLimited):
        await limiter.reserve([LimitScope("key", "key_a", "a", Limits(2, None, None, ()))], asking())
