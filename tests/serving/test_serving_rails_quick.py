"""What the rails tell by one look is what they tell when they read piece by piece."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.guard import Guard, Policy, StreamGuard, load_policy
from mainstay.models.types import Choice, Delta, Thinking, ToolCall, ToolCallDelta, Usage
from mainstay.serving.call_guard import CallGuard
from mainstay.serving.json_text import strings_of
from mainstay.serving.output_rail import OutputRails, _checked, _rules_out
from mainstay.serving.run import Run
from mainstay.serving.surfaces.chat_read import read_chat_request

GUARD = Guard.load()
MAIL, TOKEN, SECRET = "jane.roe@example.com", "AKIAIOSFODNN7EXAMPLQ", "password: hV9!kq2Zt7#x"
GLUE = [
    " ",
    "\n",
    ". ",
    "é",
    "7",
    "12 ",
    "@",
    "x",
    "Bearer ",
    " the gateway",
    " answers",
    "\u200b",
    "-",
    "(",
    "sk-",
]
TEXTS = st.lists(st.sampled_from([MAIL, TOKEN, SECRET, *GLUE * 2]), max_size=6).map("".join)
DULL = st.lists(st.sampled_from(["Can", " I ", "cancel", " it?", "\n", "12", "é"]), max_size=6).map("".join)
SAID = st.one_of(DULL, DULL, TEXTS)
FILLED = SAID.filter(str.strip)
RULES: list[dict[str, Any]] = [
    {"pii": "mask", "secrets": "mask", "invisible_unicode": "mask"},
    {"pii": "flag", "secrets": "mask"},
    {"pii": "mask", "secrets": "block"},
]
POLICIES = [load_policy({"input": rules, "output": rules}, "p") for rules in RULES]
CONTEXTS = [
    load_policy({"input": RULES[1], "context": RULES[0]}, "c"),
    load_policy({"context": RULES[0]}, "d"),
]
WATCHES = load_policy({"input": {**RULES[0], "injection": "flag"}}, "w")

MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "user", "assistant", "tool"]), "content": SAID},
    optional={"name": FILLED},
)
BODY = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, min_size=1, max_size=4)},
    optional={
        "stop": st.lists(FILLED, max_size=2),
        "user": FILLED,
        "metadata": st.dictionaries(SAID, SAID, max_size=2),
    },
)


def _with_call_ids(body: dict[str, Any]) -> dict[str, Any]:
    messages = [m | {"tool_call_id": "c1"} if m["role"] == "tool" else m for m in body["messages"]]
    return {**body, "messages": messages}


@settings(max_examples=300)
@given(BODY.map(_with_call_ids), st.sampled_from([*POLICIES, *CONTEXTS, WATCHES]))
def test_a_call_that_one_look_rules_out_goes_as_it_came(body: dict[str, Any], policy: Policy) -> None:
    call = read_chat_request(orjson.loads(orjson.dumps(body))).call
    if CallGuard.rules_out(call, GUARD, policy):
        for for_app in (False, True):
            reading = CallGuard(GUARD, policy, for_app=for_app)
            for message in call.messages:
                assert reading.text(message.content, "user") == message.content
            for text in strings_of(call.source):
                assert reading.text(text, "operator") == text
            assert reading.call(call) is call
            assert not reading.findings


def test_an_ordinary_call_is_ruled_out_and_a_telling_one_is_not() -> None:
    def rules_out(policy: Policy, **more: Any) -> bool:
        body = {"model": "m", "messages": [{"role": "user", "content": "Can I cancel in 12 days?"}], **more}
        return CallGuard.rules_out(read_chat_request(body).call, GUARD, policy)

    telling = {"user": TOKEN, "metadata": {"a": SECRET}, "stop": [TOKEN]}
    result = {"role": "tool", "content": TOKEN, "tool_call_id": "c1"}
    tool = {"type": "function", "function": {"name": "f", "description": TOKEN}}
    for policy in POLICIES:
        assert rules_out(policy)
        assert not any(rules_out(policy, **{name: value}) for name, value in telling.items())
        assert not rules_out(policy, messages=[{"role": "system", "content": f"use {TOKEN}"}])
        assert not rules_out(policy, tools=[tool])
    for policy in CONTEXTS:
        assert not rules_out(policy, messages=[result])
    assert not rules_out(WATCHES)  # its detector must read what users say


CHOICE = st.builds(
    Choice,
    text=SAID,
    reasoning=SAID,
    refusal=SAID,
    thinking=st.lists(st.builds(Thinking, text=SAID), max_size=1).map(tuple),
    tool_calls=st.lists(st.builds(ToolCall, st.just("c1"), SAID, SAID), max_size=1).map(tuple),
)


def _run() -> Run:
    return cast(
        Run,
        SimpleNamespace(
            deps=SimpleNamespace(guard=GUARD), findings=[], asked=SimpleNamespace(logprobs=False)
        ),
    )


@settings(max_examples=200)
@given(st.lists(CHOICE, min_size=1, max_size=3).map(tuple), st.sampled_from(POLICIES))
def test_an_answer_that_one_look_rules_out_is_shown_as_it_is(
    choices: tuple[Choice, ...], policy: Policy
) -> None:
    if _rules_out(choices, GUARD, policy):
        run = _run()
        assert tuple(_checked(run, policy, choice) for choice in choices) == choices
        assert not run.findings


class _KnowsNoMereText(dict[int, StreamGuard]):
    def get(self, key: int, default: Any = None) -> Any:
        return default


WORD = st.builds(
    Delta,
    text=SAID,
    index=st.sampled_from([0, 0, 0, 1]),
    model=st.sampled_from([None, "m"]),
    usage=st.sampled_from([None, None, Usage(1, 2)]),
    raw=st.sampled_from([None, None, b"{}"]),
)
DELTA = st.one_of(
    WORD,
    WORD,
    WORD,
    st.builds(Delta, reasoning=SAID, model=st.sampled_from([None, "m"])),
    st.builds(Delta, refusal=SAID),
    st.builds(Delta, tool_calls=st.tuples(st.builds(ToolCallDelta, st.just(0), arguments=SAID))),
    st.builds(Delta, text=SAID, finish_reason=st.just("stop"), index=st.sampled_from([0, 1])),
)


@settings(max_examples=300)
@given(st.lists(DELTA, max_size=25), st.sampled_from(POLICIES))
def test_a_stream_of_mere_text_passes_as_any_other(deltas: list[Delta], policy: Policy) -> None:
    quick, close = OutputRails(_run(), policy), OutputRails(_run(), policy)
    close._only_text = _KnowsNoMereText()
    for delta in deltas:
        shown = quick.feed(delta)
        assert shown == close.feed(delta)
        assert (quick.blocked, quick.open) == (close.blocked, close.open)
        assert shown is None or shown.raw is None
        if quick.blocked:
            break
    assert quick.findings == close.findings
