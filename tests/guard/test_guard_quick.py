"""What is told by one look is what the closer look tells, for any texts and any pieces."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.guard import Guard, Policy, StreamGuard, load_policy
from mainstay.guard.prefilter import Prefilter
from mainstay.guard.stream import CONTEXT_CHARS, _Parts

MAIL, CARD, IBAN = "ann.lee+x@mail.example.com", "4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32"
TOKEN, SECRET = "sk-" + "proj-abcDEF1234567890abcDEF12", "password: hV9!kq2Zt7#x"
PEM = "-----BEGIN PRIVATE " + "KEY-----\nMIIEpAIB\nq8v2\n-----END PRIVATE " + "KEY-----"
FOUND = [
    MAIL,
    CARD,
    IBAN,
    TOKEN,
    SECRET,
    PEM,
    "call 699 956 915",
    "203.0.113.9",
    "https://me:s3cret@db.example/x",
]
GLUE = [
    " ",
    "\n",
    ". ",
    "-",
    "é",
    "東京",
    "7",
    "12 ",
    "@",
    "sk-",
    "://",
    "(",
    "\u200b",
    "\x00",
    "\u00ad",
    "pass",
    "word",
]
GLUE += [
    " the gateway",
    " answers",
    " token is ",
    "Bearer ",
    "+",
    "٤١١١",
    "ſ",
    "\ufeff",
    "-----BEGIN ",
    "x" * 150,
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(FOUND), st.sampled_from(GLUE), st.text(max_size=3)), max_size=10
).map("".join)
DULL = st.lists(
    st.sampled_from([" the", " gateway", " answers", " it", ". ", ", ", "é", "\n", " 7"]), max_size=90
)
RULES: list[dict[str, Any]] = [
    {"secrets": "mask"},
    {"pii": "mask"},
    {"pii": "flag", "secrets": "mask"},
    {"pii": "mask", "secrets": "block", "invisible_unicode": "mask"},
    {"pii": "drop", "secrets": "mask"},
    {"secrets": "flag", "invisible_unicode": "flag"},
]
POLICIES = [load_policy({"output": rules}, "p") for rules in RULES]
GUARD, CLOSE = Guard.load(), Guard.load()


class _RulesNothingOut(Prefilter):
    """A prefilter that never saves anybody a closer look."""

    def fired(self, seen: bytes) -> list[int]:
        return self._all


for _policy in POLICIES:
    _parts = CLOSE.cached("stream", "output", _policy, _Parts)
    _parts.quick = _RulesNothingOut(_parts.plan.conditions)


def _pieces(text: str, cuts: Sequence[int]) -> list[str]:
    bounds = [0, *sorted({c % (len(text) + 1) for c in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


@settings(max_examples=300)
@given(st.lists(TEXTS, max_size=5), st.sampled_from(POLICIES))
def test_texts_that_one_look_rules_out_hold_nothing(texts: list[str], policy: Policy) -> None:
    if GUARD.rules_out(texts, "output", policy):
        for text in texts:
            verdict = GUARD.check(text, "output", policy)
            assert (verdict.action, verdict.text, verdict.findings) == ("allow", text, ())


def test_ordinary_texts_are_ruled_out_and_telling_ones_are_not() -> None:
    dull = ["The gateway answers in 12 days.", "café 東京, see below\n", ""]
    for policy in POLICIES:
        assert GUARD.rules_out(dull, "output", policy)
        assert GUARD.rules_out([MAIL, TOKEN], "input", policy)  # a rail without rules
        assert not GUARD.rules_out([*dull, f"use {TOKEN} and {MAIL}"], "output", policy)
    hidden = load_policy({"output": {"invisible_unicode": "mask"}}, "p")
    assert not GUARD.rules_out(["a\u200bb"], "output", hidden)
    assert not GUARD.rules_out(["a\x00b"], "output", hidden)


def test_a_check_that_must_read_for_itself_is_never_ruled_out() -> None:
    policy = load_policy({"output": {"injection": "flag", "secrets": "mask"}}, "p")
    assert not GUARD.rules_out(["The gateway answers."], "output", policy)


@settings(max_examples=300)
@given(TEXTS, DULL, TEXTS, st.lists(st.integers(0, 900), max_size=25), st.sampled_from(POLICIES))
def test_a_stream_passes_quickly_what_it_would_pass_closely(
    before: str, dull: list[str], after: str, cuts: list[int], policy: Policy
) -> None:
    quick, close = StreamGuard(GUARD, policy), StreamGuard(CLOSE, policy)
    for piece in [*_pieces(before, cuts), *dull, *_pieces(after, cuts)]:
        assert quick.feed(piece) == close.feed(piece)
        assert quick.blocked == close.blocked
    assert quick.finish() == close.finish()
    assert quick.findings == close.findings


@pytest.mark.parametrize("policy", POLICIES[:4])
@pytest.mark.parametrize("hit", FOUND)
def test_a_hit_behind_much_dull_text_is_found_at_its_place(hit: str, policy: Policy) -> None:
    filler = " the gateway answers, and" * 40
    text = f"{filler} {hit} now.{filler}"
    assert len(filler) > 4 * CONTEXT_CHARS
    stream = StreamGuard(GUARD, policy)
    shown = "".join([*map(stream.feed, _pieces(text, range(0, len(text), 5))), stream.finish()])
    whole = GUARD.check(text, "output", policy)
    assert stream.blocked == (whole.action == "block")
    assert stream.blocked or shown == whole.text
    assert set(stream.findings) == set(whole.findings)
