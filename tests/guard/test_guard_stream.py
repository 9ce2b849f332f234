"""The stream guard: the same in any pieces as in one, and nothing of a hit is shown."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.guard import Guard, Policy, StreamGuard, load_policy

GUARD = Guard.load()
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEA7\nq8v2\n-----END RSA PRIVATE " + "KEY-----"
TOKEN = "sk-" + "proj-abcDEF1234567890abcDEF12"
SECRETS = [TOKEN, "gh" + "p_" + "aB3" * 12, "AK" + "IA" + "QWERTYUIOPASDFGH", "password: hV9!kq2Zt7#x", PEM]
SECRETS += [
    "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "https://me:s3cret@db.example/x",
]
SECRETS += [
    "ms-" + "a1b2c3d4e5f6a7b8c9d0e1",
    "Authorization: Bearer 9f8a7c6b5d4e3f2a1b0c",
    "xox" + "b-1234567890ab",
]
PERSONAL = ["ann.lee+x@mail.example.com", "4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32", "536-22-8726"]
PERSONAL += [
    "203.0.113.9",
    "2001:db8::8a2e:370:7334",
    "+44 20 7946 0958",
    "(212) 555-0199 ext 12",
    "12345678Z",
]
PERSONAL += [
    "RSSMRA85T10A562S",
    "PESEL 44051401359",
    "111222333 is my BSN",
    "AB 12 34 56 C",
    "call 699 956 915",
]
FILLER = [
    " ",
    "\n",
    ". ",
    ", ",
    " the gateway ",
    "token is ",
    "-",
    "--",
    "é",
    "7",
    "2026-11-24",
    "see ",
    "@",
    "sk-",
    "東京",
]
FILLER += [
    "x@",
    " password ",
    "12 ",
    "1",
    "AB",
    "://",
    "-----BEGIN ",
    "api key",
    ": ",
    "(",
    "\u200b",
    "s",
    "GB82 ",
]
TEXTS = st.lists(st.sampled_from(SECRETS + PERSONAL + FILLER), max_size=12).map("".join)
POLICIES = [
    load_policy({"output": rules}, "p")
    for rules in (
        {"secrets": "mask"},
        {"pii": "mask"},
        {"pii": "mask", "secrets": "mask", "invisible_unicode": "mask"},
    )
]


def _pieces(text: str, cuts: Sequence[int]) -> list[str]:
    bounds = [0, *sorted({c % (len(text) + 1) for c in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def _streamed(pieces: Sequence[str], policy: Policy) -> tuple[str, StreamGuard]:
    stream = StreamGuard(GUARD, policy)
    return "".join([*map(stream.feed, pieces), stream.finish()]), stream


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.lists(st.integers(0, 500), max_size=20), st.sampled_from(POLICIES))
def test_any_pieces_give_what_the_whole_gives(text: str, cuts: list[int], policy: Policy) -> None:
    shown, stream = _streamed(_pieces(text, cuts), policy)
    whole = GUARD.check(text, "output", policy)
    assert shown == whole.text
    assert set(stream.findings) == set(whole.findings)


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.sampled_from(POLICIES))
def test_single_characters_give_what_the_whole_gives(text: str, policy: Policy) -> None:
    shown, stream = _streamed(list(text), policy)
    whole = GUARD.check(text, "output", policy)
    assert shown == whole.text
    assert set(stream.findings) == set(whole.findings)


def test_a_long_text_gives_what_the_whole_gives() -> None:
    chance = random.Random(3)
    words = [*SECRETS, *PERSONAL, *["lorem ipsum", "and then,", "of the."] * 12]
    text = " ".join(chance.choice(words) for _ in range(500))
    cuts = [chance.randrange(len(text)) for _ in range(len(text) // 6)]
    for policy in POLICIES:
        shown, stream = _streamed(_pieces(text, cuts), policy)
        whole = GUARD.check(text, "output", policy)
        assert shown == whole.text
        assert sorted(f.start for f in stream.findings) == sorted(f.start for f in whole.findings)


def test_an_ordinary_token_passes_in_the_call_that_brought_it() -> None:
    stream = StreamGuard(GUARD, POLICIES[0])
    for token in ["The", " gateway", " answers", " in", " 12", " days", ",", " see", " below", "."]:
        assert stream.feed(token) == token


def test_with_personal_data_masked_only_the_unfinished_word_is_held() -> None:
    stream = StreamGuard(GUARD, POLICIES[1])
    assert [stream.feed(t) for t in ["The", " gateway", " answers", "."]] == ["", "The ", "gateway ", ""]
    assert stream.finish() == "answers."


@pytest.mark.parametrize("policy", POLICIES[2:])
@pytest.mark.parametrize("hit", SECRETS + PERSONAL)
def test_nothing_of_a_hit_is_ever_shown(hit: str, policy: Policy) -> None:
    shown, stream = _streamed(list(f"use {hit} now, please and thank you."), policy)
    assert shown == GUARD.check(f"use {hit} now, please and thank you.", "output", policy).text
    assert stream.findings
    assert "[" in shown


def test_a_key_split_over_tokens_is_masked() -> None:
    shown, _ = _streamed(
        ["use s", "k", "-", "proj", "-", "abcDEF1234", "567890abcDEF12", " now"], POLICIES[0]
    )
    assert shown == "use [OPENAI_KEY] now"


def test_a_block_stops_at_once_and_nothing_of_the_hit_was_shown() -> None:
    policy = load_policy({"output": {"secrets": "block"}}, "p")
    stream = StreamGuard(GUARD, policy)
    shown = [stream.feed(c) for c in f"The key is {TOKEN} and more"]
    assert stream.blocked
    assert "".join(shown) == "The key is "
    assert stream.feed("x") == stream.finish() == ""
    assert [(f.start, f.end) for f in stream.findings] == [(11, 11 + len(TOKEN))]


def test_a_rule_that_only_flags_holds_nothing() -> None:
    policy = load_policy({"output": {"secrets": "flag", "injection": "flag"}}, "p")
    stream = StreamGuard(GUARD, policy)
    pieces = ["The first line.\n", "Use ", TOKEN[:9], TOKEN[9:], " here", ". Then"]
    assert [stream.feed(p) for p in pieces] == pieces
    assert [(f.kind, f.action, f.start, f.end) for f in stream.findings] == [
        ("openai_key", "flag", 20, 20 + len(TOKEN))
    ]


def test_a_check_of_sentences_is_held_to_the_end_of_the_sentence() -> None:
    policy = load_policy({"output": {"pii": "drop", "secrets": "mask"}}, "p")
    shown, stream = _streamed(list("The fee is 8. Write to a@b.example today. It opens at ten."), policy)
    assert shown == "The fee is 8. It opens at ten."
    assert [(f.start, f.end) for f in stream.findings] == [(23, 34)]


def test_memory_stays_bounded_on_a_text_without_any_end() -> None:
    stream = StreamGuard(GUARD, POLICIES[2])
    shown = sum(len(stream.feed("1 2 3 4 5 6 ")) for _ in range(1500))
    assert shown > 18_000 - 200


@pytest.mark.parametrize("begin", ["sk-proj-", "-----BEGIN PRIVATE " + "KEY-----\n"])
def test_nothing_of_a_hit_that_is_longer_than_what_is_held_is_shown(begin: str) -> None:
    end = "-----END PRIVATE " + "KEY-----" if begin.startswith("-") else ""
    text = f"see {begin}{'aB3x' * 10_000}{end} and a@b.example there"
    shown, stream = _streamed([text[i : i + 900] for i in range(0, len(text), 900)], POLICIES[2])
    assert shown.split(" ", 1)[0] == "see"
    assert shown.endswith("] and [EMAIL] there")
    assert len(shown) < 60
    assert len(stream.findings) == 2
