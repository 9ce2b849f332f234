"""Which models are loaded: on first use, several within one limit of memory, given back when idle.

Each model has a process of its own (`EngineProcess`); its adapters live in the same. When a new model has no
room, the idle one that was used longest ago makes it; while only busy ones could, new calls to other models
wait behind the one that wants in, so that it gets its turn. A process that died is started again by the next
call; after repeated deaths with no call answered between, calls are refused for a while that doubles each time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mainstay.core.errors import InvalidInput
from mainstay.models.engine.facts import read_facts, usable_context_tokens
from mainstay.models.engine.frames import Load
from mainstay.models.engine.memory import resident_bytes
from mainstay.models.engine.process import PROVIDER, EngineProcess
from mainstay.models.errors import EngineFailed
from mainstay.models.types import EngineSettings

log = logging.getLogger(__name__)

PROCESS_BYTES: Final = 136 << 20
"""Interpreter, library, compute buffers and the prompt cache, beyond weights and attention cache; measured."""

_PATIENCE: Final = 2
"""Deaths in a row that are followed by a restart at once."""
_BACK_OFF_S: Final = 1.0
_BACK_OFF_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A GGUF file, and the LoRA files (by name) that calls may choose from."""

    name: str
    gguf: Path
    adapters: tuple[tuple[str, Path], ...] = ()


@dataclass(slots=True)
class Lease:
    """A process to be used, and which of its adapters; None is the bare model. Give it back by `release`."""

    process: EngineProcess
    adapter: int | None
    _entry: _Entry


@dataclass(slots=True)
class _Entry:
    name: str
    gguf: Path
    adapters: dict[str, Path] = field(default_factory=dict)
    process: EngineProcess | None = None
    loading: asyncio.Task[EngineProcess] | None = None
    in_use: dict[int, int] = field(default_factory=dict)  # leases, by the id of the process
    used_at: float = 0.0
    deaths: int = 0
    not_before: float = 0.0
    why: EngineFailed | None = None

    @property
    def leases(self) -> int:
        return sum(self.in_use.values())


@dataclass(frozen=True, slots=True)
class EngineState:
    """A model's engine as it is now. `memory_bytes` and `pid` are None while it is not loaded."""

    name: str
    loaded: bool
    leases: int
    memory_bytes: int | None
    pid: int | None
    deaths: int
    retry_after_s: float | None


class Engines:
    """All local models of this gateway. Use from one event loop at a time; `close` ends the processes.

    `clock` gives seconds that only grow. Idle models are looked for by a timer after each use, and by
    `unload_idle`.
    """

    def __init__(self, settings: EngineSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._entries: dict[Path, _Entry] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Lock()
        self._freed = asyncio.Event()
        self._wanting: _Entry | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._closing = False

    def context_tokens(self, gguf: Path) -> int:
        """Of one call: as set, or what the model was trained for when that is less."""
        return usable_context_tokens(gguf, self._settings.context_tokens)

    def state(self, model: LocalModel) -> EngineState:
        entry = self._entry(model)
        process = entry.process if entry.process is not None and entry.process.alive else None
        wait_s = entry.not_before - self._clock()
        return EngineState(
            name=entry.name,
            loaded=process is not None,
            leases=entry.leases,
            memory_bytes=_held(process) if process is not None else None,
            pid=process.pid if process is not None else None,
            deaths=entry.deaths,
            retry_after_s=wait_s if wait_s > 0 else None,
        )

    def loaded(self, model: LocalModel) -> EngineProcess | None:
        """The process, when there is one to ask now."""
        process = self._entry(model).process
        return process if process is not None and process.alive else None

    async def acquire(self, model: LocalModel, adapter: str | None = None) -> Lease:
        """A loaded process; two calls for one that is not loaded load it once. Raises EngineFailed.

        A caller that is cancelled leaves the loading to those who still wait, and to the next.
        """
        self._bind()
        entry = self._entry(model)
        while True:
            if self._closing:
                raise _shutting_down()
            blocking = self._wanting
            if blocking is not None and blocking is not entry and blocking.loading is not None:
                await asyncio.wait({blocking.loading})
                continue
            process = entry.process
            if process is None or not process.alive or not _has(process, entry, adapter):
                process = await self._loaded(entry)
                if not process.alive:
                    continue
            position = None if adapter is None else process.load.adapters.index(str(entry.adapters[adapter]))
            entry.in_use[id(process)] = entry.in_use.get(id(process), 0) + 1
            entry.used_at = self._clock()
            return Lease(process, position, entry)

    def release(self, lease: Lease, *, answered: bool) -> None:
        """`answered`: the engine did its work, so its deaths before this are forgotten."""
        entry, process = lease._entry, lease.process
        entry.used_at = self._clock()
        left = entry.in_use.get(id(process), 1) - 1
        entry.in_use[id(process)] = left
        if answered:
            entry.deaths, entry.not_before, entry.why = 0, 0.0, None
        if left <= 0:
            del entry.in_use[id(process)]
            if process is not entry.process and self._loop is process.loop:
                self._do(process.close())  # a later one with more adapters has taken its place
            self._freed.set()
            self._set_timer()

    async def unload_idle(self) -> None:
        """End the processes of models that nobody used for `idle_unload_s` seconds."""
        idle_s = self._settings.idle_unload_s
        now = self._clock()
        for entry in list(self._entries.values()):
            if entry.process is not None and not entry.leases and now - entry.used_at >= idle_s > 0:
                await self._unload(entry)
        self._set_timer()

    async def close(self) -> None:
        """Calls under way go to their end, waiting ones are told; returns when every process has ended."""
        if self._loop is not asyncio.get_running_loop():
            self._abandon()
            return
        self._closing = True
        try:
            await self._close()
        finally:
            self._closing = False

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for entry in self._entries.values():
            if entry.loading is not None:
                entry.loading.cancel()
                await asyncio.wait({entry.loading})
        await asyncio.gather(*(self._unload(entry) for entry in self._entries.values()))
        if self._chores:
            await asyncio.wait(self._chores)

    async def _loaded(self, entry: _Entry) -> EngineProcess:
        loading = self._loading(entry)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled() and self._closing:  # it is not the caller that was cancelled
                raise _shutting_down() from None
            raise

    # --- loading -------------------------------------------------------------------------------------------

    def _loading(self, entry: _Entry) -> asyncio.Task[EngineProcess]:
        if entry.loading is None or entry.loading.done():
            self._refuse_early(entry)
            entry.loading = asyncio.get_running_loop().create_task(self._load(entry))
            entry.loading.add_done_callback(_look_at)
        return entry.loading

    def _refuse_early(self, entry: _Entry) -> None:
        wait_s = entry.not_before - self._clock()
        if wait_s > 0 and entry.why is not None:
            raise EngineFailed(
                f"{entry.why.message} That was the {entry.deaths}. time in a row; it is tried again later.",
                provider=PROVIDER,
                fix=entry.why.fix,
                retry_after_s=wait_s,
            )

    async def _load(self, entry: _Entry) -> EngineProcess:
        async with self._room:
            need = await asyncio.to_thread(self._estimate, entry)
            try:
                await self._make_room(entry, need)
            finally:
                self._wanting = None
            load = Load(
                name=entry.name,
                gguf=str(entry.gguf),
                adapters=tuple(str(path) for path in entry.adapters.values()),
                threads=self._settings.threads,
                slots=self._settings.slots,
                context_tokens=self.context_tokens(entry.gguf),
                memory_bytes_max=self._limit_bytes(),
            )
            old = entry.process
            try:
                process = await EngineProcess.start(load, lambda gone: self._died(entry, gone))
            except EngineFailed as error:
                self._count_death(entry, error)
                raise
            entry.process, entry.used_at = process, self._clock()
            if old is not None and old.alive and id(old) not in entry.in_use:
                self._do(old.close())
            self._set_timer()
            return process

    def _estimate(self, entry: _Entry) -> int:
        """Bytes the process will hold. Raises EngineFailed for a file that is no model."""
        try:
            facts = read_facts(entry.gguf)
            weights = entry.gguf.stat().st_size
            adapters = sum(path.stat().st_size for path in entry.adapters.values())
        except (InvalidInput, OSError) as error:
            why = error.message if isinstance(error, InvalidInput) else f"{error}."
            raise EngineFailed(
                f"The local engine could not load {entry.gguf.name}: {why}",
                provider=PROVIDER,
                fix="Remove the model and add it again.",
            ) from error
        context = min(self._settings.context_tokens, facts.context_tokens or self._settings.context_tokens)
        cache = facts.kv_bytes_per_token * context * self._settings.slots
        return weights + adapters + cache + PROCESS_BYTES

    async def _make_room(self, entry: _Entry, need: int) -> None:
        """Until it fits. Raises EngineFailed when it never can."""
        limit = self._limit_bytes()
        if limit is None:
            return
        if need > limit:
            raise EngineFailed(
                f"{entry.name!r} needs about {need >> 20} MB of memory; local models may hold {limit >> 20} MB.",
                provider=PROVIDER,
                fix="Raise engine_memory_mb, lower engine_context or engine_slots, or take a smaller model.",
            )
        while self._held_bytes() + need > limit:
            idle = [
                e for e in self._entries.values() if e.process is not None and not e.leases and e is not entry
            ]
            if idle:
                await self._unload(min(idle, key=lambda e: e.used_at))
            elif not any(e.process is not None for e in self._entries.values() if e is not entry):
                return  # what is held is the process that this one replaces
            else:
                self._wanting = entry
                self._freed.clear()
                await self._freed.wait()

    def _held_bytes(self) -> int:
        processes = [e.process for e in self._entries.values() if e.process is not None]
        return sum(_held(process) or 0 for process in processes)

    def _limit_bytes(self) -> int | None:
        return None if self._settings.memory_mb is None else self._settings.memory_mb << 20

    # --- unloading and death -------------------------------------------------------------------------------

    async def _unload(self, entry: _Entry) -> None:
        process, entry.process = entry.process, None
        if process is not None:
            log.info("unloading %s", entry.name)
            await process.close()

    def _died(self, entry: _Entry, process: EngineProcess) -> None:
        if entry.process is process:
            entry.process = None
        if process.ready and not process.closing and process.death is not None:
            log.warning("%s", process.death.message)
            self._count_death(entry, process.death)
        self._freed.set()

    def _count_death(self, entry: _Entry, why: EngineFailed) -> None:
        entry.deaths += 1
        entry.why = why
        if entry.deaths > _PATIENCE:
            wait_s = _BACK_OFF_S * 2.0 ** (entry.deaths - _PATIENCE - 1)
            entry.not_before = self._clock() + min(wait_s, _BACK_OFF_S_MAX)

    # --- odds and ends -------------------------------------------------------------------------------------

    def _entry(self, model: LocalModel) -> _Entry:
        entry = self._entries.get(model.gguf)
        if entry is None:
            entry = self._entries[model.gguf] = _Entry(model.name, model.gguf)
        entry.adapters.update(model.adapters)
        return entry

    def _bind(self) -> None:
        """To the running loop; what another one left behind can only be killed."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._abandon()
        self._loop = loop

    def _abandon(self) -> None:
        for entry in self._entries.values():
            if entry.process is not None:
                entry.process.abandon()
            entry.process, entry.loading, entry.in_use = None, None, {}
        self._loop, self._timer, self._wanting = None, None, None
        self._room, self._freed, self._chores = asyncio.Lock(), asyncio.Event(), set()

    def _set_timer(self) -> None:
        """One timer, at the time when the first idle model will have been idle long enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle = [e.used_at for e in self._entries.values() if e.process is not None and not e.leases]
        if self._settings.idle_unload_s > 0 and idle and self._loop is not None:
            wait_s = min(idle) + self._settings.idle_unload_s - self._clock()
            self._timer = self._loop.call_later(max(wait_s, 1.0), lambda: self._do(self.unload_idle()))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _shutting_down() -> EngineFailed:
    return EngineFailed("The local engine is shutting down.", provider=PROVIDER)


def _has(process: EngineProcess, entry: _Entry, adapter: str | None) -> bool:
    return adapter is None or str(entry.adapters[adapter]) in process.load.adapters


def _held(process: EngineProcess) -> int | None:
    return None if process.pid is None else resident_bytes(process.pid)


def _look_at(task: asyncio.Task[EngineProcess]) -> None:
    if not task.cancelled():
        task.exception()  # all who waited for it may have gone
