"""With `otlp_export_url`, another OpenTelemetry back end gets a copy of every trace."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from openai import OpenAI

from mainstay.cli.context import actor
from mainstay.cli.server import RunningServer
from mainstay.core.config import load_settings
from mainstay.delivery import load_project
from mainstay.observe import Span, otlp
from mainstay.services import publish

pytestmark = pytest.mark.model


class Collector:
    """An OTLP/HTTP back end: keeps the spans it was sent; `arrived` is set with each batch."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.paths: set[str] = set()
        self.arrived = threading.Event()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kind, packed = self.headers["content-type"], self.headers.get("content-encoding")
                collector.spans += otlp.decode(body, kind, packed).spans
                collector.paths.add(self.path)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()
                collector.arrived.set()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def back_end() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = ThreadingHTTPServer(("127.0.0.1", 0), collector.handler())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield collector, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answers_whole_trace_arrives_there(project: Path, back_end: tuple[Collector, str]) -> None:
    collector, url = back_end
    loaded = load_project(project)
    with RunningServer(load_settings({"port": 0, "otlp_export_url": url}), loaded) as server:
        publish(server.services, actor(), loaded)
        with OpenAI(base_url=f"{server.base_url}/v1", api_key=server.key, max_retries=0) as client:
            question = {"role": "user", "content": "When do the grey fuel cards stop working?"}
            client.chat.completions.create(model="bot", messages=[question])  # type: ignore[list-item]
        assert collector.arrived.wait(30)
    assert collector.paths == {"/v1/traces"}
    assert {"retrieve", "render", "ground"} <= {span.name for span in collector.spans}
    assert len({span.trace_id for span in collector.spans}) == 1
