"""`mainstay ask`: one question to an app or a model, the answer streamed, with its citations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import aiohttp
import orjson
import typer

from mainstay.cli.context import project_here, require_data_folder
from mainstay.cli.output import JsonFlag, emit, out, say
from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.core.errors import MainstayError, NotFound, Unavailable
from mainstay.services import running_server


class AskFailed(MainstayError):
    """The server answered with an error; the message is the server's, `server_code` its stable code."""

    status, code = 502, "ask_failed"

    def __init__(self, message: str, *, fix: str | None, server_code: str | None) -> None:
        super().__init__(message, fix=fix)
        self.server_code = server_code


def ask(
    model: Annotated[str, typer.Argument(help="An app (my-bot, my-bot@dev, my-bot@r2) or a model name.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    json: JsonFlag = False,
) -> None:
    """Ask an app or a model. Uses the running server, or starts one for this question."""
    with endpoint() as (base_url, key, stays):
        try:
            final = asyncio.run(_stream(base_url, key, model, question, show=not json))
        except AskFailed as error:
            if error.server_code == "model_not_found" and _is_app_here(model):
                raise not_applied(model) from error
            raise
    emit(final, json, lambda: render_extension(final.get("mainstay") or {}, base_url if stays else None))


@contextmanager
def endpoint() -> Iterator[tuple[str, str, bool]]:
    """(base URL, key, whether it stays): the running server, else one that lives as long as this command."""
    settings = load_settings()
    require_data_folder(settings)
    found = running_server(settings)
    if found is not None:
        yield *found, True
        return
    quiet = load_settings({"port": 0})
    with RunningServer(quiet, project_here()) as server:
        yield server.base_url, server.key, False


async def _stream(base_url: str, key: str, model: str, question: str, show: bool) -> dict[str, Any]:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    text = ""
    final: dict[str, Any] = {}
    timeout = aiohttp.ClientTimeout(total=600)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                f"{base_url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}
            ) as response,
        ):
            if response.status != 200:
                raise _failure(orjson.loads(await response.read()))
            async for event in sse_events(response.content):
                if "error" in event:
                    raise _failure(event)
                for choice in event.get("choices", []):
                    piece = (choice.get("delta") or {}).get("content") or ""
                    text += piece
                    if show:
                        out.print(piece, end="", markup=False)
                final = event if event.get("mainstay") else final
    except aiohttp.ClientError as error:
        raise Unavailable(
            f"The server at {base_url} did not answer: {error}.", fix="Start it: mainstay up"
        ) from error
    if show:
        out.print()
    return {"text": text, "mainstay": final.get("mainstay")}


async def sse_events(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events as JSON objects; comments and `[DONE]` are skipped."""
    async for line in content:
        data = line.strip().removeprefix(b"data: ")
        if line.startswith(b"data: ") and data != b"[DONE]":
            yield orjson.loads(data)


def _failure(body: dict[str, Any]) -> AskFailed:
    """What the server said. Its message ends with the fix, for clients that show no more than the message."""
    error = body.get("error") or {}
    fix = (error.get("mainstay") or {}).get("fix")
    message = str(error.get("message") or body)
    if fix:
        message = message.removesuffix(fix).rstrip() or message
    return AskFailed(message, fix=fix, server_code=error.get("code"))


def _is_app_here(name: str) -> bool:
    project = project_here()
    return project is not None and name in project.apps


def not_applied(app: str) -> NotFound:
    """The answer to a question that comes before the app's first release."""
    return NotFound(
        f"The app {app!r} of this project has no release yet.",
        fix="Run `mainstay apply` (or `mainstay up`) first.",
    )


def render_extension(extension: dict[str, Any], base_url: str | None) -> None:
    """Citations, then one line of facts: who answered, cost, latency, trace link (or command)."""
    for c in extension.get("citations") or []:
        where = f"page {c['page']}" if c.get("page") else " › ".join(c.get("heading") or ()) or "text"
        out.print(
            f"  [{c['number']}] {c['document']} v{c['version']}, {where}: “{' '.join(c['quote'].split())}”",
            markup=False,
        )
    grounding = extension.get("grounding") or {}
    if grounding.get("removed"):
        say(f"  removed as unsupported: {len(grounding['removed'])} sentence(s)")
    release = f"{extension['app']}@r{extension['release']} · " if extension.get("app") else ""
    cost = extension.get("cost_usd")
    facts = f"{extension.get('answered_by')} · {'cost unknown' if cost is None else '$' + str(cost)}"
    out.print(f"  {release}{facts} · {extension.get('latency_ms', 0):.0f} ms", markup=False)
    if extension.get("trace_id"):
        out.print(f"  {_where(extension['trace_id'], base_url)}", markup=False)


def _where(trace_id: str, base_url: str | None) -> str:
    """How to see a trace: its page while the server stays, else the command."""
    if base_url is None:
        return f"mainstay trace show {trace_id}"
    return f"{os.environ.get('MAINSTAY_PUBLIC_URL', base_url)}/traces/{trace_id}"
