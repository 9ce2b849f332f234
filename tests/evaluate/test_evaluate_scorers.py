from collections.abc import Callable

import pytest

from mainstay.evaluate import Answered, Case, score

MakeCase = Callable[..., Case]
MakeAnswer = Callable[..., Answered]


@pytest.mark.parametrize(
    ("text", "accept", "right"),
    [
        ("It takes 24  HOURS.", [["24 hours"]], 1.0),
        ("At most 1,000 kilograms", [["1000 kg", "1000 kilograms"]], 1.0),
        ("At most 1 000 kilograms", [["1,000 kilograms"]], 1.0),
        ("It costs 1,5 and 20,000 in all", [["20000"]], 1.0),
        ("the limit is 130 minutes", [["30 min"]], 0.0),
        ("it is 12.5 metres", [["2.5 m"]], 0.0),
        ("it is 2.05 metres", [["2.0"]], 0.0),
        ("a 24‑hour service", [["24-hour"]], 1.0),
        ("Ann and Bob", [["ann"], ["bob", "rob"]], 1.0),
        ("Ann and Tim", [["ann"], ["bob", "rob"]], 0.0),
    ],
)
def test_a_right_answer_holds_one_text_of_every_group(
    case: MakeCase, answered: MakeAnswer, text: str, accept: list[list[str]], right: float
) -> None:
    assert score(case(accept=accept), answered(text=text))["right_answer"] == right


def test_a_refusal_is_no_right_answer_even_when_it_names_the_answer(
    case: MakeCase, answered: MakeAnswer
) -> None:
    scores = score(case(), answered(text="I will not say 24 hours", refused=True))
    assert (scores["right_answer"], scores["contains"], scores["wrong_refusal"]) == (0.0, 1.0, 1.0)
    assert scores["right_refusal"] is None


@pytest.mark.parametrize(("refused", "right"), [(True, 1.0), (False, 0.0)])
def test_an_unanswerable_question_asks_for_a_refusal(
    case: MakeCase, answered: MakeAnswer, refused: bool, right: float
) -> None:
    scores = score(case(kind="unanswerable", answer=""), answered(refused=refused))
    assert scores["right_refusal"] == right
    names = ("right_answer", "wrong_refusal", "contains", "exact", "recall_at_k", "cited")
    assert {scores[name] for name in names} == {None}


def test_an_exact_answer_may_differ_in_case_space_and_full_stop(case: MakeCase, answered: MakeAnswer) -> None:
    assert score(case(), answered(text="within  24 Hours."))["exact"] == 1.0
    assert score(case(), answered(text="In 24 hours"))["exact"] == 0.0


QUOTE = "A near miss must be reported to the control room within 24 hours."


@pytest.mark.parametrize(
    ("passage", "recall"),
    [
        (
            {
                "document": "a.pdf",
                "text": f"Before. A near miss must be reported\n to the {QUOTE[36:]} After.",
            },
            1.0,
        ),
        ({"document": "docs/a.pdf", "text": QUOTE}, 1.0),
        ({"document": "a.pdf", "text": QUOTE[20:] + " Next sentence."}, 1.0),  # cut by a chunk edge
        ({"document": "a.pdf", "text": "Chapter. " + QUOTE[:20]}, 0.0),
        ({"document": "b.pdf", "text": QUOTE}, 0.0),
        ({"document": "xa.pdf", "text": QUOTE}, 0.0),
        ({"document": "a.pdf", "text": ""}, 0.0),
    ],
)
def test_a_span_is_found_in_a_passage_of_its_document(
    case: MakeCase, answered: MakeAnswer, passage: dict[str, str], recall: float
) -> None:
    scores = score(case(spans={"a.pdf": QUOTE}), answered(passages=(passage,)))
    assert scores["recall_at_k"] == recall


@pytest.mark.parametrize(
    ("line", "recall"),
    [
        ("code: EX-02; item: Hotel night; value: 118; unit: EUR per night", 1.0),
        ("| EX-02 | Hotel night | 118 | EUR per night |", 1.0),
        ("code: EX-02; item: Hotel night; value: 165; unit: EUR per night", 0.0),
        ("code: EX-02; item: Hotel night\nvalue: 118; unit: EUR per night", 0.0),
    ],
)
def test_a_row_of_a_table_is_found_with_its_headers(
    case: MakeCase, answered: MakeAnswer, line: str, recall: float
) -> None:
    passage = {"document": "a.csv", "text": f"Rates\n{line}\nEnd"}
    scores = score(
        case(spans={"a.csv": "EX-02,Hotel night,118,EUR per night"}), answered(passages=(passage,))
    )
    assert scores["recall_at_k"] == recall


def test_recall_is_the_share_of_spans_found(case: MakeCase, answered: MakeAnswer) -> None:
    spans = {"a.pdf": QUOTE, "b.md": "The office opens at seven."}
    assert (
        score(case(spans=spans), answered(passages=({"document": "a.pdf", "text": QUOTE},)))["recall_at_k"]
        == 0.5
    )


def test_cited_is_the_share_of_citations_that_quote_an_expected_span(
    case: MakeCase, answered: MakeAnswer
) -> None:
    citations = (
        {"document": "a.pdf", "quote": QUOTE},
        {"document": "a.pdf", "quote": "Something else entirely."},
    )
    assert score(case(spans={"a.pdf": QUOTE}), answered(citations=citations))["cited"] == 0.5
    assert score(case(spans={"a.pdf": QUOTE}), answered())["cited"] is None


def test_what_is_not_known_is_none_and_never_zero(case: MakeCase, answered: MakeAnswer) -> None:
    scores = score(case(), answered(cost_nusd=None, grounded_share=None))
    assert (scores["cost_usd"], scores["grounded"], scores["recall_at_k"]) == (None, None, None)
    assert score(case(), answered())["cost_usd"] == 0.002


def test_a_failed_answer_has_no_scores(case: MakeCase, answered: MakeAnswer) -> None:
    assert set(score(case(), answered(error="Timeout: 30 s")).values()) == {None}
