"""Writes docs/compatibility.md from the tables that the tests of this folder go by.

.venv/bin/python tests/gateway/gateway_page.py      write the page
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "gateway")]

from gateway_failures import FAILURES, REFUSALS, Failure  # noqa: E402 - needs the path
from gateway_matrix import FEATURES, Feature, named  # noqa: E402
from gateway_said import Vendor  # noqa: E402
from gateway_vendors import vendors  # noqa: E402
from gateway_wishes import SURFACES, SurfaceName, unsayable  # noqa: E402

PAGE: Final = ROOT / "docs" / "compatibility.md"
MARK: Final = "<!-- Written by tests/gateway/gateway_page.py; do not edit. -->"
_INTRODUCTION: Final = """Clients written for OpenAI's or Anthropic's API work unchanged: set their base URL and key.

```python
from anthropic import Anthropic
from openai import OpenAI

openai = OpenAI(base_url="http://localhost:8321/v1", api_key="ms-…")
anthropic = Anthropic(base_url="http://localhost:8321", api_key="ms-…")
```

Every cell of the first tables is a test in which the vendor's official SDK asks a running server, once for a whole answer
and once for a stream; the server asks a local one that speaks the wire format of the provider. The test looks at both ends:
what the provider was sent, what the client got, its token counts by class, and its cost, which must be the same
to the nano-dollar both ways.

- **yes**: translated faithfully.
- **emulated**: Mainstay asks for it in words, checks the answer, has it mended once, and fails rather than pass on what
  does not fit.
- **not sent**: a hint that changes no answer, for which the provider has no place: it caches by itself.
- **400 `field`**: refused before anything is sent, with an error that names the field.
- **–**: such a provider never says so.

What an API has no words for is not in its table."""
_WAYS: Final[dict[SurfaceName, tuple[str, str]]] = {
    "chat": ("Chat completions", "`client.chat.completions` of the OpenAI SDK: `create`, `parse`, `stream`."),
    "responses": ("Responses", "`client.responses` of the OpenAI SDK: `create`, `parse`, `stream`."),
    "messages": ("Messages", "`client.messages` of the Anthropic SDK: `create`, `parse`, `stream`."),
    "completions": ("Legacy completions", "`client.completions` of the OpenAI SDK."),
}


def page() -> str:
    blocks = [MARK, "# Compatibility", _INTRODUCTION]
    for surface in SURFACES:
        title, how = _WAYS[surface]
        blocks += [f"## {title}", how, features_table(surface)]
    blocks += ["## Errors", _ERRORS, errors_table()]
    return "\n\n".join(blocks) + "\n"


_ERRORS: Final = """Both SDKs raise the same exception of their own; `request_id` is that of the `x-request-id` header and finds the
trace. They send a request again only when `x-should-retry` says so."""


def features_table(surface: SurfaceName) -> str:
    known = list(vendors().values())
    rows = [
        [feature.name, *(cell(surface, feature, vendor) for vendor in known)]
        for feature in FEATURES
        if not unsayable(surface, feature.wish)
    ]
    return table(["", *(vendor.title for vendor in known)], rows)


def cell(surface: SurfaceName, feature: Feature, vendor: Vendor) -> str:
    if vendor.name in feature.refused:
        return f"400 `{named(surface, feature.refused[vendor.name])}`"
    for names, word in (
        (feature.unsaid, "–"),
        (feature.emulated, "emulated"),
        (feature.left_out, "not sent"),
    ):
        if vendor.name in names:
            return word
    return "yes"


def errors_table() -> str:
    columns = ["What happened", "Exception", "Status", "`code`", "Anthropic's type", "Sent again"]
    return table(columns, [_error_row(failure) for failure in (*REFUSALS.values(), *FAILURES.values())])


def _error_row(failure: Failure) -> list[str]:
    again = "yes" if failure.retried else "no"
    status = str(failure.status)
    return [failure.what, f"`{failure.exception}`", status, f"`{failure.code}`", f"`{failure.kind}`", again]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
