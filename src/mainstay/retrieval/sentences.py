"""Split text into sentences with offsets: the grain of citations, of support and of extracted answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]»]*(?:\s?\[\d{1,3}\])*(?=\s|$)|[。！？｡]+[」』”’）]*")
_ABBREVIATION_WORDS = (
    "al approx art assn ave bros ca capt cf ch cmdr co col corp dept dr ed eds e.g eg esp est etc ext fig figs "
    "ft gen gov hon inc incl i.e ie jr lt ltd maj max min mr mrs ms mt no nos op para paras pp prof ref rep rev "
    "sec sen sgt sr st tel univ viz vol vols vs z.b bzw usw bspw nr str"
)
_ABBREVIATIONS = frozenset(_ABBREVIATION_WORDS.split())
_ACRONYM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_LAST_WORD = re.compile(r"[\w.]+$")
_LIST_ITEM = re.compile(r"\s*(?:[-*•–·▪◦]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)])\s+\S")
_OPENS_BLOCK = re.compile(r"\s*(?:#{1,6}\s|>|```|\|)")
_CELL_END = re.compile(r"[,;](?=\S)(?!\d{3}\b)")
_SECTION_TITLE = re.compile(r"\s*(?:\d{1,3}(?:\.\d{1,3})+\.?|\d{1,2})\s+[A-ZÀ-ÖØ-Þ][^.!?:;|\n]{0,100}$")
_BARE_TITLE = re.compile(r"[A-ZÀ-ÖØ-Þ][^.!?:;|,\n]{0,60}$")
_TITLE_WORDS_MAX = 8
_ENDED = re.compile(r"[.!?…:;。！？｡][\"'”’»)\]*_」』）]*(?:\s?\[\d{1,3}\])*\s*$")
_CITED = re.compile(r"(?:\s?\[\d{1,3}\])+\s*$")
_CLOSING = re.compile(r"(?<![\s\"'”’»)\]*_])[\s\"'”’»)\]*_]+$")  # each run is tried once, from its start
_LAST_LETTERS = re.compile(r"(?<![^\W\d_])[^\W\d_]+$")
_OPEN_NUMBER = re.compile(r"\b(?:least|most|every|within|than)\s+\d[\d.,]*$")
_DETERMINERS = "a an the every and or than their its our your my"
_NEVER_LAST = frozenset(_DETERMINERS.split())
_SELDOM_LAST = (
    "of to in on at by for from with within without into onto per as that which who whose if when while "
    "because until unless is are was were be been being has have had must may can shall will would should "
    "could might do does each any some this these those not no but so about between during under over before "
    "after against through via least most than more less"
)
_LAST_WITH_MARK_ONLY = frozenset(_SELDOM_LAST.split())
"""A sentence may end on these ("the day before."), but one without its end mark has more to say."""
_WRAPPED_CHARS_MIN = 25
_LETTER_OR_NUMBER = re.compile(r"\w")


def split_sentences(text: str) -> list[Span]:
    """Spans [start, end) in order, without surrounding white space; every word lies in exactly one.

    A line of its own stays apart (list item, heading, table or CSV row); a line broken in the middle of
    a sentence is joined with the next. No full stop after an abbreviation, initial or number ends a sentence.
    """
    return [
        span
        for start, end in _blocks(text)
        for span in _sentences_of(text, start, end)
        if _LETTER_OR_NUMBER.search(text, *span)
    ]


def is_title(sentence: str, follows: str = "") -> bool:
    """Is this line a heading, which states nothing? `follows` is the text after it.

    Known by its mark ("## Drills"), by its section number ("5.3 Drills"), or by standing alone: a few words without
    an end mark above a paragraph.
    """
    if sentence.startswith("#") or _SECTION_TITLE.fullmatch(sentence):
        return True
    alone = re.match(r"[ \t]*\r?\n[ \t]*\r?\n", follows) is not None and bool(follows.strip())
    return alone and _BARE_TITLE.fullmatch(sentence) is not None and len(sentence.split()) <= _TITLE_WORDS_MAX


def has_end(sentence: str) -> bool:
    """Does it close with a full stop, a question or exclamation mark, a colon or a semicolon?"""
    return _ENDED.search(sentence) is not None


def is_cut_off(sentence: str) -> bool:
    """Does the sentence stop in its middle: on a word that must be followed by another, or on an open comma?"""
    bare = _CLOSING.sub("", _CITED.sub("", sentence))
    ended = has_end(sentence)
    if not ended and bare.endswith((",", "-", "–", "—", "(", "/")):
        return True
    last = _LAST_LETTERS.search(bare.rstrip(".!?…"))
    if not ended and _OPEN_NUMBER.search(bare):
        return True
    word = last[0] if last else ""  # as written: "vitamin A." ends well
    return word in _NEVER_LAST or (not ended and word in _LAST_WITH_MARK_ONLY)


def _blocks(text: str) -> Iterator[Span]:
    """Runs of lines that belong together."""
    start = end = None
    for line_start, line_end in _lines(text):
        line = text[line_start:line_end]
        if not line.strip():
            if start is not None and end is not None:
                yield start, end
            start = end = None
        elif start is not None and end is not None and _continues(text[start:end], line):
            end = line_end
        else:
            if start is not None and end is not None:
                yield start, end
            start, end = line_start, line_end
    if start is not None and end is not None:
        yield start, end


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line.rstrip("\r\n"))
        start += len(line)


def _continues(block: str, line: str) -> bool:
    """Does `line` go on with the sentence that `block` left open?

    Prose is wrapped at a width; rows, headings and items are not. So the line before must be prose of
    some length without an end mark, and this one must not open anything of its own.
    """
    last = block.rsplit("\n", 1)[-1].rstrip()
    if _is_row(last) or _is_row(line) or _cells(last) == _cells(line) > 1:
        return False
    if _LIST_ITEM.match(line) or _OPENS_BLOCK.match(line) or _OPENS_BLOCK.match(last) or last.endswith(":"):
        return False
    if _SECTION_TITLE.fullmatch(line) or _SECTION_TITLE.fullmatch(last):
        return False
    if line.lstrip()[:1].islower():
        return len(last) >= _WRAPPED_CHARS_MIN
    return len(last) >= 2 * _WRAPPED_CHARS_MIN and not _END.search(last[-3:])


def _is_row(line: str) -> bool:
    """A table or CSV row: cells parted by bars, tabs, semicolons, or several commas without spaces."""
    return line.count("|") >= 2 or "\t" in line or _cells(line) > 2


def _cells(line: str) -> int:
    """How many cells commas or semicolons without a space behind them make; those within numbers do not count."""
    return 1 + len(_CELL_END.findall(line))


def _sentences_of(text: str, start: int, end: int) -> Iterator[Span]:
    if _is_row(text[start:end]):
        yield _strip(text, start, end)
        return
    begin = start
    for mark in _END.finditer(text, start, end):
        if _ends_sentence(text, begin, mark, end):
            yield _strip(text, begin, mark.end())
            begin = mark.end()
    if text[begin:end].strip():
        yield _strip(text, begin, end)


def _strip(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _ends_sentence(text: str, begin: int, mark: re.Match[str], end: int) -> bool:
    if not mark[0].startswith("."):
        return True
    following = text[mark.end() : end].lstrip()[:1]
    if following.islower():
        return False  # "3 p.m. on", "e.g. this"
    if not re.fullmatch(r"\.(?:\s?\[\d{1,3}\])*", mark[0]):
        return True
    word = _LAST_WORD.search(text, begin, mark.start())
    return word is None or not _keeps_its_stop(word[0], text[begin : word.start()], following)


def _keeps_its_stop(word: str, before: str, following: str) -> bool:
    if word.lower().strip(".") in _ABBREVIATIONS:
        # "no." and "fig." only before a number; "No." alone is an answer.
        return word.lower() not in {"no", "max", "min", "art", "st", "co", "ref"} or (
            following.isdigit() if word.lower() == "no" else bool(before.strip()) and following != ""
        )
    is_initial = bool(_ACRONYM.fullmatch(word)) or (len(word) == 1 and word.isalpha() and word.isupper())
    is_list_number = not before.strip() and (word.isdigit() or len(word) == 1)
    return is_initial or is_list_number
