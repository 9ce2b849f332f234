"""The matches of a pattern in a text, found from places where a necessary condition holds.

Both scans give what `pattern.finditer(text)` gives, in time that grows with the number of such places; in long
texts they pause between windows, so that they never hold the interpreter's lock for long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mainstay.guard.prefilter import WINDOW, Seeds, breathe

_LOOKAHEAD = 4
"""No shape looks further behind the end of a match."""


def windowed(
    pattern: re.Pattern[str], where: Seeds, text: str, seen: bytes, before: int, longest: int
) -> Iterator[re.Match[str]]:
    """For matches of at most `longest` characters, of which one holds a place at most `before` from its start.

    The windows tile the text by where a match starts; each is given the characters that such a match may need.
    """
    done, width = 0, 0
    while (place := where.search(seen, done)) is not None:
        start = max(done, place[0] - before)
        width = min(WINDOW, width * 2 + max(place[1] - place[0], 1))
        stop = place[0] + width
        for match in pattern.finditer(text, start, min(len(text), stop + longest + _LOOKAHEAD)):
            if match.start() >= stop:
                break
            yield match
            stop = max(stop, match.end())
        done = stop
        if done > len(text):
            return
        if width == WINDOW:
            breathe(text)


def anchored(
    pattern: re.Pattern[str], where: Seeds, text: str, seen: bytes, skip: int = 0
) -> Iterator[re.Match[str]]:
    """For patterns whose every match, of any length, starts `skip` characters after a place's start."""
    done, tried = 0, 0
    while (place := where.search(seen, done)) is not None:
        match = pattern.match(text, place[0] + skip)
        tried += 1
        if tried % 256 == 0:
            breathe(text)
        if match is None:
            done = place[0] + 1
        else:
            yield match
            done = max(match.end(), place[0] + 1)
        if done > len(text):
            return
