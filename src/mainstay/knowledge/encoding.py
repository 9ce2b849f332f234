"""Bytes of a text file to text: byte order mark, then UTF-8, then the likeliest legacy encoding."""

from __future__ import annotations

import codecs

from charset_normalizer import from_bytes

from mainstay.knowledge.parsers.base import ParseError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 64 * 1024
_CONTROLS_SHARE_MAX = 0.02
_WESTERN = frozenset("äöüßÄÖÜéèêëÉÈàâáãçÇîïíìôóòõûùúñÑåÅæÆøØœŒ¿¡«»‹›–—‘’“”„‚€£§°…·•©®™²³½¼´\xa0\xad")


def decode(data: bytes) -> str:
    """The text of a file. Raises ParseError for what is no text in any known encoding."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding)
    if b"\x00" in data[:_SAMPLE_BYTES]:
        return _strict(data, _wide_encoding(data[:_SAMPLE_BYTES]))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if _controls(data[:_SAMPLE_BYTES]) > _CONTROLS_SHARE_MAX:
            raise _binary() from None
        return data.decode(_legacy_encoding(data), errors="replace")


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ParseError(
            f"The file is not valid {encoding.removesuffix('-sig').upper()} text (byte {error.start}).",
            fix="Save it again as UTF-8.",
        ) from error


def _wide_encoding(sample: bytes) -> str:
    """UTF-16 without a mark: nearly every other byte of Western text is zero. Anything else is binary."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    most, least = max(even, odd), min(even, odd)
    if most < 0.4 * len(sample) / 2 or least > 0.05 * len(sample) / 2:
        raise _binary()
    return "utf-16-be" if even > odd else "utf-16-le"


def _controls(sample: bytes) -> float:
    """The share of control bytes that no text has."""
    return sum(byte < 0x20 and byte not in b"\t\n\v\f\r\x1b" for byte in sample) / len(sample)


def _binary() -> ParseError:
    return ParseError("The file is binary, not text.", fix="Give it the ending of its real format.")


def _legacy_encoding(data: bytes) -> str:
    """Windows-1252, the commonest, if it reads as Western text; else what statistics say it is.

    Statistics alone take short French or German texts for Central European ones.
    """
    sample = data[:_SAMPLE_BYTES]
    accented = [c for c in sample.decode("cp1252", errors="replace") if c > "\x7f"]
    if sum(c in _WESTERN for c in accented) >= 0.9 * len(accented):
        return "cp1252"
    best = from_bytes(sample).best()
    return best.encoding if best is not None else "cp1252"
