"""One event of a stream that cannot be read is skipped; two in a row are a failure."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Skips:
    """The state of one stream. What was skipped is told to the log; the text in it, if any, is lost."""

    __slots__ = ("_provider", "_waiting")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._waiting = False

    def unreadable(self, error: ValueError) -> None:
        """Raises the error again when the event before could not be read either."""
        if self._waiting:
            raise error
        self._waiting = True
        _log.warning("%s sent an event that cannot be read, which is skipped: %s", self._provider, error)

    def readable(self) -> None:
        self._waiting = False
