"""What the benches make of what was measured."""

import json
from pathlib import Path

import pytest
from benchmarks import gateway
from benchmarks.gateway_figures import Results, failures, figures
from benchmarks.measure import figure, verdict, write
from benchmarks.soak.watch import Sample, trend


def _scenario(**values: float) -> dict[str, float]:
    return {
        "ok": 100,
        "bad": 0,
        "non2xx": 0,
        "neterr": 0,
        "timeouts": 0,
        "foreign": 0.0,
        "mem_mib": 50.0,
        **values,
    }


def _run(**scenarios: dict[str, float]) -> list[dict[str, object]]:
    return [{"scenarios": scenarios}]


def test_a_ratio_is_of_the_middle_values_of_all_runs() -> None:
    ours = [run for us in (90.0, 100.0, 400.0) for run in _run(max=_scenario(cpu_us_per_req=us, rps=5000.0))]
    results = Results({"mainstay": ours, "tensorzero": _run(max=_scenario(cpu_us_per_req=200.0, rps=4000.0))})

    found = {f.name: f for f in figures(results, load=0.0)}

    assert found["gateway_cpu_vs_tensorzero"].value == 0.5
    assert found["gateway_cpu_vs_tensorzero"].ok is True
    assert found["gateway_requests_per_s"].ok is True


def test_a_peer_that_is_not_here_leaves_its_figure_unmeasured_and_says_so() -> None:
    results = Results({"mainstay": _run(max=_scenario(cpu_us_per_req=90.0, rps=5000.0))})

    found = {f.name: f for f in figures(results, load=0.0)}["gateway_cpu_vs_litellm_features"]

    assert (found.value, found.ok) == (None, None)
    assert found.note == "litellm_features is not here"


def test_latency_is_what_is_added_to_no_gateway_in_the_same_run() -> None:
    direct = [run for us in (50_000.0, 52_000.0) for run in _run(rate200=_scenario(lat_p50=us, lat_p99=us))]
    ours = [run for us in (50_400.0, 52_600.0) for run in _run(rate200=_scenario(lat_p50=us, lat_p99=us))]

    found = {f.name: f for f in figures(Results({"direct": direct, "mainstay": ours}), load=0.0)}

    assert found["gateway_added_p50_rate200"].value == 0.5


def test_events_that_a_stream_lacks_are_lost_chunks() -> None:
    direct = _run(sse_max=_scenario(events_per_answer=103.0, events_per_s=25_000.0))
    ours = _run(sse_max=_scenario(events_per_answer=101.5, events_per_s=24_000.0, cpu_us_per_chunk=20.0))

    found = {f.name: f for f in figures(Results({"direct": direct, "mainstay": ours}), load=0.0)}

    assert found["gateway_stream_lost"].value == 50
    assert found["gateway_stream_lost"].ok is False


def test_failed_requests_and_contenders_that_did_not_start_are_told() -> None:
    broken = [{"error": "not ready after 90 s"}]
    results = Results({"mainstay": _run(max=_scenario(non2xx=3)), "nginx": broken})

    assert failures(results, ["mainstay", "nginx"]) == [
        "mainstay: 3 requests failed",
        "nginx did not run: not ready after 90 s",
    ]


def test_results_keep_other_figures_and_say_which_way_a_target_goes(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write([figure("a", 1.0, "s", 2.0)], path)

    write([figure("b", 1.0, "req/s", 2.0, at_least=True), figure("c", None, "ms", 1.0, note="why")], path)

    rows = json.loads(path.read_text())
    assert rows["a"]["ok"] is True
    assert (rows["b"]["ok"], rows["b"]["bound"]) == (False, "at least")
    assert (rows["c"]["value"], rows["c"]["ok"], rows["c"]["note"]) == (None, None, "why")


def test_only_a_missed_target_fails_a_bench() -> None:
    assert verdict([figure("a", None, "s", 1.0), figure("b", 5.0, "s"), figure("c", 1.0, "s", 1.0)]) == 0
    assert verdict([figure("a", 1.1, "s", 1.0)]) == 1


def test_without_the_driver_the_gateway_bench_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAINSTAY_BENCH_GATEWAY", str(tmp_path))

    assert gateway.main([]) == 2

    assert "MAINSTAY_BENCH_GATEWAY" in capsys.readouterr().err


def test_peers_that_are_not_installed_are_left_out_by_name(tmp_path: Path) -> None:
    names, settings, left_out = gateway.peers_here(
        {"MAINSTAY_BENCH_TENSORZERO": str(tmp_path), "MAINSTAY_BENCH_NPM": str(tmp_path / "nowhere")}
    )

    assert "tensorzero" in names
    assert settings == ["--set", f"tensorzero={tmp_path}"]
    assert any(line.startswith("litellm_features is left out: MAINSTAY_BENCH_LITELLM") for line in left_out)
    assert any(line.startswith("portkey is left out: ") and "nowhere" in line for line in left_out)


def _samples(grow_mb_per_h: float, wobble_mb: float = 0.2, seconds: int = 800) -> list[Sample]:
    return [
        Sample(s, 150 + grow_mb_per_h * s / 3600 + wobble_mb * (s % 7) / 7, 40, 9) for s in range(seconds)
    ]


def test_memory_that_wobbles_is_flat() -> None:
    found = trend(_samples(0.0, wobble_mb=3.0))

    assert found is not None
    assert found.flat
    assert abs(found.mb_per_h) < 1


def test_a_leak_of_ten_megabytes_an_hour_is_seen() -> None:
    found = trend(_samples(10.0))

    assert found is not None
    assert not found.flat
    assert found.low < 10.1 < found.high + 0.2


def test_too_few_samples_say_nothing_about_memory() -> None:
    assert trend(_samples(10.0, seconds=19)) is None
