"""The quick path finds what the exact patterns find; long texts are read in linear time, and hold nobody up."""

import time
from threading import Event, Thread

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mainstay.guard import CheckRule, Guard, load_policy
from mainstay.guard.checks.pii import Pii
from mainstay.guard.checks.secrets import Secrets
from mainstay.guard.plan import Plan

CHECKS = {"pii": Pii(), "secrets": Secrets()}
RULES = {name: CheckRule(name, "mask") for name in CHECKS}
PLANS = {name: Plan(CHECKS, [rule], "input") for name, rule in RULES.items()}
BOTH = load_policy({"input": {"pii": "mask", "secrets": "mask", "invisible_unicode": "mask"}}, "p")

REAL = ["ann.lee@mail.example.com", "4111 1111 1111 1111", "4111-1111-1111-1111", "GB82WEST12345698765432"]
REAL += [
    "GB82 WEST 1234 5698 7654 32",
    "536-22-8726",
    "ssn 536 22 8726",
    "203.0.113.9",
    "2001:db8::8a2e:370:7334",
]
REAL += [
    "+44 20 7946 0958",
    "(212) 555-0199",
    "1-212-555-0123 x12",
    "12345678Z",
    "X1234567L",
    "RSSMRA85T10A562S",
]
REAL += ["529.982.247-25", "PESEL 44051401359", "BSN 111222333", "AB 12 34 56 C", "call 030 1234567", "٤١١١"]
REAL += ["AK" + "IA" + "QWERTYUIOPASDFGH", "gh" + "p_" + "aB3" * 12, "gl" + "pat-" + "abcDEF_123-" * 2]
REAL += ["sk-" + "ant-" + "abcd1234" * 4, "sk-" + "proj-" + "abcd1234" * 4, "xox" + "b-123456789012"]
REAL += [
    "sk_" + "live_" + "abcd1234" * 3,
    "AI" + "za" + "a1B2c3D" * 5,
    "ms-" + "a1b2c3d4" * 3,
    "me:s3cret@db",
]
REAL += [
    "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "hV9!kq2Zt7#x",
    "9f8a7c6b5d4e3f2a",
]
REAL += [
    "-----BEGIN PRIVATE " + "KEY-----",
    "-----END PRIVATE " + "KEY-----",
    "token",
    "pass" + "word: ",
    "Bearer ",
]
GLUE = [
    "",
    " ",
    "\n",
    "\u00a0",
    "-",
    ".",
    ":",
    "/",
    "=",
    '"',
    "é",
    "ſ",
    "K",
    "x",
    "7",
    "0",
    "(",
    "+",
    "is ",
    "://",
    "@",
    "\x1c",
    "\ud800",
]
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(REAL),
        st.sampled_from(GLUE),
        st.text(max_size=3),
        st.sampled_from(REAL).map(lambda t: t[: len(t) // 2]),
    ),
    max_size=14,
).map("".join)


def _same(text: str) -> None:
    for name, check in CHECKS.items():
        plan = PLANS[name]
        look = plan.look(text)
        exact = check.find(look.clean.text, "input", RULES[name])
        found = plan.prepared[0].find(look.clean.text, look.seen, [i - 1 for i in look.fired if i])
        assert found == exact
        assert plan.find(text) == plan.judge(text, look)


@settings(deadline=None, max_examples=400)
@given(TEXTS)
@example("paſſword: hV9!kq2Zt7#x and toKen=9f8a7c6b5d4e3f2a1b")
@example("card ٤١١١ ١١١١ ١١١١ ١١١١")
def test_the_quick_path_finds_what_the_exact_patterns_find(text: str) -> None:
    _same(text)


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.integers(4070, 4110), st.sampled_from(["x", " ", "1", "1 ", "a@", "é", "\n"]))
def test_windows_find_what_the_whole_holds_across_their_borders(text: str, before: int, fill: str) -> None:
    filler = (fill * before)[:before]
    _same(f"{filler}{text}{filler}{text}")


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="0123456789 .-()+/:@abAB\n", max_size=120))
def test_runs_of_numbers_are_read_alike(text: str) -> None:
    _same(text)


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "a",
        "-",
        "sk-",
        "1 ",
        "a@",
        "a.",
        ":",
        "://a:b",
        "-----BEGIN ",
        "eyJa",
        "password ",
        "1-",
        "\u200b",
        "é",
        "GB82 ",
    ],
)
def test_time_grows_with_the_length_alone(unit: str) -> None:
    # A quadratic pattern would take 16 times as long for four times the text; each is measured twice.
    guard = Guard.load()

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        times = []
        for _ in range(2):
            start = time.process_time()
            guard.check(text, "input", BOTH)
            times.append(time.process_time() - start)
        return min(times)

    small, large = seconds(60_000), seconds(240_000)
    assert large < 9 * small + 0.05


def _long_texts() -> list[str]:
    """A megabyte of what takes a closer look, eight of what one pass rules out: each takes some milliseconds."""
    parts = [
        "The gateway answers. ",
        "ann@mail.example.com, ",
        "4111 1111 1111 1111; ",
        "12 34 5 ",
        "a",
        "caf\u00e9 ",
        "\u200b",
    ]
    sizes = [8_000_000, 1_000_000, 1_000_000, 1_000_000, 8_000_000]
    return [part * (size // len(part)) for part, size in zip(parts, sizes, strict=False)]


@pytest.mark.slow
def test_a_long_text_checked_in_a_thread_lets_others_run() -> None:
    guard = Guard.load()
    policy = load_policy({"input": {"pii": "mask", "secrets": "mask"}}, "p")
    for text in _long_texts():
        done = Event()
        worker = Thread(target=lambda text=text, done=done: (guard.check(text, "input", policy), done.set()))
        worker.start()
        turns = 0
        while not done.wait(0):
            turns += 1
            time.sleep(0)
        worker.join()
        assert turns > 1
