"""A gateway that is killed at the worst moment loses no spend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving_plane import api_key

from mainstay.govern import scopes_of
from mainstay.serving.limits import Journal, MemoryLimiter

KILLED = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from serving_plane import api_key, build_plane
from mainstay.govern import identity_of
from mainstay.models.types import ChatCall, ChatMessage
from mainstay.serving import Call, ChatRequest, Journal, MemoryLimiter, ask

plane, key = build_plane(), api_key(budget_nusd=10**9, budget_window="total")
plane.knows(key)
deps = replace(plane.deps, limiter=MemoryLimiter(Journal(Path({path!r}))))
plane.model.says("Hello.")
call = Call(ChatRequest("acme/small", ChatCall("", (ChatMessage("user", "Hi"),), max_tokens=20)), identity_of(key), key)
for turn in range(3):
    asyncio.run(ask(call, deps))
"""
HOLD_NUSD = 20 * 400 + (2 + 16 + 16) * 100  # 20 output tokens, and the ceiling of the input
COST_NUSD = 5 * 400 + 10 * 100


@pytest.mark.parametrize("fault", ["serving.after_reserve", "serving.before_settle"])
@pytest.mark.parametrize("visit", [1, 2])
async def test_a_killed_process_loses_no_spend(tmp_path: Path, fault: str, visit: int) -> None:
    path = tmp_path / "journal.jsonl"
    program = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    environment = {**os.environ, "MAINSTAY_FAULT": f"{fault}=kill@{visit}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=60)
    assert done.returncode == -9
    limiter = MemoryLimiter(Journal(path))
    key = api_key(budget_nusd=10**9, budget_window="total")
    (state,) = await limiter.states(scopes_of(key, {}, {}, {}, {}))
    # A call whose settlement was still on its way to the disk counts in full: never less than was spent.
    spent = (visit - 1) * COST_NUSD + HOLD_NUSD
    assert spent <= state.spent_nusd <= visit * HOLD_NUSD
    assert state.held_nusd == 0
    await limiter.close()
