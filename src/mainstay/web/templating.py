"""Jinja2 with autoescape on for everything, the number formats as filters, and versioned static files."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
import orjson
from jinja2.runtime import Context
from markupsafe import Markup, escape

from mainstay.core.content import short
from mainstay.govern import limit_texts
from mainstay.web import charts, formats

FOLDER = Path(__file__).parent
_MARK = re.compile(r"(\S*)\s?\[(\d{1,3})\]")
"""A mark with the word before it, so that no line begins with a mark."""


class Assets:
    """The files of `static/`, read once. `url` names the content, so that browsers keep each for ever."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self._versions = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}

    def get(self, name: str) -> tuple[bytes, str] | None:
        """(bytes, media type), or None when there is no such file."""
        data = self._files.get(name)
        if data is None:
            return None
        kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
        return data, kind or "application/octet-stream"

    def version(self, name: str) -> str:
        return self._versions[name]

    def url(self, name: str) -> str:
        return f"/static/{name}?v={self._versions[name]}"


def cited(text: str, citations: Sequence[Mapping[str, Any]], prefix: str = "") -> Markup:
    """An answer as text, its `[1]` marks made links to their citations below. Never HTML of the model's.

    `prefix` keeps the anchors of several answers on one page apart.
    """
    known = {str(c.get("number")) for c in citations}
    parts, last = [], 0
    for match in _MARK.finditer(text):
        if match[2] in known:
            parts.append(escape(text[last : match.start()]))
            parts.append(_LINK.format(match[1], match[2], prefix))
            last = match.end()
    return Markup("").join([*parts, escape(text[last:])])


_LINK = Markup(
    '<span class="nowrap">{0}&nbsp;<a class="cite" href="#{2}cite-{1}" aria-label="source {1}">{1}</a></span>'
)


def document_link(citation: Mapping[str, Any]) -> str:
    """Where a citation's span is lit in its document."""
    query = urlencode({"start": citation["start"], "end": citation["end"]})
    return f"/documents/{quote(str(citation['version_id']), safe='')}?{query}#cited"


def pretty_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS, default=str).decode()


def segment(value: Any) -> str:
    """One path segment of an address."""
    return quote(str(value), safe="@")


@jinja2.pass_context
def _when(context: Context, at_us: int | None, reason: str = "never") -> Markup:
    return formats.dash(reason) if at_us is None else formats.when(at_us, context["now_us"])


@jinja2.pass_context
def _when_ns(context: Context, at_ns: int) -> Markup:
    return formats.when(at_ns // 1000, context["now_us"])


def _build(assets: Assets) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": formats.duration,
        "count": formats.count,
        "money": formats.money,
        "share": formats.share,
        "score": formats.score,
        "size": formats.size,
        "plural": formats.plural,
        "when": _when,
        "when_ns": _when_ns,
        "short": short,
        "dotted": formats.dotted,
        "brief": formats.brief,
        "id_text": formats.id_text,
        "detail_name": formats.detail_name,
        "cited": cited,
        "pretty": pretty_json,
        "seg": segment,
    }
    environment.globals |= {
        "static": assets.url,
        "dash": formats.dash,
        "document_link": document_link,
        "spark_line": charts.spark_line,
        "spark_bars": charts.spark_bars,
        "interval": charts.interval,
        "difference": charts.difference,
        "span_bar": charts.span_bar,
        "left_bar": charts.left_bar,
        "limit_texts": limit_texts,
    }
    return environment


ASSETS = Assets(FOLDER / "static")
TEMPLATES = _build(ASSETS)
