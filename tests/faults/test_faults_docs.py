"""The pages say what the tests prove: the table of faults is the tests' own, each named test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from faults_table import rows
from test_faults_refusals import REFUSALS

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_the_page_of_faults_has_the_table_that_is_tested() -> None:
    shown = [
        line for line in page("faults.md").splitlines() if re.match(r"\|.*\| (both|whole|stream) \|", line)
    ]
    assert shown == rows(), "python tests/faults/faults_table.py prints the rows"


def test_every_refusal_on_the_page_is_one_that_is_tested() -> None:
    text = page("gateway.md")
    for name, (status, kind, code, retry) in REFUSALS.items():
        assert f"| {name} | {status} | `{kind}` | `{code}` | {retry} |" in text, name


def test_there_are_twenty_five_pains_each_with_its_proof() -> None:
    found = re.findall(r"^\| (\d+) \| (.+) \|$", page("gateway.md"), re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, 26))
    assert [number for number, row in found if not TEST.search(row) and "`make " not in row] == []


@pytest.mark.parametrize("name", ["gateway.md", "faults.md"])
def test_every_test_named_on_a_page_exists(name: str) -> None:
    missing = [
        f"{path}::{test}" for path, test in TEST.findall(page(name)) if test not in named_in(ROOT / path)
    ]
    assert missing == []


def named_in(path: Path) -> set[str]:
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
