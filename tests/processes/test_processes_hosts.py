"""A second host: its gateway shares the control database, and has a data folder of its own."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from processes_world import Started, ask, fresh_session, until, world

KNOWLEDGE = """
prompts: {answer: answer.md}
knowledge:
  handbook: {paths: [handbook]}
apps:
  helper: {prompt: answer, model: local/extractive, corpus: handbook}
"""
GROUNDED = """---
variables: {question: string, passages: passages}
---
{% for p in passages %}[{{ p.number }}] {{ p.text }}
{% endfor %}
{{ question }}
"""
HANDBOOK = "# Leave\n\nEvery full-time employee has 27 days of paid annual leave a year.\n"


@pytest.mark.model
def test_a_gateway_on_another_host_builds_the_index_that_a_release_needs(
    tmp_path: Path, models_dir: Path
) -> None:
    with world(tmp_path / "first", MAINSTAY_MODELS_DIR=str(models_dir)) as first:
        (first.folder / "handbook").mkdir()
        (first.folder / "handbook" / "leave.md").write_text(HANDBOOK)
        text = first.project.read_text()
        first.project.write_text(text[: text.index("prompts:")] + KNOWLEDGE)
        (first.folder / "answer.md").write_text(GROUNDED)
        first.publish(promote=True)
        token, _ = first.key()
        other = tmp_path / "second"
        other.mkdir()
        shutil.copy(first.settings.data_dir / "master.key", other)
        gateway = first.start(
            "gateway",
            MAINSTAY_DATA_DIR=str(other),
            MAINSTAY_DATABASE_URL=f"sqlite:///{first.settings.data_dir / 'mainstay.db'}",
        )
        assert until(lambda: _answered(gateway, token))
        assert list((other / "indexes").iterdir())


def _answered(gateway: Started, token: str) -> bool:
    async def ask_once() -> tuple[int | None, str]:
        async with fresh_session() as session:
            found = await ask(
                session, gateway.base_url, token, "helper", question="How many days of paid annual leave?"
            )
            return found.status, found.text

    status, text = asyncio.run(ask_once())
    assert status == 200 or "index_not_ready" in text, text
    return status == 200 and "27 days" in text
