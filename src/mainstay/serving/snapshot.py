"""What the hot path holds in memory: keys, runnable releases, names. Immutable, swapped whole.

The control plane may be slow or gone: a request reads only this. A refresher watches the change counter and
builds the next snapshot; when that fails, the old one serves on and the failure is kept for `/ready`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mainstay.core.clock import Clock, now_us
from mainstay.core.content import digest_json
from mainstay.core.errors import Unauthenticated
from mainstay.delivery.types import RunnableRelease
from mainstay.govern import identity_of
from mainstay.govern.types import ApiKey, Identity, LimitScope
from mainstay.guard import policy_body
from mainstay.guard.types import Policy

log = logging.getLogger(__name__)

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class ServingSnapshot:
    """`keys` maps a token's hash to its key; `runnables` maps `app`, `app@env` and `app@rN` to releases.

    `default_policy` guards plain models; None guards nothing there. `id` names the state in every response.
    """

    id: str
    keys: Mapping[str, tuple[ApiKey, Identity]] = field(default_factory=dict)
    runnables: Mapping[str, RunnableRelease] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    default_policy: Policy | None = None
    policy_digest: str = ""
    key_scopes: Mapping[str, tuple[LimitScope, ...]] = field(default_factory=dict)
    app_scopes: Mapping[str, LimitScope] = field(default_factory=dict)

    def resolve(self, name: str) -> RunnableRelease | None:
        """The release behind an app's name; None when no app is called so."""
        return self.runnables.get(name)

    def scopes_of(self, key: ApiKey | None, app: str | None) -> tuple[LimitScope, ...]:
        """Everything with limits that a request falls under: the key's own scopes, and the app's."""
        scopes = () if key is None else self.key_scopes.get(key.id)
        if scopes is None:  # the snapshot was swapped since the caller was identified: its own limits hold
            scopes = () if key is None or key.limits.unlimited else (_own_scope(key),)
        of_app = self.app_scopes.get(app) if app is not None else None
        return scopes if of_app is None else (*scopes, of_app)

    def key_of(self, identity: Identity) -> ApiKey | None:
        """The key that this caller is, with its limits; None for people and for keys no longer served."""
        return next((key for key, _ in self.keys.values() if key.id == identity.id), None)

    def identify(self, token_hash: str, at_us: int) -> tuple[ApiKey, Identity]:
        """The key with this token hash; raises Unauthenticated when unknown, revoked or expired."""
        found = self.keys.get(token_hash)
        if found is None or found[0].revoked_at_us is not None:
            raise Unauthenticated(
                "This API key is not known or was revoked.",
                fix="Send a key made with `mainstay key create` as `Authorization: Bearer ms-…`.",
            )
        if found[0].expires_at_us is not None and found[0].expires_at_us <= at_us:
            raise Unauthenticated("This API key has expired.", fix="Ask an administrator for a new one.")
        return found


def _own_scope(key: ApiKey) -> LimitScope:
    return LimitScope("key", key.id, key.name, key.limits)


def build_snapshot(
    change_counter: int,
    keys: Iterable[ApiKey],
    runnables: Mapping[str, RunnableRelease],
    models: Iterable[str],
    default_policy: Policy | None = None,
    scopes: Callable[[ApiKey], tuple[LimitScope, ...]] = lambda _: (),
    app_scopes: Mapping[str, LimitScope] | None = None,
) -> ServingSnapshot:
    """A snapshot of what the stores give; read the change counter before the stores.

    `scopes` says which limits a key's requests fall under.
    """
    found = list(keys)
    return ServingSnapshot(
        id=f"s{change_counter}",
        keys={key.token_hash: (key, identity_of(key)) for key in found},
        runnables=dict(runnables),
        models=tuple(models),
        default_policy=default_policy,
        policy_digest="" if default_policy is None else digest_json(policy_body(default_policy)),
        key_scopes={key.id: scopes(key) for key in found},
        app_scopes=dict(app_scopes or {}),
    )


def may_use(key: ApiKey | None, name: str) -> bool:
    """Whether a key may ask for a name. An app's name covers its environments and releases (`app@…`).

    A pattern may end in `*` (`openai/*`); `*` alone, and a key without a list, means every name.
    """
    if key is None or key.models is None:
        return True
    return any(_covers(pattern, name) for pattern in key.models)


def _covers(pattern: str, name: str) -> bool:
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern or name.startswith(pattern + "@")


@dataclass(frozen=True, slots=True)
class RefreshFailure:
    at_us: int
    reason: str


class SnapshotHolder:
    """The current snapshot. Reading is one attribute load; a request keeps the one it started with."""

    def __init__(self, snapshot: ServingSnapshot) -> None:
        self.current = snapshot
        self.failure: RefreshFailure | None = None
        self.loaded = False
        """Whether a snapshot has taken over from the one at the start."""

    def swap(self, snapshot: ServingSnapshot) -> None:
        self.current = snapshot
        self.loaded = True
        self.failure = None


class Refresher:
    """A thread that rebuilds the snapshot when the change counter moved.

    `read_counter` and `build` may read the database; neither runs on the request path.
    """

    def __init__(
        self,
        holder: SnapshotHolder,
        read_counter: Callable[[], int],
        build: Callable[[], ServingSnapshot],
        *,
        poll_s: float = POLL_S,
        clock: Clock = now_us,
    ) -> None:
        self._holder = holder
        self._read_counter = read_counter
        self._build = build
        self._poll_s = poll_s
        self._clock = clock
        self._seen: int | None = None
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot-refresher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def rebuild(self) -> bool:
        """As `refresh`, whether or not the change counter moved: something else has changed."""
        self._seen = None
        return self.refresh()

    def refresh(self) -> bool:
        """Rebuild if something changed; True when a new snapshot took over. Never raises."""
        with self._turn:  # of two at once, the slower would put an older snapshot over the newer one
            try:
                counter = self._read_counter()  # before building: a change meanwhile is seen by the next turn
                if counter == self._seen:
                    self._holder.failure = None
                    return False
                self._holder.swap(self._build())
            except Exception as error:
                self._failed(error)
                return False
            self._seen = counter
            return True

    def _failed(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if self._holder.failure is None or self._holder.failure.reason != reason:
            log.warning("the serving snapshot stays as it is: %s", reason)
        self._holder.failure = RefreshFailure(self._clock(), reason)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.refresh()
