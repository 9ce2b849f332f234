"""The table of features: what a client wishes, what the model says to it, what must come of it on both sides.

`docs/compatibility.md` is written from this table (`scripts/write_compatibility.py`), and every cell of it is a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway_said import Called, Heard, Said, Vendor
from gateway_wishes import CITY_SCHEMA, MAX_TOKENS, SURFACES, City, SurfaceName, Told, Turn, Wish

PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF: Final = "JVBERi0xLjQKJcOkw7zDtsOfCg=="
OSLO: Final = '{"name": "Oslo", "people": 700000}'
UNICODE: Final = 'Grüße 👩‍👩‍👧 日本 \u2028 𝕏 \\u0041 "quoted"\n\ttab'
CALL: Final = Called("call_1", "weather", {"city": "Tórshavn", "note": 'say "hi"'})
OTHER: Final = Called("call_2", "population", {"city": "Oslo"})
LONG: Final = (
    Turn("system", "Be brief."),
    *(Turn("user" if at % 2 == 0 else "assistant", f"Turn {at}. " + "word " * 40) for at in range(41)),
)

Check = Callable[[Told, Heard, Vendor], None]


def _nothing_more(told: Told, heard: Heard, vendor: Vendor) -> None:
    """What is checked of every answer says it all."""


@dataclass(frozen=True)
class Feature:
    """`refused`: by vendor, the field of a chat request that the refusal names. `emulated`: done by the gateway.

    `unsaid`: vendors that never say such a thing. `check` looks at what differs from a plain answer.
    """

    name: str
    wish: Wish = field(default_factory=Wish)
    said: Said = field(default_factory=Said)
    check: Check = _nothing_more
    refused: Mapping[str, str] = field(default_factory=dict)
    emulated: frozenset[str] = frozenset()
    unsaid: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    """Vendors that need no such hint: it changes no answer, and is not sent."""


def _text_both_ways(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.turns == (("user", UNICODE),)


def _long(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.turns == tuple((turn.role, turn.text) for turn in LONG)


def _stopped(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.stop == ("END", "###")


def _sampled(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert (heard.temperature, heard.max_tokens) == (0.25, MAX_TOKENS)


def _seeded(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.seed == 7


def _twice(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.n == 2


def _logprobs(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.logprobs
    assert told.logprobs == 2


def _tools(told: Told, heard: Heard, vendor: Vendor) -> None:
    if vendor.streams_arguments and told.pieces + told.argument_pieces:
        assert told.argument_pieces > 2 * len(told.calls)


def _results(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.calls == (CALL, OTHER)
    assert heard.results == (("call_1", "rain"), ("call_2", "700 000"))


def _schema(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert told.parsed == City(name="Oslo", people=700000)
    if vendor.name in STRUCTURED.emulated:
        assert heard.schema is None
        assert any('"people"' in text for role, text in heard.turns if role == "system")
    else:
        assert heard.schema is not None
        properties = heard.schema["properties"]
        assert {name: properties[name]["type"] for name in properties} == {
            name: shape["type"] for name, shape in CITY_SCHEMA["properties"].items()
        }


def _image(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.images == (PNG,)


def _file(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.files == (PDF,)


def _thinks(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.thinks
    assert told.signed == vendor.signs


def _marked(told: Told, heard: Heard, vendor: Vendor) -> None:
    assert heard.marks == (0 if vendor.name in MARKS.left_out else 1)


TOOLS: Final = ("weather", "population")
_OPENAI_ONLY: Final = {"anthropic", "bedrock"}
STRUCTURED: Final = Feature(
    "Structured output (JSON Schema)",
    Wish(schema=True),
    Said(OSLO),
    _schema,
    emulated=frozenset({"no-schemas"}),
)
MARKS: Final = Feature(
    "Prompt-cache control",
    Wish(marks=True),
    check=_marked,
    left_out=frozenset({"openai-like", "azure", "gemini", "ollama", "no-schemas"}),
)

FEATURES: Final[tuple[Feature, ...]] = (
    Feature("Plain answer"),
    Feature("Unicode, both ways", Wish((Turn("user", UNICODE),)), Said(UNICODE), _text_both_ways),
    Feature("Long conversation with a system prompt", Wish(LONG), check=_long),
    Feature("Empty answer", said=Said("")),
    Feature("Cut off at max_tokens", said=Said("Hello wor", finish="length")),
    Feature(
        "Stopped by a content filter",
        said=Said("I will ", finish="content_filter"),
        unsaid=frozenset({"ollama"}),
    ),
    Feature("Stop sequences", Wish(stop=("END", "###")), Said(stopped_by="END"), _stopped),
    Feature("Temperature", Wish(temperature=0.25), check=_sampled),
    Feature("Seed", Wish(seed=7), check=_seeded, refused=dict.fromkeys(_OPENAI_ONLY, "seed")),
    Feature(
        "Several choices (n)",
        Wish(n=2),
        Said("One way", others=("Another way",)),
        _twice,
        refused=dict.fromkeys({*_OPENAI_ONLY, "ollama"}, "n"),
    ),
    Feature(
        "Log-probabilities",
        Wish(logprobs=True),
        Said(logprobs=True),
        _logprobs,
        refused=dict.fromkeys(_OPENAI_ONLY, "logprobs"),
    ),
    Feature("A tool call", Wish(tools=TOOLS), Said("", calls=(CALL,), finish="tool_calls"), _tools),
    Feature(
        "Parallel tool calls",
        Wish(tools=TOOLS),
        Said("Let me look.", calls=(CALL, OTHER), finish="tool_calls"),
        _tools,
    ),
    Feature(
        "Tool results",
        Wish(
            (
                Turn("user", "Hi"),
                Turn("assistant", "Let me look.", calls=(CALL, OTHER)),
                Turn("user", results=(("call_1", "rain"), ("call_2", "700 000"))),
            ),
            tools=TOOLS,
        ),
        check=_results,
    ),
    Feature(
        "A forced tool",
        Wish(tools=TOOLS, forced="weather"),
        Said("", calls=(CALL,), finish="tool_calls"),
        refused={"ollama": "tool_choice"},
    ),
    Feature(
        "One tool call at a time",
        Wish(tools=TOOLS, one_call_at_a_time=True),
        Said("", calls=(CALL,), finish="tool_calls"),
        refused=dict.fromkeys(("bedrock", "gemini", "ollama"), "parallel_tool_calls"),
    ),
    STRUCTURED,
    Feature(
        "Structured output beside tools",
        Wish(schema=True, tools=TOOLS),
        Said(OSLO),
        _schema,
        refused={"no-schemas": "response_format"},
    ),
    Feature("Image in a message", Wish(image=PNG), check=_image),
    Feature("File (PDF) in a message", Wish(file=PDF), check=_file, refused={"ollama": "messages"}),
    Feature("Reasoning", Wish(thinks=True), Said(thought="Hm, hello it is."), _thinks),
    MARKS,
)

_CALLED_OTHERWISE: Final[Mapping[SurfaceName, Mapping[str, str]]] = {
    "chat": {},
    "completions": {},
    "responses": {
        "response_format": "text.format",
        "messages": "input",
        "logprobs": "top_logprobs",
    },
    "messages": {
        "response_format": "output_config.format",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    },
}


def named(surface: SurfaceName, chat_field: str) -> str:
    """What a field of a chat request is called on another surface."""
    return _CALLED_OTHERWISE[surface].get(chat_field, chat_field)


__all__ = ["FEATURES", "SURFACES", "Feature", "named"]
