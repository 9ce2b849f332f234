"""vLLM and SGLang against a local server with their health and metrics endpoints."""

from __future__ import annotations

import pytest

from mainstay.models import ChatCall, ChatMessage, ProviderBadRequest
from mainstay.models.providers import HttpProviderSettings, SgLang, Vllm
from mainstay.models.providers.probing import gauge_sum
from mainstay.models.types import Health, MediaPart, Probed, ResponseFormat, Thinking
from support.model_server import SGLANG_METRICS, VLLM_METRICS, ModelServer


@pytest.mark.parametrize(
    ("kind", "metrics", "health"),
    [
        (Vllm, VLLM_METRICS, Health(True, running=5, waiting=4)),
        (SgLang, SGLANG_METRICS, Health(True, running=7, waiting=1)),
        (Vllm, None, Health(True)),
        (SgLang, "", Health(True)),
    ],
)
async def test_a_server_says_how_busy_it_is(kind, metrics, health):
    async with ModelServer(metrics) as server:
        provider = kind(HttpProviderSettings("gpu", server.base_url))

        assert isinstance(provider, Probed)
        assert await provider.health(2.0) == health

        server.well = False
        assert await provider.health(2.0) == Health(False)
        await provider.close()


async def test_a_server_that_is_gone_is_not_well():
    provider = Vllm(HttpProviderSettings("gpu", "http://127.0.0.1:9/v1"))

    assert await provider.health(1.0) == Health(False)
    await provider.close()


@pytest.mark.parametrize(("kind", "field"), [(Vllm, "reasoning"), (SgLang, "reasoning_content")])
async def test_its_own_fields_and_structured_output_pass_natively(kind, field):
    async with ModelServer(None) as server:
        provider = kind(HttpProviderSettings("gpu", server.base_url))
        call = ChatCall(
            "my-lora",
            (
                ChatMessage("user", "Hi"),
                ChatMessage("assistant", "Yes", thinking=(Thinking("hm"),)),
                ChatMessage("user", "So?"),
            ),
            top_k=20,
            max_tokens=5,
            response_format=ResponseFormat({"type": "object"}),
            extra={"min_p": 0.1, "repetition_penalty": 1.1},
        )

        await provider.complete(call, 5.0)
        await provider.close()

    body = server.requests[0].body
    assert (body["model"], body["top_k"], body["min_p"], body["max_tokens"]) == ("my-lora", 20, 0.1, 5)
    assert body["repetition_penalty"] == 1.1
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert body["messages"][1][field] == "hm"


async def test_files_are_refused_by_name():
    provider = Vllm(HttpProviderSettings("gpu", "http://127.0.0.1:9/v1"))
    call = ChatCall("m", (ChatMessage("user", parts=(MediaPart("file", file_id="f"),)),))

    with pytest.raises(ProviderBadRequest, match="messages"):
        await provider.complete(call, 1.0)


def test_a_gauge_is_summed_over_its_labels_and_told_from_its_neighbours():
    text = 'a{x="}"} 1.0\na{x="2"} 2\nab{x="3"} 50\n# a 7\na_total 9\nplain 4 1700000000000'

    assert gauge_sum(text, "a") == 3
    assert gauge_sum(text, "plain") == 4
    assert gauge_sum(text, "none") is None
