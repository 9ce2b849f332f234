"""The faults of a model server, and what becomes of a request: the one table that tests and documentation share.

Each fault is bytes (or their lack) on a raw connection. `python tests/faults/faults_table.py` prints the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from support.raw_server import Peer, Script, answer

Health = Literal["failure", "answered", "rate limit", "key", "nothing"]
"""What a fault means for its target: a step towards an open breaker; an answer; a pause; a key out for 5 minutes."""
Charge = Literal["nothing", "input", "what was said", "as the provider says"]

WORDS = ("Hel", "lo ", "world")
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 §7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(**body: Any) -> bytes:
    return (
        b"data: "
        + orjson.dumps({"id": "1", "object": "chat.completion.chunk", "model": "m", **body})
        + b"\n\n"
    )


def says(text: str) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


STOPS = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
TWO_WORDS = chunk(says(WORDS[0])) + chunk(says(WORDS[1]))


def counts(usage: Any) -> bytes:
    return event(choices=[], usage=usage)


def whole(usage: Any = USAGE, **choice: Any) -> bytes:
    said = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(WORDS)},
        "finish_reason": "stop",
        **choice,
    }
    return orjson.dumps(
        {"id": "1", "object": "chat.completion", "model": "m", "choices": [said], "usage": usage}
    )


def stream(*parts: bytes, end: bytes = END) -> bytes:
    return SSE_HEAD + b"".join(map(chunk, parts)) + end


FINE_STREAM = stream(*map(says, WORDS), STOPS, counts(USAGE), b"data: [DONE]\n\n")


def plays(plain: bytes, streamed: bytes | None = None, then: Callable[[Peer], Any] | None = None) -> Script:
    """Answers by whether a stream was asked for; then closes, or does `then`."""

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            asked_stream = bool(orjson.loads(seen.body).get("stream"))
            peer.send(streamed if asked_stream and streamed is not None else plain)
            if then is None and _is_whole(plain):
                continue
            await peer.writer.drain()
            if then is not None:
                await asyncio.sleep(0.02)  # what was sent is read before the connection breaks
                found = then(peer)
                if found is not None:
                    await found
            return

    return script


def _is_whole(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    return b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"


def fine() -> Script:
    return plays(answer(whole()), FINE_STREAM)


def refuses(status: str, *headers: str, code: str = "scripted", kind: str = "server_error") -> Script:
    body = orjson.dumps({"error": {"message": "scripted", "code": code, "type": kind}})
    return plays(answer(body, status, *headers), answer(body, status, *headers))


async def silence(peer: Peer) -> None:
    await peer.gone()


async def never_answers(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def hangs_up_at_once(peer: Peer) -> None:
    await peer.request()
    peer.reset()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client sees. `status` 200 with a `code`: the error came in the stream, after words."""

    status: int
    code: str | None = None

    def __str__(self) -> str:
        if self.code is None:
            return "answer"
        return f"`{self.code}` in the stream" if self.status == 200 else f"{self.status} `{self.code}`"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`asked`: how often the only target is asked. `elsewhere`: the next target of a route answers instead."""

    seen: Seen
    asked: int
    elsewhere: bool
    health: Health
    charged: Charge


OK = Seen(200)
FAILED, TIMED_OUT = Seen(502, "upstream_failed"), Seen(504, "upstream_failed")
CUT = Seen(200, "upstream_failed")
LIMITED = Seen(429, "rate_limit_exceeded")
KEYS_DEAD = Seen(502, "upstream_credentials_exhausted")


@dataclass(frozen=True, slots=True)
class Fault:
    """`script` is what the server does: bytes of its own, or nobody there. An outcome None: not in this way of asking."""

    name: str
    script: Script | Literal["refused", "dns", "tls"]
    plain: Outcome | None
    streamed: Outcome | None
    first_token_timeout_s: float | None = None


def both(outcome: Outcome) -> tuple[Outcome, Outcome]:
    return outcome, outcome


NOT_THERE = both(Outcome(FAILED, 2, True, "failure", "nothing"))
NO_WORD = both(Outcome(FAILED, 2, True, "failure", "input"))
SAID_TWO = Outcome(CUT, 1, False, "failure", "what was said")
FULL = both(Outcome(OK, 1, False, "answered", "as the provider says"))
COUNTED = both(Outcome(OK, 1, False, "answered", "what was said"))

FAULTS = (
    Fault("connection refused", "refused", *NOT_THERE),
    Fault("name not resolved (DNS)", "dns", *NOT_THERE),
    Fault("TLS certificate not trusted", "tls", *NOT_THERE),
    Fault("connection reset before the head", hangs_up_at_once, *NOT_THERE),
    Fault(
        "connection reset within the head",
        plays(b"HTTP/1.1 200 OK\r\nContent-", then=Peer.reset),
        *NO_WORD,
    ),
    Fault(
        "connection reset after the head",
        plays(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", SSE_HEAD, then=Peer.reset),
        *NO_WORD,
    ),
    Fault("head that is no HTTP", plays(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), *NO_WORD),
    Fault(
        "HTML page with status 200",
        plays(answer(b"<html>Busy</html>", "200 OK", "Content-Type: text/html")),
        *NO_WORD,
    ),
    Fault("half a JSON body, then the end", plays(answer(whole()[:80]), stream(says("Hel")[:40])), *NO_WORD),
    Fault("body shorter than it said", plays(answer(whole())[:-20], SSE_HEAD), *NO_WORD),
    Fault(
        "answer without choices",
        plays(answer(b'{"choices":[]}'), stream(b'data: {"choices":[]}\n\n')),
        *NO_WORD,
    ),
    Fault(
        "no finish_reason",
        plays(answer(whole(finish_reason=None)), stream(says("Hel"), says("lo "))),
        NO_WORD[0],
        SAID_TWO,
    ),
    Fault(
        "reset within the answer",
        plays(answer(whole())[:-20], SSE_HEAD + TWO_WORDS, then=Peer.reset),
        NO_WORD[0],
        SAID_TWO,
    ),
    Fault(
        "half an event, then the end",
        plays(b"", SSE_HEAD + TWO_WORDS + chunk(says("world")[:30]) + END),
        None,
        SAID_TWO,
    ),
    Fault(
        "half an event, then a reset",
        plays(b"", SSE_HEAD + TWO_WORDS + chunk(says("world")[:30]), then=Peer.reset),
        None,
        SAID_TWO,
    ),
    Fault(
        "one event that is no JSON",
        plays(b"", stream(says("Hel"), b"data: {oops\n\n", says("lo "), STOPS, counts(USAGE))),
        None,
        FULL[1],
    ),
    Fault(
        "two such events in a row",
        plays(b"", stream(says("Hel"), says("lo "), b"data: {oops\n\n", b"data: {oops\n\n", STOPS)),
        None,
        SAID_TWO,
    ),
    Fault(
        "error object in the stream, before words",
        plays(b"", stream(b'data: {"error":{"message":"x","code":500}}\n\n')),
        None,
        Outcome(FAILED, 2, True, "failure", "nothing"),
    ),
    Fault(
        "error object in the stream, after words",
        plays(b"", SSE_HEAD + TWO_WORDS + chunk(b'data: {"error":{"message":"x","code":500}}\n\n') + END),
        None,
        SAID_TWO,
    ),
    Fault(
        "silence within the answer",
        plays(answer(whole())[:-20], SSE_HEAD + TWO_WORDS, then=silence),
        None,
        Outcome(CUT, 1, False, "failure", "what was said"),
    ),
    Fault(
        "silence before the first word",
        never_answers,
        None,
        Outcome(TIMED_OUT, 1, True, "failure", "input"),
        first_token_timeout_s=0.2,
    ),
    Fault("no `[DONE]`", plays(b"", stream(*map(says, WORDS), STOPS, counts(USAGE))), None, FULL[1]),
    Fault(
        "reset after the finish_reason",
        plays(b"", SSE_HEAD + TWO_WORDS + chunk(STOPS), then=Peer.reset),
        None,
        COUNTED[1],
    ),
    Fault("no usage", plays(answer(whole(None)), stream(*map(says, WORDS), STOPS)), *COUNTED),
    Fault(
        "usage below zero",
        plays(
            answer(whole({"prompt_tokens": -5, "completion_tokens": -9})),
            stream(*map(says, WORDS), STOPS, counts({"prompt_tokens": -5, "completion_tokens": -9})),
        ),
        *COUNTED,
    ),
    Fault(
        "usage beyond reason",
        plays(
            answer(whole({"prompt_tokens": 10**18, "completion_tokens": 10**18})),
            stream(*map(says, WORDS), STOPS, counts({"prompt_tokens": 10**18, "completion_tokens": 10**18})),
        ),
        *COUNTED,
    ),
    Fault("500", refuses("500 Internal Server Error"), *NOT_THERE),
    Fault("502", refuses("502 Bad Gateway"), *NOT_THERE),
    Fault("503", refuses("503 Service Unavailable"), *NOT_THERE),
    Fault("529 (Anthropic: overloaded)", refuses("529 Overloaded"), *NOT_THERE),
    Fault(
        "429 without Retry-After",
        refuses("429 Too Many Requests"),
        *both(Outcome(LIMITED, 2, True, "failure", "nothing")),
    ),
    Fault(
        "429 with a Retry-After beyond 5 s",
        refuses("429 Too Many Requests", "Retry-After: 7"),
        *both(Outcome(LIMITED, 1, True, "rate limit", "nothing")),
    ),
    Fault(
        "401: the only key is refused",
        refuses("401 Unauthorized"),
        *both(Outcome(KEYS_DEAD, 1, True, "key", "nothing")),
    ),
    Fault(
        "402: the account is out of credit",
        refuses("402 Payment Required"),
        *both(Outcome(KEYS_DEAD, 1, True, "key", "nothing")),
    ),
    Fault(
        "403: the key may not use this model",
        refuses("403 Forbidden"),
        *both(Outcome(KEYS_DEAD, 1, True, "key", "nothing")),
    ),
    Fault(
        "404: no such model there",
        refuses("404 Not Found", code="model_not_found"),
        *both(Outcome(Seen(404, "model_not_found"), 1, True, "nothing", "nothing")),
    ),
    Fault(
        "400: it does not take the request",
        refuses("400 Bad Request", kind="invalid_request_error"),
        *both(Outcome(Seen(400, "invalid_request_error"), 1, False, "answered", "nothing")),
    ),
    Fault(
        "400: the prompt is too long for it",
        refuses("400 Bad Request", code="context_length_exceeded"),
        *both(Outcome(Seen(400, "context_length_exceeded"), 1, False, "answered", "nothing")),
    ),
)


def rows() -> list[str]:
    """The table as documentation shows it, one row for each fault and way of asking; equal ways share a row."""
    found = []
    for fault in FAULTS:
        if fault.plain == fault.streamed and fault.plain is not None:
            found.append(_row(fault.name, "both", fault.plain))
            continue
        for mode, outcome in (("whole", fault.plain), ("stream", fault.streamed)):
            if outcome is not None:
                found.append(_row(fault.name, mode, outcome))
    return found


def _row(name: str, mode: str, outcome: Outcome) -> str:
    elsewhere = "yes" if outcome.elsewhere else "no"
    cells = (name, mode, outcome.seen, outcome.asked, elsewhere, outcome.health, outcome.charged)
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    print("\n".join(rows()))
