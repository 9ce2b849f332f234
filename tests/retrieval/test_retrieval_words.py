import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.retrieval import split_sentences
from mainstay.retrieval.fusion import fuse, scale
from mainstay.retrieval.porter import stem
from mainstay.retrieval.sentences import is_cut_off
from mainstay.retrieval.words import content_stems, cut_cjk, search_terms

_SUFFIXES = "s es ies ed ing eed ation ational izer iveness fulness ousness ality ivity bility icate ative ful ness al ance ment ent ion ism ate ous ive ize y ly ally logy e ee ll"
_ROOTS = "relat condit hop fall hiss fil rate cease control roll sky happ agre plaster motor tan siz triplic form electr good defens allow adjust replac depend adopt commun activ angular effect bowdler probat"
WORDS = sorted({root + suffix for root in _ROOTS.split() for suffix in ["", *_SUFFIXES.split()]})


def test_our_stems_are_those_of_the_index() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE f USING fts5(t, tokenize='porter unicode61')")
    database.executemany("INSERT INTO f(rowid, t) VALUES (?,?)", enumerate(WORDS))
    database.execute("CREATE VIRTUAL TABLE v USING fts5vocab(f, instance)")
    stems = dict(database.execute("SELECT doc, term FROM v"))
    database.close()
    assert {word: stem(word) for word in WORDS} == {word: stems[n] for n, word in enumerate(WORDS)}


def test_search_terms_keep_repeats_and_drop_stop_words() -> None:
    assert search_terms("The leave of the leave year") == ["leave", "leave", "year"]
    assert search_terms("to be or not to be") == ["to", "be", "or", "not", "to", "be"]
    assert search_terms("?!") == []


def test_cjk_is_cut_into_pairs_and_other_words_stay() -> None:
    assert cut_cjk("返金は7日 refund").split() == ["返金", "金は", "7", "日", "refund"]
    assert content_stems("Über die Cafés") == ["uber", "die", "cafe"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith paid $3.50 at 5 p.m. on Monday. He left!", ["Dr. Smith paid $3.50 at 5 p.m. on Monday.", "He left!"]),
        ("J. K. Rowling of Acme Inc. wrote it. See Fig. 3.", ["J. K. Rowling of Acme Inc. wrote it.", "See Fig. 3."]),
        ("No. It is 4.5 km, e.g. far.", ["No.", "It is 4.5 km, e.g. far."]),
        ("# Leave\nYou get 25 days.\n- one\n- two. Three.\n1. First. Then.", ["# Leave", "You get 25 days.", "- one", "- two.", "Three.", "1. First.", "Then."]),
        ("name,days\nannual leave,25,UK\n| a | b. c |\n|---|---|", ["name,days", "annual leave,25,UK", "| a | b. c |"]),
        ("plan,eur\nbasic,9\nteam,49", ["plan,eur", "basic,9", "team,49"]),
        ("You get 25 days. [1] More [2]. [3]", ["You get 25 days. [1]", "More [2]. [3]"]),
        ("This line of prose was wrapped by an editor at some width\nand goes on here. End.", ["This line of prose was wrapped by an editor at some width\nand goes on here.", "End."]),
        ("今日は晴れ。明日は雨でしょう。", ["今日は晴れ。", "明日は雨でしょう。"]),
        ("", []),
        ("... --- !!!", []),
    ],
)  # fmt: skip
def test_sentences_are_cut_where_a_reader_would(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in split_sentences(text)] == sentences


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n\r-|,;:\t#[]()。字é\"'"), max_size=80))
def test_every_letter_lies_in_exactly_one_sentence(text: str) -> None:
    spans = split_sentences(text)
    covered = np.zeros(len(text), int)
    for start, end in spans:
        assert start < end
        assert text[start:end] == text[start:end].strip()
        covered[start:end] += 1
    assert spans == sorted(spans)
    assert all(count == 1 for count, letter in zip(covered, text, strict=True) if letter.isalnum())


def test_scaled_scores_keep_distances_and_missing_counts_zero() -> None:
    dense = scale([(1, 0.9), (2, 0.8), (3, 0.1)])
    lexical = scale([(2, 8.0), (4, 4.0)], complete=True)
    assert lexical == {2: 1.0, 4: 0.5}
    ranked = fuse(dense, lexical, 0.5)
    assert [row for row, _ in ranked] == [2, 1, 4, 3]
    assert scale([(7, 3.0)]) == {7: 1.0}
    assert scale([]) == {}


def test_the_package_brings_its_weights() -> None:
    import mainstay.retrieval.weights as weights

    for name in ("answerable", "extractive", "grounding"):
        assert weights.read_weights(name)["card"]["trained_on"]
    assert (Path(weights.__file__).parent / "grounding.json").is_file()


@pytest.mark.parametrize("run", [".", "!", "*", "A", "_", " ", "漢", ')"'])
def test_long_runs_of_one_sign_are_cut_in_linear_time(run: str) -> None:
    """Quadratic time would be minutes here."""
    text = f"Start. {run * 200_000}1"

    assert split_sentences(text)[0] == (0, 6)
    assert not is_cut_off(text)
