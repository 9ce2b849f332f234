"""From a request to the store: recorder, spool, drain; and crashes at every point of the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from mainstay.core.errors import Unavailable
from mainstay.observe import Attr, Drain, Metrics, Recorder, Span, Spool, TraceStore
from mainstay.observe import recorder as recorder_module
from mainstay.observe.codec import decode_spans


def spooled(spool: Spool) -> list[Span]:
    return [span for payload in spool.read_from({}).payloads for span in decode_spans(payload)]


def test_recorded_spans_become_readable(tmp_path: Path, store, ask) -> None:
    spool = Spool(tmp_path / "spool")
    recorder, drain = Recorder(spool), Drain(spool, store)
    drain.start()
    traces = [ask(f"question {i}") for i in range(20)]

    for spans in traces:
        recorder.record(spans)
    recorder.flush()
    drain.flush()

    assert len(store.list()) == 20
    assert store.get(traces[7][0].trace_id) == traces[7]
    assert drain.pending_bytes() == 0
    recorder.close()
    spool.close()
    drain.close()
    assert spool.segments() == []


def test_recording_from_many_threads_keeps_every_span(tmp_path: Path, make_span) -> None:
    spool = Spool(tmp_path)
    recorder = Recorder(spool)
    spans = [make_span() for _ in range(400)]

    threads = [
        threading.Thread(target=lambda i=i: [recorder.record([s]) for s in spans[i::4]]) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()

    assert {span.span_id for span in spooled(spool)} == {span.span_id for span in spans}
    spool.close()


def test_a_submitted_span_is_on_disk_when_its_future_is_done(tmp_path: Path, make_span) -> None:
    spool = Spool(tmp_path)
    recorder = Recorder(spool)
    span = make_span()

    recorder.submit([span]).result(10)

    assert spooled(spool) == [span]
    recorder.close()
    spool.close()


def test_content_is_left_out_when_asked(tmp_path: Path, store, ask) -> None:
    spool = Spool(tmp_path / "spool")
    copies: list[Span] = []

    class Copy:
        def record(self, spans: list[Span]) -> None:
            copies.extend(spans)

    recorder = Recorder(spool, capture_content=False, copies=[Copy()])
    recorder.record(ask("my secret question", "my secret answer"))
    recorder.close()
    spool.close()
    Drain(spool, store).flush()

    (row,) = store.list()
    assert (row.question, row.answer, row.input_tokens, row.cost_nusd) == ("", "", 120, 1_500)
    assert "secret" not in str(store.get(row.trace_id)) + str(copies)
    assert b"secret" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_full_queue_refuses_and_counts(tmp_path: Path, make_span, monkeypatch) -> None:
    monkeypatch.setattr(recorder_module, "QUEUE_SPANS_MAX", 3)
    told: list[int] = []
    spool = Spool(tmp_path)
    recorder = Recorder(spool, on_drop=told.append)

    recorder.record([make_span()] * 4)
    with pytest.raises(Unavailable):
        recorder.submit([make_span()] * 4)
    recorder.record([make_span()])
    recorder.close()

    assert told == [4]
    assert recorder.dropped == 4
    assert len(spooled(spool)) == 1
    spool.close()


def test_spans_wait_while_the_disk_refuses(tmp_path: Path, make_span) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    recorder = Recorder(spool)

    done = recorder.submit([make_span()])
    with pytest.raises(TimeoutError):
        done.result(0.1)
    (tmp_path / "spool").mkdir()
    done.result(30)

    assert len(spooled(spool)) == 1
    recorder.close()
    spool.close()


def test_one_record_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, store, ask) -> None:
    spool = Spool(tmp_path / "spool")
    recorder = Recorder(spool)
    recorder.record(ask())
    recorder.flush()
    spool.append([b"not spans at all"])
    recorder.record(ask())
    recorder.close()
    told: list[int] = []
    drain = Drain(spool, store, on_refused=told.append)

    drain.flush()

    assert len(store.list()) == 2
    assert told == [1]
    (kept,) = (tmp_path / "spool" / "refused").iterdir()
    assert kept.read_bytes() == b"not spans at all"
    drain.close()
    spool.close()


def test_only_one_drain_works_at_a_time_and_the_next_takes_over(tmp_path: Path, store, ask) -> None:
    spool = Spool(tmp_path / "spool")
    recorder = Recorder(spool)
    first, second = Drain(spool, store), Drain(spool, store)
    recorder.record(ask())
    recorder.flush()
    assert first.drain_once() == 1

    recorder.record(ask())
    recorder.flush()
    assert second.drain_once() == 0
    first.close()
    assert second.drain_once() == 1

    assert len(store.list()) == 2
    second.close()
    recorder.close()
    spool.close()


WRITER = """
import sys, pathlib
from mainstay.observe import Drain, Recorder, Span, Spool, TraceStore
home = pathlib.Path(sys.argv[1])
spool = Spool(home / "spool", segment_bytes=4_000)
recorder, drain = Recorder(spool), Drain(spool, TraceStore(home))
drain.start()
for i in range(int(sys.argv[2]), 1_000_000):
    trace_id = f"{i // 3 + 1:032x}"
    recorder.submit([Span(trace_id, f"{i + 1:016x}", None, "s", 10**18 + i * 10**12, 10**18 + i * 10**12 + 5)]).result()
    print(i, flush=True)
"""


def run_until_killed(home: Path, start: int, fault: str | None, kill_after: int | None) -> int:
    """The last acknowledged number of a writer that died by SIGKILL."""
    environment = {**os.environ, **({"MAINSTAY_FAULT": fault} if fault else {})}
    last = start - 1
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), str(start)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                last = int(line)
            if kill_after is not None and last >= start + kill_after:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return last


def stored_numbers(home: Path) -> Counter[int]:
    """How often each span is in the store, after a restart has drained the spool."""
    store, spool = TraceStore(home), Spool(home / "spool")
    drain = Drain(spool, store)
    drain.flush()
    drain.close()
    rows = []
    while page := store.list(before=rows[-1].trace_id if rows else None, limit=1_000):
        rows += page
    found = Counter(int(span.span_id, 16) - 1 for row in rows for span in store.get(row.trace_id))
    assert sum(row.spans for row in rows) == found.total()
    store.close()
    return found


FAULTS = [
    "observe.after_spool=kill@5",
    "observe.mid_ingest=kill@1",
    "observe.mid_ingest=kill@2",
    "observe.mid_drain=kill@2",
    "observe.mid_drain=kill@4",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_crash_between_spool_and_store_loses_and_doubles_nothing(tmp_path: Path, fault: str) -> None:
    last = run_until_killed(tmp_path, 0, fault, None)

    found = stored_numbers(tmp_path)

    assert set(range(last + 1)) <= set(found)
    assert max(found.values(), default=1) == 1


def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged, start = set(), 0

    for _ in range(5):
        last = run_until_killed(tmp_path, start, None, chance.randrange(3, 60))
        acknowledged |= set(range(start, last + 1))
        start = last + 2  # the next number may have been written without being acknowledged
    found = stored_numbers(tmp_path)

    assert acknowledged <= set(found)
    assert set(found.values()) == {1}


def test_metrics_have_the_names_dashboards_expect() -> None:
    metrics = Metrics()
    metrics.observe_request(
        app="support-bot",
        release=3,
        model="gpt-4o-mini",
        status="ok",
        duration_s=0.5,
        ttft_s=0.1,
        input_tokens=12,
        output_tokens=3,
        cost_nusd=2_000_000_000,
        cache="miss",
    )
    metrics.observe_request(app=None, release=None, model="m", status="not_found", duration_s=0.01)
    metrics.observe_guard(app="support-bot", rail="input", check="pii", action="mask")
    metrics.observe_grounding(app="support-bot", supported=2, unsupported=1)
    metrics.observe_ingest(accepted=5, rejected=1)
    metrics.dropped("export")(4)
    metrics.watch_spool(lambda: 77)

    text = metrics.render().decode()

    call = 'app="support-bot",model="gpt-4o-mini",release="3"'
    for line in (
        f'mainstay_requests_total{{{call},status="ok"}} 1.0',
        'mainstay_requests_total{app="",model="m",release="",status="not_found"} 1.0',
        f"mainstay_cost_usd_total{{{call}}} 2.0",
        'mainstay_cost_unknown_total{app="",model="m",release=""} 1.0',
        f'gen_ai_server_request_duration_seconds_count{{{call},status="ok"}} 1.0',
        f"gen_ai_server_time_to_first_token_seconds_count{{{call}}} 1.0",
        f'gen_ai_client_token_usage_sum{{app="support-bot",gen_ai_token_type="input",{call.split(",", 1)[1]}}} 12.0',
        'mainstay_guard_findings_total{action="mask",app="support-bot",check="pii",rail="input"} 1.0',
        'mainstay_grounding_sentences_total{app="support-bot",supported="false"} 1.0',
        'mainstay_spans_dropped_total{where="export"} 4.0',
        "mainstay_spool_pending_bytes 77.0",
    ):
        assert line in text


def test_metrics_count_each_request_of_many_threads_once_while_they_are_read() -> None:
    metrics = Metrics()
    known, unknown = {"ttft_s": 0.02, "input_tokens": 4, "cost_nusd": 3, "cache": "hit"}, {"cache": None}

    def observe() -> None:
        for number in range(2_000):
            status = "ok" if number % 4 else "timeout"
            about = known if number % 2 else unknown
            metrics.observe_request(app="a", release=1, model="m", status=status, duration_s=0.02, **about)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.render()
    for thread in threads:
        thread.join()
    text = metrics.render().decode()

    call = 'app="a",model="m",release="1"'
    for line in (
        f'mainstay_requests_total{{{call},status="ok"}} 6000.0',
        f'mainstay_requests_total{{{call},status="timeout"}} 2000.0',
        f'gen_ai_server_request_duration_seconds_bucket{{app="a",le="0.01",{call[8:]},status="ok"}} 0.0',
        f'gen_ai_server_request_duration_seconds_bucket{{app="a",le="0.02",{call[8:]},status="ok"}} 6000.0',
        f"gen_ai_server_time_to_first_token_seconds_count{{{call}}} 4000.0",
        f'gen_ai_client_token_usage_sum{{app="a",gen_ai_token_type="input",{call[8:]}}} 16000.0',
        f"mainstay_cost_usd_total{{{call}}} {4000 * 3 / 1e9}",
        f"mainstay_cost_unknown_total{{{call}}} 4000.0",
        'mainstay_cache_total{app="a",outcome="hit"} 4000.0',
    ):
        assert line in text


def test_unknown_is_not_zero_in_metrics() -> None:
    metrics = Metrics()
    metrics.observe_request(app="a", release=1, model="m", status="ok", duration_s=0.5)

    assert "gen_ai_client_token_usage_count{" not in metrics.render().decode()
    assert Attr.COST_NUSD == "mainstay.cost_nusd"
