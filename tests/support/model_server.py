"""A local server with the health and metrics endpoints of vLLM and SGLang, else the scripted OpenAiServer.

Follows the vLLM documentation ("OpenAI-Compatible Server", "Production Metrics") and SGLang's ("Production Metrics").
"""

from __future__ import annotations

from aiohttp import web

from support.openai_server import OpenAiServer

VLLM_METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="qwen"} 3.0
vllm:num_requests_running{engine="1",model_name="qwen"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="qwen"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0
"""
SGLANG_METRICS = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="qwen"} 7.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="qwen"} 1.0
"""


class ModelServer(OpenAiServer):
    """`metrics` None: the server was started without them. `well` False: its health answers 503."""

    def __init__(self, metrics: str | None) -> None:
        super().__init__()
        self.metrics = metrics
        self.well = True

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        super()._add_routes(router)
        router.add_get("/health", self._health)
        router.add_get("/metrics", self._metrics)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.well else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(status=404) if self.metrics is None else web.Response(text=self.metrics)
