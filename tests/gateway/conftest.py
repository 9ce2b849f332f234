"""One stage for all tests of the folder: starting a server costs more than asking it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway_said import Said
from gateway_stage import Stage, set_up
from gateway_vendors import KEYS


@pytest.fixture(scope="session")
def running_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in KEYS.items():
            environment.setenv(name, value)
        with set_up(tmp_path_factory.mktemp("gateway")) as stage:
            yield stage


@pytest.fixture
def stage(running_stage: Stage) -> Stage:
    """Every vendor says hello, whatever it was told to say by the test before."""
    for vendor in running_stage.vendors.values():
        vendor.plays(Said())
    return running_stage
