"""`mainstay demo --model auto` takes the best model there is."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from mainstay.cli.demo import chosen_model


class Ollama(BaseHTTPRequestHandler):
    """Answers `/api/tags` as Ollama does."""

    def do_GET(self) -> None:
        found = self.path == "/api/tags"
        body = json.dumps({"models": [{"name": "llama3.2:1b"}, {"name": "qwen3:4b"}]}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def ollama() -> Iterator[str]:
    """The address of a server that answers like Ollama."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a key nor an Ollama, whatever this machine has."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")


def test_a_key_for_openai_comes_first(monkeypatch: pytest.MonkeyPatch, ollama: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OLLAMA_HOST", ollama)
    assert chosen_model("auto") == "openai/gpt-4o-mini"


def test_the_first_model_of_a_running_ollama_comes_next(monkeypatch: pytest.MonkeyPatch, ollama: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", ollama)
    assert chosen_model("auto") == "ollama/llama3.2:1b"


def test_without_either_the_local_model_answers() -> None:
    assert chosen_model("auto") == "local/smollm2"


def test_a_model_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert chosen_model("local/extractive") == "local/extractive"
