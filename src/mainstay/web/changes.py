"""How a number moved since an earlier period, in words: `▲ +12 %`, `▼ −0.4 pts better`, or a dash with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from mainstay.web import formats

UpIs = Literal["good", "bad", "neither"]
Show = Callable[[float], str]
NONE = "no change"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The period that is compared with: how it reads after a number, and why a number is not known for it."""

    words: str
    unknown: str


def relative(
    now: float | None,
    before: float | None,
    earlier: Earlier,
    show: Show,
    up_is: UpIs,
    within_percent: int = 0,
) -> Markup:
    """In per cent of what it was. A change within what estimates differ by anyway is called none."""
    if now is None or before is None:
        return formats.dash(earlier.unknown)
    if not before:
        return _changed(now, "from 0" if now else NONE, show(before), earlier, up_is)
    percent = round((now / before - 1) * 100)
    if percent and abs(percent) <= within_percent:
        return _changed(0, "about the same", show(before), earlier, up_is)
    return _changed(percent, f"{percent:+,d} %" if percent else NONE, show(before), earlier, up_is)


def points(now: float | None, before: float | None, earlier: Earlier, up_is: UpIs) -> Markup:
    """Of shares of one: in percentage points."""
    if now is None or before is None:
        return formats.dash(earlier.unknown)
    moved = round((now - before) * 100, 1)
    text = f"{moved:+.1f} pts" if abs(moved) < 10 else f"{moved:+.0f} pts"
    return _changed(moved, text if moved else NONE, formats.share_text(before), earlier, up_is)


def difference(now: int, before: int | None, earlier: Earlier, up_is: UpIs) -> Markup:
    """Of counts too small for per cent."""
    if before is None:
        return formats.dash(earlier.unknown)
    return _changed(
        now - before,
        f"{now - before:+,d}" if now != before else NONE,
        formats.count_text(before),
        earlier,
        up_is,
    )


def _changed(moved: float, text: str, was: str, earlier: Earlier, up_is: UpIs) -> Markup:
    title = f"{was} {earlier.words}"
    if not moved:
        return Markup('<span title="{0}">{1}<span class="vh">: {0}</span></span>').format(title, text)
    arrow = "▲" if moved > 0 else "▼"
    word = "" if up_is == "neither" else "better" if (moved > 0) == (up_is == "good") else "worse"
    return Markup(
        '<span class="{0}" title="{1}"><span aria-hidden="true">{2} </span>{3}{4}<span class="vh">: {1}</span></span>'
    ).format(word or "moved", title, arrow, text.replace("-", "−"), f" {word}" if word else "")
