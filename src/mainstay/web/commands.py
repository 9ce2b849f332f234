"""The same by command and by API: what the `</>` of each page shows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Same:
    """`commands` to type, `api` paths to fetch (method, path). Shown in this order."""

    commands: tuple[str, ...] = ()
    api: tuple[tuple[str, str], ...] = ()

    def curls(self, base_url: str) -> tuple[str, ...]:
        """`curl` lines; `$MAINSTAY_KEY` stands for an API key of the reader."""
        return tuple(_curl(method, base_url + path) for method, path in self.api)


def _curl(method: str, url: str) -> str:
    verb = "" if method == "GET" else f" -X {method}"
    return f'curl{verb} -H "Authorization: Bearer $MAINSTAY_KEY" {shlex.quote(url)}'


def mainstay(*words: str | int) -> str:
    """A command line with its arguments quoted for a shell."""
    return shlex.join(["mainstay", *(str(word) for word in words)])


def api(*parts: str | int, query: str = "") -> tuple[str, str]:
    """GET of an API path, its parts quoted."""
    path = "/api/v1/" + "/".join(quote(str(part), safe="@") for part in parts)
    return "GET", path + (f"?{query}" if query else "")
