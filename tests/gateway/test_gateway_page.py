"""The documentation's table of what works is the one that is tested."""

from __future__ import annotations

from gateway_page import PAGE, page


def test_the_page_says_what_the_tests_prove():
    assert PAGE.read_text("utf-8") == page(), "run .venv/bin/python tests/gateway/gateway_page.py"
