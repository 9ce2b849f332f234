"""An app whose model is at an OpenAI-compatible endpoint of one's own."""

from pathlib import Path

import pytest
from openai import AsyncOpenAI

from mainstay.cli.context import actor
from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.services import publish
from support.openai_server import OpenAiServer, Reply

pytestmark = pytest.mark.model

PROVIDER = """
providers:
  gpu:
    base_url: {base_url}
    price: {{input: 1, output: 2}}
"""


async def test_it_answers_from_the_documents_and_knows_what_the_answer_cost(project: Path) -> None:
    async with OpenAiServer() as endpoint:
        endpoint.plays(
            Reply(pieces=("Every full-time employee has 27 days ", "of paid annual leave a year [1]."))
        )
        file = project / "mainstay.yaml"
        text = file.read_text().replace("model: local/extractive", "model: gpu/m")
        file.write_text(text + PROVIDER.format(base_url=endpoint.base_url))
        loaded = load_project(project)
        with RunningServer(load_settings({"port": 0}), loaded) as server:
            publish(server.services, actor(), loaded)
            async with AsyncOpenAI(
                base_url=f"{server.base_url}/v1", api_key=server.key, max_retries=0
            ) as client:
                answer = await client.chat.completions.create(
                    model="bot",
                    messages=[{"role": "user", "content": "How many days of paid annual leave are there?"}],
                )
    extension = (answer.model_extra or {})["mainstay"]
    assert "27 days of paid annual leave" in (answer.choices[0].message.content or "")
    assert extension["answered_by"] == "gpu/m"
    assert [c["document"] for c in extension["citations"]] == ["leave.md"]
    assert extension["cost_nusd"] == 11 * 1_000 + 3 * 2_000
    (request,) = endpoint.requests
    assert request.body["model"] == "m"
    assert "27 days of paid annual leave" in str(request.body["messages"])
