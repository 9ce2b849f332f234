"""Callers may send any model name; metrics grow by none that nobody configured."""

from __future__ import annotations

from mainstay.observe import Metrics


def test_unknown_model_names_count_together() -> None:
    metrics = Metrics()
    metrics.know_models({"fast"}.__contains__)
    for name in ("fast", "ollama/a", "ollama/b", None):
        metrics.observe_request(app=None, release=None, model=name, status="ok", duration_s=0.1)
    text = metrics.render().decode()
    assert 'mainstay_requests_total{app="",model="fast",release="",status="ok"} 1.0' in text
    assert 'mainstay_requests_total{app="",model="other",release="",status="ok"} 2.0' in text
    assert 'mainstay_requests_total{app="",model="",release="",status="ok"} 1.0' in text
    assert "ollama" not in text
