from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.knowledge import ParseError, canonical
from mainstay.knowledge.encoding import decode
from mainstay.knowledge.text import TextBuilder, table_lines


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=[]), max_size=200))
def test_canonical_text_is_normal_and_making_it_again_changes_nothing(text: str) -> None:
    made = canonical(text)

    assert canonical(made) == made
    assert unicodedata.is_normalized("NFC", made)
    assert "\r" not in made
    assert "\x00" not in made
    assert "\n\n\n" not in made
    assert not any(line.endswith((" ", "\t")) for line in made.split("\n"))
    made.encode("utf-8")


def test_hidden_characters_stay_for_the_guard_to_see() -> None:
    assert canonical("ig\u200bnore\u00ad this\u202e") == "ig\u200bnore this\u202e"


def test_page_and_heading_offsets_are_exact_with_combining_characters() -> None:
    builder = TextBuilder()
    builder.start_page(1)
    builder.heading(1, "Cafe\u0301 𝔘𝔫𝔦")
    builder.paragraph("One.")
    builder.start_page(2)
    builder.start_page(3)
    builder.paragraph("Two.")

    parsed = builder.build("t")

    heading = parsed.headings[0]
    assert parsed.text[heading.start : heading.end] == heading.title == "Café 𝔘𝔫𝔦"
    assert [parsed.text[p.start : p.end] for p in parsed.pages] == ["Café 𝔘𝔫𝔦\n\nOne.\n\n", "", "Two."]


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([["Ship", "Type", "Seats"], ["A", "ferry", "96"], ["B", "", "12"]],
         ["Ship: A; Type: ferry; Seats: 96", "Ship: B; Seats: 12"]),
        ([["Owner", "Ann"], ["Backup", "Bo"]], ["Owner: Ann", "Backup: Bo"]),
        ([["1", "2", "3"], ["4", "5", "6"]], ["1 | 2 | 3", "4 | 5 | 6"]),
        ([["", ""], ["a", "b\nc"]], ["a: b c"]),
    ],
)  # fmt: skip
def test_each_row_of_a_table_is_a_line_that_stands_alone(rows: list[list[str]], lines: list[str]) -> None:
    assert table_lines(rows) == lines


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Die Fähre fährt täglich über den Fluß – für 5 €.", "cp1252"),
        ("Le café est fermé à l'été, déjà.", "latin-1"),
        ("Привет, паром отправляется каждый день в восемь часов утра.", "cp1251"),
        ("Grüße, łódź, ελληνικά", "utf-8"),
        ("Grüße", "utf-8-sig"),
        ("Grüße an alle", "utf-16"),
        ("Greetings to all of you", "utf-16-le"),
        ("Grüße", "utf-32"),
    ],
)
def test_encodings_are_detected(text: str, encoding: str) -> None:
    assert canonical(decode(text.encode(encoding))) == text


def test_binary_data_is_refused_with_a_fix() -> None:
    with pytest.raises(ParseError, match="binary") as caught:
        decode(bytes(range(256)) * 10)
    assert caught.value.fix


@pytest.mark.parametrize("text", ["\ufeff\ufeffa", "\n\ufeffa", "\x00\ufeffa", "\ufeff \n\ufeff\na"])
def test_marks_of_byte_order_go_however_many_there_are(text: str) -> None:
    assert canonical(text) == "a"


def test_long_runs_of_spaces_are_read_in_linear_time() -> None:
    """Quadratic time would be minutes here."""
    run = " " * 300_000

    assert canonical(f"x{run}y") == f"x{run}y"
    assert canonical(f"x{run}\ny{run}") == "x\ny"


def test_bytes_full_of_control_characters_are_no_text() -> None:
    with pytest.raises(ParseError, match="binary"):
        decode(bytes(range(1, 256)) * 40)


def test_halves_of_surrogate_pairs_become_replacement_characters() -> None:
    assert canonical("a\ud800b") == "a\ufffdb"
