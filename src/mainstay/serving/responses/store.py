"""The table of kept responses. They belong to who asked, a key or a user, and to nobody else.

These rows are data, not control state: no audit row is written and no gateway needs to hear of them.
Bodies are JSON as text and not as JSONB, which cannot hold every string that a model may write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, metadata

PRUNED_AT_ONCE = 200

responses = sa.Table(
    "responses",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("owner_id", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("previous_response_id", sa.String, nullable=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("shows_secret", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("input_items", sa.Text, nullable=False),
    sa.Column("output_items", sa.Text, nullable=False),
    sa.Index("ix_responses_created_at_us", "created_at_us"),
)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """`body` has no output: `output_items` are it, with hidden reasoning, which `shows_secret` lets be shown."""

    id: str
    owner_id: str
    model: str
    previous_response_id: str | None
    created_at_us: int
    shows_secret: bool
    body: dict[str, Any]
    input_items: list[dict[str, Any]]
    output_items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Link:
    """One turn of a conversation, and how many bytes its row has."""

    id: str
    previous_response_id: str | None
    size_bytes: int


class ResponseStore:
    """Safe to share between threads; every method is one transaction and blocks."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        self._database = database
        self._clock = clock

    def save(
        self,
        owner_id: str,
        body: Mapping[str, Any],
        input_items: Sequence[Mapping[str, Any]],
        *,
        shows_secret: bool,
    ) -> None:
        """Keep a response object. Raises sqlalchemy.exc.IntegrityError when its id is taken."""
        texts = {
            "body": _text({**body, "output": []}),
            "input_items": _text(list(input_items)),
            "output_items": _text(body["output"]),
        }
        with self._database.begin() as connection:
            connection.execute(
                responses.insert().values(
                    id=body["id"],
                    owner_id=owner_id,
                    model=body["model"],
                    previous_response_id=body["previous_response_id"],
                    created_at_us=self._clock(),
                    size_bytes=sum(len(text) for text in texts.values()),
                    shows_secret=shows_secret,
                    **texts,
                )
            )

    def get(self, response_id: str, owner_id: str) -> StoredResponse | None:
        found = self.many([response_id], owner_id)
        return found.get(response_id)

    def many(self, response_ids: Iterable[str], owner_id: str) -> dict[str, StoredResponse]:
        """Those of the responses that exist and belong to the owner."""
        query = sa.select(responses).where(
            responses.c.id.in_(list(response_ids)), responses.c.owner_id == owner_id
        )
        with self._database.read() as connection:
            return {row.id: _response(row) for row in connection.execute(query)}

    def links(self, response_ids: Iterable[str], owner_id: str) -> list[Link]:
        """Those of the responses that exist and belong to the owner, without their bodies."""
        query = sa.select(responses.c.id, responses.c.previous_response_id, responses.c.size_bytes).where(
            responses.c.id.in_(list(response_ids)), responses.c.owner_id == owner_id
        )
        with self._database.read() as connection:
            return [_link(row) for row in connection.execute(query)]

    def delete(self, response_id: str, owner_id: str) -> bool:
        """Whether there was one to delete. Responses that continue it stay, and cannot be continued further."""
        query = responses.delete().where(responses.c.id == response_id, responses.c.owner_id == owner_id)
        with self._database.begin() as connection:
            return connection.execute(query).rowcount > 0

    def chain(self, response_id: str, owner_id: str, depth_max: int) -> list[Link]:
        """A response and those before it, newest first, `depth_max` at most; it ends where one is not kept."""
        first = sa.select(
            responses.c.id,
            responses.c.previous_response_id,
            responses.c.size_bytes,
            sa.literal(1).label("depth"),
        ).where(responses.c.id == response_id, responses.c.owner_id == owner_id)
        found = first.cte("chain", recursive=True)
        earlier = sa.select(
            responses.c.id, responses.c.previous_response_id, responses.c.size_bytes, found.c.depth + 1
        ).where(
            responses.c.id == found.c.previous_response_id,
            responses.c.owner_id == owner_id,
            found.c.depth < depth_max,
        )
        links = found.union_all(earlier)
        query = sa.select(links).order_by(links.c.depth)
        with self._database.read() as connection:
            return [_link(row) for row in connection.execute(query)]

    def prune(self, older_than_us: int) -> int:
        """Delete responses made before this moment (microseconds since 1970 UTC); returns how many.

        A few at a time: whoever keeps a response meanwhile waits for a moment, not for all of them.
        """
        old = sa.select(responses.c.id).where(responses.c.created_at_us < older_than_us).limit(PRUNED_AT_ONCE)
        query = responses.delete().where(responses.c.id.in_(old.scalar_subquery()))
        deleted = 0
        while True:
            with self._database.begin() as connection:
                count = connection.execute(query).rowcount
            deleted += count
            if count < PRUNED_AT_ONCE:
                return deleted


def _link(row: Any) -> Link:
    return Link(row.id, row.previous_response_id, row.size_bytes)


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _response(row: Any) -> StoredResponse:
    return StoredResponse(
        id=row.id,
        owner_id=row.owner_id,
        model=row.model,
        previous_response_id=row.previous_response_id,
        created_at_us=row.created_at_us,
        shows_secret=row.shows_secret,
        body=orjson.loads(row.body),
        input_items=orjson.loads(row.input_items),
        output_items=orjson.loads(row.output_items),
    )
