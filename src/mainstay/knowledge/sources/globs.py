"""Globs over relative paths: `*`, `?`, `[…]` within a name, `**` over folders; without a slash, any folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_TOKEN = re.compile(r"\*\*/|/\*\*$|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)
_MEANING = {"**/": "(?:[^/]+/)*", "/**": "/.+", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test whether any of the patterns matches a path such as `policies/leave.md`."""
    compiled = [re.compile(_expression(pattern)) for pattern in patterns]
    return lambda path: any(expression.fullmatch(path) for expression in compiled)


def _expression(pattern: str) -> str:
    anchored = pattern.removeprefix("/") if "/" in pattern.rstrip("/") else f"**/{pattern}"
    if anchored.endswith("/"):
        anchored += "**"
    return "".join(_part(token) for token in _TOKEN.findall(anchored))


def _part(token: str) -> str:
    if token in _MEANING:
        return _MEANING[token]
    if token.startswith("[") and len(token) > 2:
        inner = token[1:-1].replace("\\", r"\\").replace("^", r"\^")
        return f"[^{inner[1:]}/]" if inner.startswith("!") else f"[{inner}]"
    return re.escape(token)
