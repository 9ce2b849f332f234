"""The tree of a trace's spans, whatever state they arrive in: orphans and loops included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Node(Protocol):
    @property
    def span_id(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def start_ns(self) -> int: ...


class Place(NamedTuple):
    """Where a node stands: its position in the input, that of its parent (None at the top), its depth from 0."""

    at: int
    parent: int | None
    depth: int


def tree_order(nodes: Sequence[Node]) -> list[Place]:
    """Every node once, parents before children, siblings by start time.

    A node whose parent is absent stands at the top. Nodes whose parents form a loop are reached from the
    loop's earliest node, so that malformed input is still shown. Linear in time but for the sorting.
    """
    index_of = {node.span_id: i for i, node in enumerate(nodes)}
    children: dict[int | None, list[int]] = {}
    by_start = sorted(range(len(nodes)), key=lambda i: (nodes[i].start_ns, nodes[i].span_id))
    for i in by_start:
        parent = index_of.get(nodes[i].parent_id or "")
        children.setdefault(None if parent == i else parent, []).append(i)
    order: list[Place] = []
    seen: set[int] = set()
    for top in (*children.get(None, ()), *by_start):
        _walk(top, children, seen, order)
    return order


def _walk(top: int, children: dict[int | None, list[int]], seen: set[int], order: list[Place]) -> None:
    stack = [Place(top, None, 0)]
    while stack:
        place = stack.pop()
        if place.at in seen:
            continue
        seen.add(place.at)
        order.append(place)
        below = reversed(children.get(place.at, ()))
        stack.extend(Place(child, place.at, place.depth + 1) for child in below)
