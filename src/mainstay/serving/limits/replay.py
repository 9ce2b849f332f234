"""What a journal says: who has spent how much in which window. Writes and reads its entries.

    ["hold", hold, nusd, [[kind, scope, window], …]]     money set aside in all of these accounts
    ["resize", hold, nusd]                               the same hold, another amount
    ["settle", hold, nusd]                               the hold became this much spend
    ["spend", kind, scope, window, nusd]                 an account's whole spend, from a compaction

Journals written before limits had scopes hold `["reserve", hold, key, window, nusd]` and
`["spent", key, window, nusd]`: these are accounts of kind `key`. Kinds not known here are skipped with a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import orjson

from mainstay.serving.limits.accounts import AccountKey
from mainstay.serving.limits.journal import Entry

log = logging.getLogger(__name__)


def hold_entry(hold_id: str, nusd: int, accounts_json: bytes) -> bytes:
    return b'["hold","%b",%d,[%b]]' % (hold_id.encode(), nusd, accounts_json)


def resize_entry(hold_id: str, nusd: int) -> bytes:
    return b'["resize","%b",%d]' % (hold_id.encode(), nusd)


def settle_entry(hold_id: str, nusd: int) -> bytes:
    return b'["settle","%b",%d]' % (hold_id.encode(), nusd)


def spend_entry(account: AccountKey, nusd: int) -> bytes:
    return orjson.dumps(["spend", *account, nusd])


class Replay:
    """Reads entries in order. Holds still open at the end are settled in full: what the provider billed for
    them cannot be known, and free would be a hole."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.spent: dict[AccountKey, int] = {}
        self._open: dict[str, tuple[int, list[AccountKey]]] = {}
        unknown: set[str] = set()
        for kind, *fields in entries:
            read = getattr(self, f"_read_{kind}", None)
            if read is None:
                unknown.add(kind)
            else:
                read(*fields)
        if unknown:
            log.warning(
                "the limits journal has entries of unknown kinds, which are skipped: %s", sorted(unknown)
            )
        self.left_open = len(self._open)
        for hold_id, (nusd, _) in list(self._open.items()):
            self._read_settle(hold_id, nusd)

    def _read_hold(self, hold_id: str, nusd: int, accounts: list[list[str]]) -> None:
        self._open[hold_id] = (nusd, [(kind, scope, window) for kind, scope, window in accounts])

    def _read_resize(self, hold_id: str, nusd: int) -> None:
        if hold_id in self._open:
            self._open[hold_id] = (nusd, self._open[hold_id][1])

    def _read_settle(self, hold_id: str, nusd: int) -> None:
        _, accounts = self._open.pop(hold_id, (0, []))
        for account in accounts:
            self.spent[account] = self.spent.get(account, 0) + nusd

    def _read_spend(self, kind: str, scope: str, window: str, nusd: int) -> None:
        self.spent[(kind, scope, window)] = nusd

    def _read_reserve(self, hold_id: str, key_id: str, window: str, nusd: int) -> None:
        self._open[hold_id] = (nusd, [("key", key_id, window)])

    def _read_spent(self, key_id: str, window: str, nusd: int) -> None:
        self.spent[("key", key_id, window)] = nusd
