"""What commands print is what was said: no markup, no pictures."""

import pytest

from mainstay.cli.doctor import Check, render
from mainstay.cli.output import out, progress_bar, table


def test_a_table_shows_brackets_in_data_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    table(["question", ">[b]x"], [("What is [/b] and [red]this[/red] :warning:?", None)], "empty")
    shown = capsys.readouterr().out
    assert "What is [/b] and [red]this[/red] :warning:?" in shown
    assert "[b]x" in shown
    assert "–" in shown


def test_text_outside_tables_keeps_its_colons(capsys: pytest.CaptureFixture[str]) -> None:
    out.print("see :warning: [/b]", markup=False)
    assert capsys.readouterr().out == "see :warning: [/b]\n"


def test_a_bar_shows_names_with_brackets_as_they_stand() -> None:
    with progress_bar("eval [/b]{x}") as bar:
        bar.add_task("models [/b]", total=1)
        assert [str(column) for column in bar.columns]


def test_a_finding_of_two_lines_stays_in_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    render([Check("packages", "problem", "cannot import a\nand b", "Install again")])
    lines = capsys.readouterr().out.splitlines()
    assert [line[19:] for line in lines] == ["cannot import a", "and b", "Install again"]
    assert lines[1][:19].strip() == ""
