"""What a demo run has done so far, in one small file, so that a killed run goes on where it stopped.

Each question's trace id is chosen before it is asked: after a crash the trace store says whether it was
answered, and an answered question is shown again instead of asked twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainstay.core.content import write_atomically
from mainstay.core.ids import new_trace_id, uuid7_hex


class DemoRun(msgspec.Struct, frozen=True):
    """One run of the demo. `traces` maps a step's name to the trace id it asks under."""

    run_id: str
    model: str
    traces: dict[str, str]
    finished: bool = False


@dataclass(frozen=True, slots=True)
class DemoState:
    path: Path

    def resume_or_begin(self, model: str, steps: Sequence[str]) -> tuple[DemoRun, bool]:
        """(the run, whether it continues one that was cut off). A finished run, or another model, begins anew."""
        found = self._read()
        if (
            found is not None
            and not found.finished
            and found.model == model
            and set(found.traces) == set(steps)
        ):
            return found, True
        run = DemoRun(uuid7_hex(), model, {step: new_trace_id() for step in steps})
        self._write(run)
        return run, False

    def finish(self, run: DemoRun) -> None:
        self._write(DemoRun(run.run_id, run.model, run.traces, finished=True))

    def _read(self) -> DemoRun | None:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=DemoRun)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None  # none yet, or written by another version: begin anew

    def _write(self, run: DemoRun) -> None:
        write_atomically(self.path, msgspec.json.encode(run))
