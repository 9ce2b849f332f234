"""Models of this machine behind the same clients: the small language model, the embedder, an app that joins sentences."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml
from gateway_wishes import City

from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.govern import SYSTEM
from mainstay.services import publish

pytestmark = pytest.mark.model

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
MODEL = "local/smollm2"
HI: Any = [{"role": "user", "content": "Say hello."}]
QUESTION = "How long before departure must cars check in?"
DOCUMENT = """# Check-in

Cars must check in at least 30 minutes before departure. Foot passengers check in 15 minutes before departure.
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """The handbook example's extractive app, over one page."""
    folder = tmp_path_factory.mktemp("local")
    for name in ("prompts", "policies"):
        shutil.copytree(HANDBOOK / name, folder / name)
    (folder / "knowledge").mkdir()
    (folder / "knowledge" / "check-in.md").write_text(DOCUMENT)
    body = yaml.safe_load((HANDBOOK / "mainstay.yaml").read_text())
    body["knowledge"] = {"handbook": {"paths": ["knowledge/"]}}
    body["apps"] = {"extracts": body["apps"]["handbook-extractive"]}
    del body["datasets"]
    (folder / "mainstay.yaml").write_text(yaml.safe_dump(body))
    project = load_project(folder)
    flags = {"data_dir": folder / "data", "port": 0, "models_dir": models_dir}
    with RunningServer(load_settings(flags, {}, folder), project) as running:
        publish(running.services, SYSTEM, project, note="first")
        yield running


@pytest.fixture
def one(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=server.key, max_retries=0) as client:
        yield client


@pytest.fixture
def other(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.base_url, api_key=server.key, max_retries=0) as client:
        yield client


def test_the_local_model_answers_every_client_alike(one: openai.OpenAI, other: anthropic.Anthropic):
    common: Any = {"model": MODEL, "temperature": 0}

    chat = one.chat.completions.create(messages=HI, max_tokens=8, **common)
    response = one.responses.create(input=HI, max_output_tokens=16, **common)
    message = other.messages.create(model=MODEL, messages=HI, max_tokens=8, extra_body={"temperature": 0})
    streamed = one.chat.completions.create(messages=HI, max_tokens=8, stream=True, **common)
    words = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)

    text = chat.choices[0].message.content
    assert text
    assert words == text
    assert response.output_text.startswith(text)
    assert [block.type == "text" and block.text for block in message.content] == [text]
    assert chat.choices[0].finish_reason == "length"
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 8
    assert message.stop_reason == "max_tokens"


def test_the_local_model_keeps_to_a_schema(one: openai.OpenAI):
    answer = one.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Name a city and how many people live in it."}],
        response_format=City,
        temperature=0,
        max_tokens=64,
    )

    assert isinstance(answer.choices[0].message.parsed, City)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_local_model_tells_its_log_probabilities(one: openai.OpenAI, streamed: bool):
    wish: Any = {"model": MODEL, "messages": HI, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    wish |= {"temperature": 0, "seed": 1}  # a symbol that takes several tokens would be told as one

    if streamed:
        chunks = list(one.chat.completions.create(**wish, stream=True))
        found = [c.choices[0].logprobs for c in chunks if c.choices]
    else:
        found = [one.chat.completions.create(**wish).choices[0].logprobs]

    tokens = [token for part in found if part is not None for token in part.content or ()]
    assert len(tokens) == 4
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("tools", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
        ("n", {"n": 2}),
        ("reasoning_effort", {"reasoning_effort": "low"}),
        (
            "messages",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
                        ],
                    }
                ]
            },
        ),
    ],
)
def test_the_local_model_refuses_what_it_cannot(one: openai.OpenAI, field: str, wish: dict[str, Any]):
    with pytest.raises(openai.BadRequestError) as refused:
        one.chat.completions.create(**{"model": MODEL, "messages": HI, **wish})

    assert refused.value.param == field


def test_embeddings_come_from_the_local_model(one: openai.OpenAI):
    floats = one.embeddings.create(model="local/minilm", input=["cars", "ferries"], encoding_format="float")
    packed = one.embeddings.create(model="local/minilm", input=["cars", "ferries"])

    assert [len(made.embedding) for made in floats.data] == [384, 384]
    for a, b in zip(floats.data, packed.data, strict=True):
        assert a.embedding == pytest.approx(b.embedding, abs=1e-6)
    assert floats.usage.prompt_tokens > 3


def test_an_app_with_sources_answers_on_every_surface(one: openai.OpenAI, other: anthropic.Anthropic):
    asked: Any = [{"role": "user", "content": QUESTION}]

    chat = one.chat.completions.create(model="extracts", messages=asked)
    response = one.responses.create(model="extracts", input=QUESTION)
    message = other.messages.create(model="extracts", messages=asked, max_tokens=64)
    events = one.chat.completions.create(model="extracts", messages=asked, stream=True)
    words = "".join(c.choices[0].delta.content or "" for c in events if c.choices)

    text = chat.choices[0].message.content or ""
    assert "30 minutes" in text
    assert text == words == response.output_text
    assert [block.type == "text" and block.text for block in message.content] == [text]
    bodies: list[Any] = [chat.model_extra, response.model_extra, message.model_extra]
    for body in bodies:
        (citation,) = {c["document"] for c in body["mainstay"]["citations"]}
        assert citation.endswith("check-in.md")
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(openai.BadRequestError) as refused:
        one.chat.completions.create(model="extracts", messages=asked, tools=[tool])
    assert refused.value.param == "tools"
