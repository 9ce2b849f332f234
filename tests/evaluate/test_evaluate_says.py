"""When an answer holds an accepted text: from the start of a word or number on."""

import pytest

from mainstay.evaluate.matching import says


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("It takes six months.", "month"),
        ("It takes 24 hours.", "24 hour"),
        ("No, it does not.", "no"),
        ("(Paid) leave", "paid"),
        ("共有30天。", "30天"),
        ("1,200 euros", "1200"),
    ],
)
def test_an_answer_holds_a_word_or_number_from_its_start_on(text: str, accepted: str) -> None:
    assert says(text, accepted)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("The leave is unpaid.", "paid"),
        ("I do not know.", "no"),
        ("Yesterday it was open.", "yes"),
        ("It takes 124 hours.", "24 hours"),
        ("It takes 24.5 hours.", "24"),
        ("Anything", ""),
    ],
)
def test_a_part_of_another_word_or_number_is_not_it(text: str, accepted: str) -> None:
    assert not says(text, accepted)
