"""A local server with the addresses, keys and errors of Azure OpenAI, else the scripted OpenAiServer.

Follows Microsoft Learn: "Azure OpenAI v1 API" (`/openai/v1/…`), the REST reference (`/openai/deployments/NAME/…` with
`api-version`, which is required there), "Authentication" (`api-key`, or a bearer token), and "Content filtering"
(status 400 with `innererror`).
"""

from __future__ import annotations

from aiohttp import web

from support.openai_server import OpenAiServer, Reply

FILTERED = Reply(
    status=400,
    error={
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {
                "hate": {"filtered": False, "severity": "safe"},
                "jailbreak": {"filtered": True, "detected": True},
            },
        },
    },
)


class AzureServer(OpenAiServer):
    """Knows one deployment, the key `azure-key` and the token `entra-token`."""

    def __init__(self, deployment: str = "my-gpt") -> None:
        super().__init__()
        self._deployment = deployment

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        for path in ("chat/completions", "embeddings"):
            router.add_post(f"/openai/v1/{path}", self._checked)
            router.add_post(f"/openai/deployments/{{deployment}}/{path}", self._checked)

    async def _checked(self, request: web.Request) -> web.StreamResponse:
        key, bearer = request.headers.get("api-key"), request.headers.get("Authorization")
        if key != "azure-key" and bearer != "Bearer entra-token":
            return _error(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
        deployment = request.match_info.get("deployment")
        if deployment is not None and "api-version" not in request.query:
            return _error(404, "404", "Resource not found")
        if deployment is not None and deployment != self._deployment:
            return _error(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        return await self._chat(request)


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
