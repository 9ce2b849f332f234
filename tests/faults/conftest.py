"""Fixtures of the fault tests: one gateway for all of them, told of each test's upstreams while it runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults_world import KEYS, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        started = World(tmp_path_factory.mktemp("faults")).start()
        yield started
        started.stop()


@pytest.fixture(scope="session")
def hasty_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One that sends pings after a tenth of a second."""
    started = World(tmp_path_factory.mktemp("hasty"), ping_after_s=0.1).start()
    yield started
    started.stop()
