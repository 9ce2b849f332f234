"""What a gateway calls for the Responses API: reading with a memory, keeping, and the routes of kept responses.

No database is touched unless a request asks for one: `store: false` without a `previous_response_id` or a
reference to an item costs nothing here. What does touch it runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, Final
from urllib.parse import parse_qs

import sqlalchemy as sa

from mainstay.core.errors import InvalidInput, NotFound
from mainstay.models.types import ChatMessage
from mainstay.serving.errors import BadField
from mainstay.serving.json_text import with_strings
from mainstay.serving.responses.store import ResponseStore, StoredResponse
from mainstay.serving.surfaces.responses import (
    HIDDEN_REASONING,
    ResponsesStream,
    ResponsesSurface,
    shown_items,
    shows_secret,
)
from mainstay.serving.surfaces.responses_input import ItemReader
from mainstay.serving.surfaces.responses_reader import clipped
from mainstay.serving.surfaces.responses_request import Past, item_ids, read_request
from mainstay.serving.surfaces.types import Ids
from mainstay.serving.types import ChatRequest
from mainstay.serving.types import Final as FinalAnswer

log = logging.getLogger(__name__)

TURNS_MAX: Final = 500
"""Responses of one conversation that may be continued."""

CONVERSATION_BYTES_MAX: Final = 20 * 2**20
"""Of all that a request continues or refers to: no request can make a process read more."""

SAVE_TIMEOUT_S: Final = 5.0
"""How long an answer waits to be kept before it goes out as not kept."""

_ITEM_ID = re.compile(r"(?:msg|fc|fco|rs|item)_([0-9A-Za-z]+)_i?[0-9]+")
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


class ResponseNotFound(NotFound):
    """No such response, or it is another caller's: nobody is told which."""

    def __init__(self, response_id: str, *, param: str, problem: str = "", code: str = "not_found") -> None:
        super().__init__(
            problem or f"No response {clipped(response_id)} is kept for this caller.",
            fix="Responses are kept when `store` is not false, until they are deleted or too old.",
            param=param,
        )
        self.code = code


class ResponsesService:
    """`owner` is the id of the caller's identity, a key or a user: only it may see or continue its responses."""

    def __init__(
        self,
        store: ResponseStore,
        *,
        surface: ResponsesSurface | None = None,
        save_timeout_s: float = SAVE_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._surface = surface or ResponsesSurface()
        self._save_timeout_s = save_timeout_s

    async def prepare(self, body: Mapping[str, Any], owner: str) -> ChatRequest:
        """`ResponsesSurface.read` with a memory. Raises BadField, ResponseNotFound."""
        previous = body.get("previous_response_id")
        named = item_ids(body)
        if not isinstance(previous, str) and not named:
            return read_request(body, Past())
        return await asyncio.to_thread(self._prepare, body, previous, named, owner)

    async def whole(self, final: FinalAnswer, request: ChatRequest, ids: Ids, owner: str) -> bytes:
        """The body of an answer that was not streamed, kept first when the request wants it kept."""
        response = await self.keep(request, self._surface.response(final, request, ids), owner, final.masked)
        return self._surface.encode(response, request)

    async def end(
        self, stream: ResponsesStream, final: FinalAnswer, request: ChatRequest, owner: str
    ) -> bytes:
        """The end of a stream. It is kept before the terminal event, so that it can be continued at once."""
        closing = stream.close(final)
        return closing + stream.terminal(
            await self.keep(request, stream.response(final), owner, final.masked)
        )

    async def keep(
        self,
        request: ChatRequest,
        response: dict[str, Any],
        owner: str,
        masked: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Keeps no text of the request that a guard masked: `masked` says what is kept in its place.

        Gives the response as it is to be sent. One that could not be kept says so: `store` is false, and
        `mainstay.warning` tells why. The answer is paid for: it is delivered all the same."""
        if not request.hints.get("store"):
            return response
        items = _with_ids(request.hints["input_items"], response["id"])
        kept = response
        if masked:
            items = with_strings(items, lambda text: masked.get(text, text))
            kept = {
                **with_strings({**response, "output": []}, lambda text: masked.get(text, text)),
                "output": response["output"],
            }
        work = asyncio.to_thread(self._store.save, owner, kept, items, shows_secret=shows_secret(request))
        try:
            await asyncio.wait_for(work, self._save_timeout_s)
        except TimeoutError:
            return _not_kept(response, "The database did not confirm in time that this response is kept.")
        except sa.exc.SQLAlchemyError:
            log.exception("response %s could not be kept", response["id"])
            return _not_kept(response, "This response could not be kept; it cannot be read or continued.")
        return response

    async def get(self, response_id: str, owner: str, query: str = "") -> dict[str, Any]:
        """`query` is the URL's query string: `include`. Raises ResponseNotFound, BadField."""
        asked = _Query(query, {"include", "stream", "starting_after", "include_obfuscation"})
        if asked.one("stream") not in (None, "false", "False", "0"):
            raise BadField("stream", "only responses made in the background can be streamed again.")
        found = await self._found(response_id, owner)
        secret = found.shows_secret or HIDDEN_REASONING in asked.all("include")
        return {**found.body, "output": shown_items(found.output_items, secret=secret)}

    async def delete(self, response_id: str, owner: str) -> dict[str, Any]:
        if not await asyncio.to_thread(self._store.delete, response_id, owner):
            raise ResponseNotFound(response_id, param="response_id")
        return {"id": response_id, "object": "response", "deleted": True}

    async def input_items(self, response_id: str, owner: str, query: str = "") -> dict[str, Any]:
        """This turn's own input, newest first unless `order=asc`; `limit` 1 to 100, 20 by default; `after` an id."""
        asked = _Query(query, {"after", "limit", "order", "include"})
        limit = asked.limit()
        order = asked.one("order") or "desc"
        if order not in ("asc", "desc"):
            raise BadField("order", f"must be asc or desc; got {clipped(order)}.")
        items = (await self._found(response_id, owner)).input_items
        return _page(items if order == "asc" else items[::-1], asked.one("after"), limit)

    async def cancel(self, response_id: str, owner: str) -> dict[str, Any]:
        """Always refused: there are no background responses. Raises InvalidInput, ResponseNotFound."""
        await self._found(response_id, owner)
        raise InvalidInput(
            f"Response {response_id!r} cannot be cancelled: it was not made in the background.",
            fix="Close the connection of a response that is still being made: that cancels it.",
            param="response_id",
        )

    async def _found(self, response_id: str, owner: str) -> StoredResponse:
        found = await asyncio.to_thread(self._store.get, response_id, owner)
        if found is None:
            raise ResponseNotFound(response_id, param="response_id")
        return found

    def _prepare(self, body: Mapping[str, Any], previous: object, named: set[str], owner: str) -> ChatRequest:
        turns = self._turns(previous, owner) if isinstance(previous, str) else []
        kept = {turn.id: turn for turn in turns}
        kept |= self._referred_to(named, kept.keys(), owner)
        items = {
            item["id"]: item for turn in kept.values() for item in (*turn.input_items, *turn.output_items)
        }
        return read_request(
            body, Past(_conversation(turns), {name: items[name] for name in named & items.keys()})
        )

    def _referred_to(self, named: set[str], known: Set[str], owner: str) -> dict[str, StoredResponse]:
        """The responses, not `known` yet, that these items are of: an item's id tells its response's."""
        homes = {f"resp_{match[1]}" for name in named if (match := _ITEM_ID.fullmatch(name))} - known
        if not homes:
            return {}
        links = self._store.links(homes, owner) if len(homes) <= TURNS_MAX else []
        if len(homes) > TURNS_MAX or sum(link.size_bytes for link in links) > CONVERSATION_BYTES_MAX:
            raise BadField("input", "refers to too many kept responses.", fix="Send the items themselves.")
        return self._store.many([link.id for link in links], owner)

    def _turns(self, previous: str, owner: str) -> list[StoredResponse]:
        """The conversation that ends with `previous`, oldest first."""
        chain = self._store.chain(previous, owner, TURNS_MAX + 1)
        where = {"param": "previous_response_id", "code": "previous_response_not_found"}
        if not chain:
            raise ResponseNotFound(previous, **where)
        size_bytes = sum(link.size_bytes for link in chain)
        if len(chain) > TURNS_MAX or size_bytes > CONVERSATION_BYTES_MAX:
            raise BadField(
                "previous_response_id",
                f"the conversation has {len(chain)} turns and {size_bytes} bytes; at most {TURNS_MAX} turns "
                f"and {CONVERSATION_BYTES_MAX} bytes can be continued.",
                fix="Begin a new conversation with a summary of this one.",
            )
        missing = chain[-1].previous_response_id
        found = self._store.many([link.id for link in chain], owner)
        if missing is not None or len(found) < len(chain):
            gone = missing or next(link.id for link in chain if link.id not in found)
            problem = f"The conversation of {previous!r} is no longer whole: {gone!r} is not kept."
            raise ResponseNotFound(previous, problem=problem, **where)
        return [found[link.id] for link in reversed(chain)]


class _Query:
    def __init__(self, query: str, known: set[str]) -> None:
        pairs = parse_qs(query, keep_blank_values=True)
        self._given: dict[str, list[str]] = {}
        for name, values in pairs.items():
            plain = name.removesuffix("[]")
            if plain not in known:
                raise BadField(plain, "is not a parameter of this address.")
            self._given.setdefault(plain, []).extend(values)

    def all(self, name: str) -> Sequence[str]:
        return self._given.get(name, ())

    def one(self, name: str) -> str | None:
        values = self.all(name)
        return values[-1] if values else None

    def limit(self) -> int:
        text = self.one("limit") or "20"
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
            raise BadField("limit", "must be a whole number from 1 to 100.")
        return int(text)


def _conversation(turns: Sequence[StoredResponse]) -> tuple[ChatMessage, ...]:
    """What was asked and answered in each turn. Its instructions were for that turn alone."""
    reader = ItemReader()
    for turn in turns:
        for index, item in enumerate((*turn.input_items, *turn.output_items)):
            reader.take(item, f"{turn.id}[{index}]")
        reader.end_turn()
    return reader.messages()


def _with_ids(items: Sequence[Mapping[str, Any]], response_id: str) -> list[dict[str, Any]]:
    """Every item with an id of its own: the client's, unless it has none or has used it before."""
    key = response_id.removeprefix("resp_")
    found: list[dict[str, Any]] = []
    used: set[str] = set()
    for index, item in enumerate(items):
        given = item.get("id")
        prefix = _PREFIXES.get(item["type"], "item")
        name = given if isinstance(given, str) and given not in used else f"{prefix}_{key}_i{index}"
        used.add(name)
        found.append({**item, "id": name})
    return found


def _not_kept(response: Mapping[str, Any], warning: str) -> dict[str, Any]:
    return {**response, "store": False, "mainstay": {**response["mainstay"], "warning": warning}}


def _page(items: Sequence[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    start = 0
    if after is not None:
        places = [index for index, item in enumerate(items) if item["id"] == after]
        if not places:
            raise BadField("after", f"no input item has the id {clipped(after)}.")
        start = places[0] + 1
    data = list(items[start : start + limit])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(items) > start + limit,
    }
