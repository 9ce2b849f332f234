"""What a model says and what a vendor heard, in no vendor's words, so that one table of features serves them all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from support.anthropic_server import PIECE

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
SIGNATURE: Final = "c2lnbmVk"


@dataclass(frozen=True)
class Called:
    """A tool call: by the model when said, by the client's history when heard."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """What a model says. `others` are the texts of further choices; `stopped_by` the stop sequence it met."""

    text: str = "Hello world"
    thought: str = ""
    calls: tuple[Called, ...] = ()
    finish: Finish = "stop"
    others: tuple[str, ...] = ()
    logprobs: bool = False
    stopped_by: str | None = None


@dataclass(frozen=True)
class Heard:
    """What a vendor was asked, None or empty where nothing was said of it.

    `turns` are (role, text); `results` (call id or name, text); `marks` counts the places to be cached.
    """

    model: str
    turns: tuple[tuple[str, str], ...]
    tools: tuple[str, ...] = ()
    forced: str | None = None
    one_call: bool = False
    schema: Mapping[str, Any] | None = None
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    marks: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    logprobs: bool = False
    thinks: bool = False
    thoughts: tuple[tuple[str, str], ...] = ()
    calls: tuple[Called, ...] = ()
    results: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Counted:
    """Tokens of every answer, in disjoint classes; `written` to the vendor's cache, `for_an_hour` of them for one."""

    plain: int = 10
    cached: int = 20
    written: int = 0
    for_an_hour: int = 0
    output: int = 9
    reasoning: int = 5

    @property
    def input(self) -> int:
        return self.plain + self.cached + self.written

    @property
    def cost_nusd(self) -> int:
        """At the prices of the project file: 1, 0.10, 1.25 and 2 (to be kept an hour), 2 dollars per million tokens."""
        writing = (self.written - self.for_an_hour) * 1250 + self.for_an_hour * 2000
        return self.plain * 1000 + self.cached * 100 + writing + self.output * 2000


class Vendor:
    """One provider of the project file. `settings` is its entry there."""

    name: str
    title: str
    """For people."""
    kind: str
    server: Any
    counted = Counted()
    signs = False
    """Whether its thinking is signed, to be handed back."""
    streams_arguments = True
    """Whether arguments of tool calls come in pieces."""
    keeps_call_ids = True

    @property
    def model(self) -> str:
        return f"{self.name}/{self.vendor_model}"

    vendor_model = "m-1"

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def plays(self, *said: Said) -> None:
        self.server.requests.clear()
        self.server.hung_up.clear()
        self.server.plays(*(self.reply(one) for one in said))

    def reply(self, said: Said) -> Any:
        raise NotImplementedError

    def fails(self, status: int, error: Mapping[str, Any] | None = None, **headers: str) -> None:
        """Every request is refused like this from now on."""
        raise NotImplementedError

    def heard(self) -> Heard:
        """The last request."""
        return self.hear(self.server.requests[-1].body)

    def hear(self, body: Mapping[str, Any]) -> Heard:
        raise NotImplementedError


def pieces(whole: str) -> list[str]:
    return [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]


def words_of(text: str) -> list[str]:
    """As a tokenizer cuts: joined they are the text."""
    return re.findall(r"\s*\S+", text)


def logprob_of(word: str) -> dict[str, Any]:
    return {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": []}
