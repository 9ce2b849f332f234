"""What a program wishes of a model and what it is told, in no API's words.

What an API has no way to say (`unsayable`) is a property of OpenAI's or Anthropic's API, not of the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from gateway_said import Called
from pydantic import BaseModel

SurfaceName = Literal["chat", "responses", "messages", "completions"]
SURFACES: Final[tuple[SurfaceName, ...]] = ("chat", "responses", "messages", "completions")
MAX_TOKENS: Final = 300


class City(BaseModel):
    name: str
    people: int


CITY_SCHEMA: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation. An assistant's may have called tools; `results` (call id, text) answer those."""

    role: Literal["system", "user", "assistant"]
    text: str = ""
    calls: tuple[Called, ...] = ()
    results: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Wish:
    turns: tuple[Turn, ...] = (Turn("user", "Hi"),)
    tools: tuple[str, ...] = ()
    forced: str | None = None
    schema: bool = False
    image: str | None = None
    file: str | None = None
    thinks: bool = False
    marks: bool = False
    logprobs: bool = False
    n: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    one_call_at_a_time: bool = False


@dataclass(frozen=True)
class Told:
    """An answer as the SDK gives it. `argument_pieces`: in how many pieces arguments came (0 when whole).

    `raw` is the SDK's object, from which the next turn is made.
    """

    text: str
    finish: str
    calls: tuple[Called, ...] = ()
    thought: str = ""
    signed: bool = False
    others: tuple[str, ...] = ()
    logprobs: int = 0
    tokens: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Read uncached (with what was written to the cache), cached, written, and put out."""
    cost_nusd: int | None = None
    parsed: City | None = None
    model: str = ""
    argument_pieces: int = 0
    pieces: int = 0
    raw: Any = None

    @property
    def answer(self) -> Told:
        """Without what differs between a stream and a whole answer."""
        return replace(self, argument_pieces=0, pieces=0, raw=None)


_NO_WAY: Final[Mapping[SurfaceName, tuple[str, ...]]] = {
    "chat": (),
    "responses": ("n", "seed", "stop"),
    "messages": ("n", "seed", "logprobs"),
    # The older form of log-probabilities is refused for every model.
    "completions": ("tools", "schema", "image", "file", "thinks", "marks", "logprobs", "turns"),
}


def unsayable(surface: SurfaceName, wish: Wish) -> bool:
    """Whether the API of the surface has no way to say it."""
    plain = Wish()
    return any(
        len(wish.turns) > 1 if name == "turns" else getattr(wish, name) != getattr(plain, name)
        for name in _NO_WAY[surface]
    )
