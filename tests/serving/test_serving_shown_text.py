"""What of a judged answer is shown: supported sentences once, without the numbers of a list with holes."""

from __future__ import annotations

import pytest

from mainstay.guard import GroundingRule
from mainstay.retrieval import Citation
from mainstay.serving.grounding import GroundedText, Judged, Numbering, SentenceCutter

REMOVE = GroundingRule(unsupported="remove")
SOURCE = Citation(0, "v1", "leave.md", "Leave", 1, None, (), 10, 40, "Everyone has 27 days of leave.", 0.99)


def supported(text: str) -> Judged:
    return Judged(text, "supported", SOURCE, 0.99)


def test_a_sentence_that_a_model_repeats_is_shown_and_counted_once() -> None:
    text = GroundedText(REMOVE, Numbering())
    shown = [text.take(" ", supported("Everyone has 27 days of leave.")) for _ in range(3)]
    assert shown == ["Everyone has 27 days of leave. [1]", "", ""]
    assert text.supported == text.scored == 1


def test_two_sentences_from_one_span_share_its_number() -> None:
    text = GroundedText(REMOVE, Numbering())
    shown = text.take("", supported("Everyone has 27 days.")) + text.take(" ", supported("All have 27 days."))
    assert shown == "Everyone has 27 days. [1] All have 27 days. [1]"


def test_a_list_that_lost_items_loses_its_numbers() -> None:
    text = GroundedText(REMOVE, Numbering())
    text.take("", Judged("1. Dogs are welcome.", "unsupported"))
    assert (
        text.take("\n", supported("2. Everyone has 27 days of leave."))
        == "Everyone has 27 days of leave. [1]"
    )


def test_half_a_sentence_is_not_shown_and_said_to_be_removed() -> None:
    text = GroundedText(REMOVE, Numbering())
    text.take("", supported("Everyone has 27 days of leave."))
    text.cut_off(Judged("A status update is sent every", "unsupported"))
    assert text.removed == ["A status update is sent every"]
    assert text.flush() == ""


def test_markers_are_taken_out_behind_a_long_run_of_white_space() -> None:
    cutter = SentenceCutter(drop_markers=True)
    gaps = cutter.feed("\n" * 100_000 + "[1] Leave lasts 30 days. It is paid.")
    assert [sentence for _, sentence in gaps] == ["Leave lasts 30 days."]


def test_what_goes_on_without_an_end_comes_out_whole_when_the_end_is_there() -> None:
    cutter = SentenceCutter(drop_markers=False)
    code = ["x = [1, 2];"] * 1_000
    pieces = [sentence for word in [*code, " It works. Now", " run it."] for sentence in cutter.feed(word)]
    text = "".join(gap + sentence for gap, sentence in [*pieces, *cutter.rest()]) + cutter.tail
    assert text == "".join(code) + " It works. Now run it."


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_sentences_come_out_the_same_however_the_text_is_cut(size: int) -> None:
    text = "One is here [1]. Two, e.g. this [2, 3], follows. [4]\n- Three has 2.5 km.\n\nFour?"
    cutter = SentenceCutter(drop_markers=True)
    found = [s for at in range(0, len(text), size) for s in cutter.feed(text[at : at + size])] + cutter.rest()
    assert [s for _, s in found] == [
        "One is here.",
        "Two, e.g. this, follows.",
        "- Three has 2.5 km.",
        "Four?",
    ]
